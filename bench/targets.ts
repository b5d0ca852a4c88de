import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { startCluster } from '../test/support/cluster.ts';
import { startPostgres } from '../test/support/postgres.ts';
import { waitFor } from '../test/support/wait-for.ts';
import { values } from './histograms.ts';
import { BenchError } from './pgbench.ts';
import type { Pgbench } from './pgbench.ts';
import { EXTRA_TABLES } from './workloads.ts';

const MAIN = fileURLToPath(new URL('../dist/main.js', import.meta.url));
/** Proxies sample what they show of each other this often. */
const SAMPLE_INTERVAL_MS = 600;
const READY_TIMEOUT_MS = 60_000;
const DRAIN_TIMEOUT_MS = 30_000;

/** One PostgreSQL, or a cluster of them behind proxies. */
export interface Target {
  readonly name: 'plain' | 'cluster';
  /** Where clients connect, one port per node. */
  readonly ports: readonly number[];
  /** Process numbers of what does the work; a PostgreSQL by its first process. */
  readonly postgres: readonly number[];
  readonly proxies: readonly number[];
  /** The servers themselves, for what is no write: VACUUM, CHECKPOINT. */
  readonly servers: readonly string[];
  /** The pages of all proxies. */
  metrics(): Promise<string[]>;
  /** Waits until what was committed is committed on all nodes, so that the next run doesn't pay for this one. */
  drain(): Promise<void>;
  stop(): Promise<void>;
}

export interface TargetOptions {
  readonly nodes: number;
  readonly postgresBin: string | undefined;
  readonly env?: NodeJS.ProcessEnv;
}

export async function startPlain({
  postgresBin,
}: Pick<TargetOptions, 'postgresBin'>): Promise<Target & { version: string }> {
  const server = await startPostgres({ settings: { shared_buffers: '128MB' }, bin: postgresBin });
  const pid = server.server.pid;
  if (pid === null) throw new Error('PostgreSQL ended at once');
  return {
    name: 'plain',
    version: server.version,
    ports: [server.port],
    postgres: [pid],
    proxies: [],
    servers: [server.uri()],
    metrics: () => Promise.resolve([]),
    drain: () => Promise.resolve(),
    stop: () => server.stop(),
  };
}

/** The proxies run the build: what tsx makes of the sources is slower. */
export async function startProxies({ nodes, postgresBin, env }: TargetOptions): Promise<Target> {
  if (!existsSync(MAIN)) throw new BenchError('there is no build to measure: npm run build');
  const command = JSON.stringify([process.execPath, MAIN, 'run']);
  const ids = Array.from({ length: nodes }, (_, index) => index + 1);
  const cluster = await startCluster({
    nodes,
    postgresBin,
    relays: false,
    env: { ...env, PGMM_DEV_PROXY_COMMAND: command },
  });
  const metrics = async (): Promise<string[]> => Promise.all(ids.map((id) => page(cluster.node(id).metrics)));
  try {
    await cluster.ready();
    const writable = async (): Promise<boolean> =>
      (await metrics()).every((text) => values(text, 'pgmm_writable').includes(1));
    await waitFor('every node accepts writes', writable, { timeoutMs: READY_TIMEOUT_MS, everyMs: 100 });
  } catch (error) {
    await cluster.stop();
    throw error;
  }
  const all = ids.map((id) => cluster.node(id));
  const running = (pid: number | null): number => {
    if (pid === null) throw new Error('a node ended at once');
    return pid;
  };
  return {
    name: 'cluster',
    ports: all.map((node) => Number(new URL(node.uri).port)),
    postgres: all.map((node) => running(node.pids.postgres)),
    proxies: all.map((node) => running(node.pids.proxy)),
    servers: all.map((node) => node.postgresUri),
    metrics,
    drain: async () => {
      await sleep(SAMPLE_INTERVAL_MS);
      const drained = async (): Promise<boolean> =>
        (await metrics()).every((text) => values(text, 'pgmm_lag_entries').every((lag) => lag === 0));
      await waitFor('all nodes have committed all', drained, { timeoutMs: DRAIN_TIMEOUT_MS, everyMs: 100 });
    },
    stop: () => cluster.stop(),
  };
}

/** On a connection of its own: between two readings the server may close one that is kept. */
async function page(url: string): Promise<string> {
  return await (await fetch(url, { headers: { connection: 'close' } })).text();
}

/** Makes and fills the tables, through the front door, and leaves nothing for autovacuum or a checkpoint to do. */
export async function load(target: Target, pgbench: Pgbench, scale: number): Promise<void> {
  await pgbench.load(target.ports[0], scale);
  await execute(`postgresql://postgres@127.0.0.1:${target.ports[0]}/postgres`, [EXTRA_TABLES]);
  await target.drain();
  for (const server of target.servers) await execute(server, ['VACUUM ANALYZE', 'CHECKPOINT']);
}

async function execute(uri: string, statements: readonly string[]): Promise<void> {
  const client = new pg.Client({ connectionString: uri });
  client.on('error', () => undefined);
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

export const ROOT = join(MAIN, '../..');
