import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { z } from 'zod';
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
}

const clusterSchema = z.object({
  nodes: z.array(z.object({ id: z.number(), pids: z.object({ proxy: z.number().nullable() }) })),
});

/** A process counts only if its command line names this directory: numbers are used again. */
export function findLeftovers(directory: PlaygroundDirectory, nodes: readonly number[]): Leftover[] {
  const proxies = proxyPids(directory);
  const found: Leftover[] = [];
  for (const id of nodes) {
    const { config, postgresData } = directory.node(id);
    const proxy = belonging(proxies.get(id), config);
    if (proxy !== undefined) found.push({ name: `node ${id}'s proxy`, kind: 'proxy', process: proxy });
    const postgres = belonging(postmasterPid(postgresData), postgresData);
    if (postgres !== undefined) found.push({ name: `node ${id}'s PostgreSQL`, kind: 'postgres', process: postgres });
  }
  return found;
}

/** Stops them as the playground would have, proxies first. */
export async function endLeftovers(leftovers: readonly Leftover[]): Promise<void> {
  for (const kind of ['proxy', 'postgres'] as const) {
    const those = leftovers.filter((leftover) => leftover.kind === kind);
    await Promise.all(those.map(end));
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
  if (pid === undefined || pid === null || !commandLine(pid).includes(path)) return undefined;
  const info = processInfo(pid);
  return info === undefined ? undefined : { pid, started: info.started };
}

function proxyPids(directory: PlaygroundDirectory): Map<number, number | null> {
  if (!existsSync(directory.clusterFile)) return new Map();
  const { nodes } = clusterSchema.parse(JSON.parse(readFileSync(directory.clusterFile, 'utf8')));
  return new Map(nodes.map(({ id, pids }) => [id, pids.proxy]));
}

function postmasterPid(dataDir: string): number | undefined {
  const file = join(dataDir, 'postmaster.pid');
  if (!existsSync(file)) return undefined;
  const pid = Number.parseInt(readFileSync(file, 'utf8'), 10);
  return Number.isInteger(pid) && pid > 0 ? pid : undefined;
}
