import { existsSync, readFileSync, rmdirSync } from 'node:fs';
import { basename, join } from 'node:path';
import { z } from 'zod';
import { errorCode } from './dev-error.ts';
import type { PlaygroundDirectory } from './directory.ts';
import { poll } from './poll.ts';
import { commandLine, descendants, isAlive, processInfo, sendSignal } from './processes.ts';
import type { ProcessRef } from './processes.ts';

/**
 * Processes of a playground that was itself killed. Nobody owns them any more, and they hold ports and data.
 */
export interface Leftover {
  readonly name: string;
  readonly kind: 'proxy' | 'postgres';
  readonly process: ProcessRef;
  /** The temporary directory of its sockets. */
  readonly socketDir?: string | undefined;
}

const nodeSchema = z.object({ id: z.number(), pids: z.object({ proxy: z.number().nullable() }) });
const clusterSchema = z.object({ nodes: z.array(nodeSchema), witnesses: z.array(nodeSchema).default([]) });

/** A process counts only if its command line names this directory: numbers are used again. */
export function findLeftovers(directory: PlaygroundDirectory, nodes: readonly number[]): Leftover[] {
  const proxies = proxyPids(directory);
  const found: Leftover[] = [];
  for (const id of nodes) {
    const { config, postgresData } = directory.node(id);
    const proxy = belonging(proxies.get(id), config);
    if (proxy !== undefined) found.push({ name: `node ${id}'s proxy`, kind: 'proxy', process: proxy });
    const lock = postmasterLock(postgresData);
    const postgres = belonging(lock?.pid, postgresData);
    if (postgres !== undefined) {
      found.push({ name: `node ${id}'s PostgreSQL`, kind: 'postgres', process: postgres, socketDir: lock?.socketDir });
    }
  }
  return found;
}

/** Stops them as the playground would have, proxies first. */
export async function endLeftovers(leftovers: readonly Leftover[]): Promise<void> {
  for (const kind of ['proxy', 'postgres'] as const) {
    const those = leftovers.filter((leftover) => leftover.kind === kind);
    await Promise.all(those.map(end));
  }
  for (const socketDir of new Set(leftovers.map((leftover) => leftover.socketDir))) {
    if (socketDir === undefined || !basename(socketDir).startsWith('pgmm-')) continue;
    try {
      rmdirSync(socketDir); // only if it is empty, as the servers leave it
    } catch (error) {
      if (!['ENOENT', 'ENOTEMPTY'].includes(errorCode(error) ?? '')) throw error;
    }
  }
}

async function end({ name, kind, process }: Leftover): Promise<void> {
  const family = descendants(process.pid);
  for (const member of [...family, process]) sendSignal(member, 'SIGCONT');
  sendSignal(process, kind === 'proxy' ? 'SIGTERM' : 'SIGINT');
  const started = performance.now();
  await poll(
    `${name} ends`,
    () => {
      if (performance.now() - started > 10_000)
        for (const member of [process, ...family]) sendSignal(member, 'SIGKILL');
      return ![process, ...family].some(isAlive);
    },
    { timeoutMs: 20_000 },
  );
}

function belonging(pid: number | null | undefined, path: string): ProcessRef | undefined {
  if (pid === undefined || pid === null || !(pid > 0) || !commandLine(pid).includes(path)) return undefined;
  const info = processInfo(pid);
  return info === undefined ? undefined : { pid, started: info.started };
}

function proxyPids(directory: PlaygroundDirectory): Map<number, number | null> {
  if (!existsSync(directory.clusterFile)) return new Map();
  const { nodes, witnesses } = clusterSchema.parse(JSON.parse(readFileSync(directory.clusterFile, 'utf8')));
  return new Map([...nodes, ...witnesses].map(({ id, pids }) => [id, pids.proxy]));
}

/** postmaster.pid: the process on line 1, its socket directory on line 5. */
function postmasterLock(dataDir: string): { pid: number; socketDir: string } | undefined {
  const file = join(dataDir, 'postmaster.pid');
  if (!existsSync(file)) return undefined;
  const lines = readFileSync(file, 'utf8').split('\n');
  return { pid: Number.parseInt(lines[0], 10), socketDir: lines[4] ?? '' };
}
