import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';

/** pg_dump and pg_restore of one installation. */
export interface DumpTools {
  readonly dump: string;
  readonly restore: string;
  readonly major: number;
}

/** What was found where it was looked. */
export interface Candidate {
  readonly tools: { readonly dump: string; readonly restore: string };
  /** Undefined where there is no pg_dump, or none that runs. */
  readonly major: number | undefined;
}

/**
 * The first that can dump a server of version `from` for one of version `to`: pg_dump knows servers up to its own version, and what it writes is for
 * servers from its own version on. Throws with what was found instead.
 */
export function chooseTools(candidates: readonly Candidate[], from: number, to: number): DumpTools {
  for (const { tools, major } of candidates)
    if (major !== undefined && major >= from && major <= to) return { ...tools, major };
  const found = candidates.map(
    ({ tools, major }) => `${tools.dump} ${major === undefined ? 'is not there' : `is of version ${major}`}`,
  );
  const wanted = from === to ? `of version ${from}` : `of version ${from} to ${to}`;
  throw new Error(`a logical copy needs a pg_dump ${wanted}, set reclone.tools_directory: ${found.join(', ')}`);
}

/** Where to look: where the setting says, and only there; else beside the server's own programs, and on the PATH. */
export function toolPlaces(setting: string | undefined, serverPrograms: string | null): Candidate['tools'][] {
  const inside = (directory: string) => ({ dump: join(directory, 'pg_dump'), restore: join(directory, 'pg_restore') });
  if (setting !== undefined) return [inside(setting)];
  return [...(serverPrograms === null ? [] : [inside(serverPrograms)]), { dump: 'pg_dump', restore: 'pg_restore' }];
}

/** Rejects with the reason when there are none that can be used. */
export async function findTools(places: readonly Candidate['tools'][], from: number, to: number): Promise<DumpTools> {
  const candidates = await Promise.all(places.map(async (tools) => ({ tools, major: await majorOf(tools.dump) })));
  return chooseTools(candidates, from, to);
}

async function majorOf(program: string): Promise<number | undefined> {
  try {
    const { stdout } = await promisify(execFile)(program, ['--version'], { timeout: 10_000 });
    const major = /\(PostgreSQL\) (\d+)/.exec(stdout)?.[1];
    return major === undefined ? undefined : Number(major);
  } catch (error) {
    const { code } = error as { code?: string | number };
    if (code === 'ENOENT' || code === 'EACCES' || typeof code === 'number') return undefined;
    throw error;
  }
}
