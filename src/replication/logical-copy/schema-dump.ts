import { execFile } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { DumpTools } from './tools.ts';

/** How the tools reach the server: environment variables of libpq. */
export type LibpqEnvironment = Readonly<Record<string, string>>;

/** The statements that make a database's objects: those before its data, and those after it. */
export interface SchemaDump {
  readonly before: string;
  readonly after: string;
}

/** Bytes of a dump that can be taken; and milliseconds that pg_dump waits for a lock. */
const MAX_OUTPUT = 512 * 1024 * 1024;
const LOCK_WAIT = 5000;
/** What is every node's own: the proxy's objects are installed anew, and a subscription would receive twice. */
const LEFT_OUT = ['--no-tablespaces', '--no-subscriptions'];

/**
 * Dumps the schema of a database as it is in a snapshot, which must be held open meanwhile. `signal` ends it. Rejects with what the tools say.
 */
export async function dumpSchema(
  tools: DumpTools,
  environment: LibpqEnvironment,
  { database, snapshot, signal }: { database: string; snapshot: string; signal: AbortSignal },
): Promise<SchemaDump> {
  const directory = await mkdtemp(join(tmpdir(), 'pgmm-copy-'));
  const archive = join(directory, 'archive');
  const list = join(directory, 'list');
  const run = (program: string, args: readonly string[]) =>
    runTool(program, args, { ...environment, PGDATABASE: database }, signal);
  try {
    await run(tools.dump, [
      ...['--format=custom', '--compress=0', '--schema-only', '--exclude-schema=multimaster', '--encoding=UTF8'],
      ...['--no-password', ...LEFT_OUT],
      ...[`--snapshot=${snapshot}`, `--lock-wait-timeout=${LOCK_WAIT}`, `--file=${archive}`],
    ]);
    await writeFile(list, wantedEntries(await run(tools.restore, ['--list', archive])));
    const section = async (name: string) =>
      withoutRestriction(
        await run(tools.restore, [`--section=${name}`, `--use-list=${list}`, '--file=-', ...LEFT_OUT, archive]),
      );
    return { before: await section('pre-data'), after: await section('post-data') };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function runTool(
  program: string,
  args: readonly string[],
  environment: LibpqEnvironment,
  signal: AbortSignal,
): Promise<string> {
  try {
    const env = { ...process.env, ...environment, LC_ALL: 'C' };
    const { stdout } = await promisify(execFile)(program, args, { env, signal, maxBuffer: MAX_OUTPUT });
    return stdout;
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string };
    throw new Error(stderr.trim() === '' ? message : `${program}: ${stderr.trim()}`, { cause: error });
  }
}

/**
 * The entries of an archive's list that a copy wants: not the proxy's event triggers and its publication, nor the internal triggers of partitions, which pg_dump
 * names with the donor's object ids where the proxy has made them fire on replay.
 */
export function wantedEntries(list: string): string {
  const unwanted =
    / (EVENT TRIGGER - multimaster_\d|(COMMENT|ACL) - EVENT TRIGGER multimaster_\d|PUBLICATION - pgmm |TRIGGER .* (PK|Unique|RI)_ConstraintTrigger_)/;
  return list
    .split('\n')
    .filter((line) => line.startsWith(';') || !unwanted.test(line))
    .join('\n');
}

/** Without the two commands for psql that newer tools put around their output. */
export function withoutRestriction(script: string): string {
  const key = /^\\restrict (\S+)$/m.exec(script)?.[1];
  if (key === undefined) return script;
  return script.replace(`\\restrict ${key}\n`, '').replace(`\\unrestrict ${key}\n`, '');
}
