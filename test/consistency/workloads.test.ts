import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCluster, type TestCluster } from '../support/cluster.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { useCommitters } from '../support/committers.ts';
import type { CommitOrder, Level } from './levels.ts';
import { runWorkload, runWorkloads } from './run.ts';
import type { Target } from './session.ts';
import { foreignKeys } from './workloads/foreign-key.ts';
import { listAppend } from './workloads/list-append.ts';
import { monotonic } from './workloads/monotonic.ts';
import { bank, counters, uniqueRace, writeSkew } from './workloads/small.ts';

/** PGMM_CONSISTENCY_SEED tries other transactions, _SECONDS more of them in each run, _ORDER nodes that commit in the order "relaxed". */
const SEED = Number(process.env['PGMM_CONSISTENCY_SEED'] ?? 1);
const SECONDS = Number(process.env['PGMM_CONSISTENCY_SECONDS'] ?? 1.5);
/** The control only shows that the checks ask of nobody what one server does not keep. */
const CONTROL_SECONDS = SECONDS / 3;
const ORDER = (process.env['PGMM_CONSISTENCY_ORDER'] ?? 'strict') as CommitOrder;
const RECENCIES = ['local', 'remote_apply', 'strict'] as const;
const LEVELS: readonly Level[] = ['READ COMMITTED', 'REPEATABLE READ'];

const KINDS = [
  ...RECENCIES.map(listAppend),
  bank,
  writeSkew(false),
  writeSkew(true),
  counters,
  monotonic,
  uniqueRace,
  foreignKeys,
];
const RUNS = LEVELS.flatMap((level) => KINDS.map((kind) => ({ level, kind, name: kind.name })));

/** Those that can run at once: of the two that share a table, the one that nobody may break. */
const TOGETHER = KINDS.filter(({ name }) => name !== writeSkew(false).name);
const NODES = [1, 2, 3];

async function startNodes(order: CommitOrder): Promise<TestCluster> {
  if (order === 'strict') return await (await startCluster()).ready();
  const cluster = await (await startCluster({ settings: { commit: { order, committers: 4 } } })).ready();
  await useCommitters(cluster, NODES);
  return cluster;
}

const targetOf = (cluster: TestCluster, order: CommitOrder): Target => ({
  name: `cluster, ${order}`,
  uris: () => NODES.map((node) => cluster.node(node).uri),
  tellsOutcomes: true,
  order,
});

describe(`consistency, seed ${SEED}`, () => {
  let cluster: TestCluster;
  let server: TestPostgres;
  let control: Target;
  let three: Target;

  beforeAll(async () => {
    cluster = await startNodes(ORDER);
    server = await startPostgres();
    three = targetOf(cluster, ORDER);
    control = { name: 'control', uris: () => [server.uri()], tellsOutcomes: false, order: 'strict' };
  });
  afterAll(async () => {
    await cluster.stop();
    await server.stop();
  });

  it.each(RUNS)('$name in $level', { timeout: 120_000 + SECONDS * 2000 }, async ({ level, kind }) => {
    for (const target of [control, three]) {
      const result = await runWorkload(target, kind, {
        level,
        seed: SEED,
        seconds: target === control ? CONTROL_SECONDS : SECONDS,
      });
      console.log(result.line);
      expect(result.forbidden).toEqual([]);
      expect(result.transactions).toBeGreaterThan(0);
    }
  });
});

describe(`consistency of nodes that commit in the order "relaxed", seed ${SEED}`, () => {
  let cluster: TestCluster;
  beforeAll(async () => {
    cluster = await startNodes('relaxed');
  });
  afterAll(() => cluster.stop());

  it.each(LEVELS)('all workloads at once in %s', { timeout: 120_000 + SECONDS * 2000 }, async (level) => {
    const options = { level, seed: SEED, seconds: 2 * SECONDS, sessions: NODES.length };
    for (const result of await runWorkloads(targetOf(cluster, 'relaxed'), TOGETHER, options)) {
      console.log(result.line);
      expect(result.forbidden).toEqual([]);
      expect(result.transactions).toBeGreaterThan(0);
    }
  });

  it('has used all of its committers', async () => {
    const used = `SELECT count(*)::int AS n FROM pg_replication_origin_status WHERE external_id ~ 'of4$' AND remote_lsn > '0/0'`;
    for (const node of NODES) {
      const client = new pg.Client({ connectionString: cluster.node(node).postgresUri });
      await client.connect();
      expect((await client.query<{ n: number }>(used)).rows).toEqual([{ n: 4 }]);
      await client.end();
    }
  });
});
