import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatReport } from '../../src/cli/verify/report.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { later, Nemesis } from '../faults/nemesis.ts';
import { Rng } from '../sim/rng.ts';
import { startCluster, type TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';
import type { Level } from './levels.ts';
import { runWorkloads, type RunResult } from './run.ts';
import type { Target } from './session.ts';
import { foreignKeys } from './workloads/foreign-key.ts';
import { listAppend } from './workloads/list-append.ts';
import { monotonic } from './workloads/monotonic.ts';
import { bank, counters, uniqueRace, writeSkew } from './workloads/small.ts';

/**
 * Which transactions and faults come: PGMM_CONSISTENCY_SEED tries others, _ROUNDS more faults at each level. These are a
 * PostgreSQL and a proxy killed, a proxy paused, a node cut off; then a node cut off one way, two pauses, a client's server process killed.
 */
const SEED = Number(process.env['PGMM_CONSISTENCY_SEED'] ?? 14);
const ROUNDS = Number(process.env['PGMM_CONSISTENCY_ROUNDS'] ?? 4);
const LEVELS: readonly Level[] = ['READ COMMITTED', 'REPEATABLE READ'];
const NODES = [1, 2, 3];
/** One of each workload on each node. */
const SESSIONS = NODES.length;
/** How long the cluster may take to be whole again after a fault, on a slow machine. */
const HEAL_TIMEOUT = 120_000;

const KINDS = [
  // Not the one with remote_apply: that waits for members, and a node that has been excluded may show something older.
  listAppend('local'),
  listAppend('strict'),
  bank,
  writeSkew(true),
  counters,
  monotonic,
  uniqueRace,
  foreignKeys,
];

/** What nobody may do, by the workload that has to notice it. */
const PLANTED: Record<string, readonly [sql: string, kind: string]> = {
  'list-append': ['UPDATE list_append_local SET items = items[2:]', 'lost-append'],
  'list-append, strict': ['UPDATE list_append_strict SET items = items || items[1]', 'duplicate-elements'],
  bank: ['UPDATE bank SET balance = balance + 1 WHERE id = 1', 'wrong-sum'],
  monotonic: ['UPDATE monotonic SET n = -1', 'wrong-count'],
  'unique race': ['DELETE FROM unique_race', 'lost-insert'],
  'foreign-key race': ['DELETE FROM fk_no_action_parent; INSERT INTO fk_no_action_child VALUES (-1, 1, 1)', 'orphan'],
};

describe(`consistency under faults, seed ${SEED}`, () => {
  let cluster: TestCluster;
  let target: Target;
  let last: RunResult[] = [];
  /** What the cluster said of transactions whose clients had not been told, at all levels. */
  const told = { committed: 0, aborted: 0 };

  beforeAll(async () => {
    cluster = await (await startCluster()).ready();
    target = {
      name: 'cluster',
      uris: () => NODES.map((node) => cluster.node(node).uri),
      tellsOutcomes: true,
      order: 'strict',
    };
  });
  afterAll(() => cluster.stop());

  const whole = async (): Promise<boolean> =>
    (await Promise.all(NODES.map((node) => isReady(cluster, node)))).every(Boolean);

  async function faults(nemesis: Nemesis, rng: Rng): Promise<void> {
    for (let round = 1; round <= ROUNDS; round++) {
      const fault = nemesis.draw();
      console.log(`${round}: ${fault.kind}, node ${fault.nodes.join()}`);
      await fault.begin();
      await later(rng.between(500, 3500));
      await fault.end();
      await waitFor(`all nodes take writes after "${fault.kind}"`, whole, { timeoutMs: HEAL_TIMEOUT });
    }
  }

  it.each(LEVELS)('all workloads in %s', { timeout: 180_000 + ROUNDS * 150_000 }, async (level) => {
    // Of its own, so that the seed alone says which faults come.
    const rng = new Rng(SEED * LEVELS.length + LEVELS.indexOf(level));
    const during = () => faults(new Nemesis(cluster, rng), rng);
    last = await runWorkloads(target, KINDS, {
      level,
      seed: SEED,
      seconds: 0,
      sessions: SESSIONS,
      losses: true,
      during,
    });
    for (const { line } of last) console.log(line);
    expect(last.flatMap(({ name, forbidden }) => forbidden.map((one) => ({ name, ...one })))).toEqual([]);
    expect(last.filter(({ transactions }) => transactions === 0)).toEqual([]);
    for (const { settled } of last) {
      told.committed += settled.committed;
      told.aborted += settled.aborted;
    }
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 60_000 });
    expect(report.same ? [] : formatReport(report)).toEqual([]);
  });

  it('had clients that were not told of a commit, and of a rollback', () => {
    expect(told.committed).toBeGreaterThan(0);
    expect(told.aborted).toBeGreaterThan(0);
  });

  it('finds what is planted into one node after the faults', async () => {
    const client = new pg.Client({ connectionString: cluster.node(2).postgresUri });
    await client.connect();
    const found: Record<string, string[]> = {};
    try {
      await client.query('SET session_replication_role = replica');
      for (const { name, again } of last) {
        if (!(name in PLANTED)) continue;
        await client.query('BEGIN');
        await client.query(PLANTED[name][0]);
        found[name] = [...new Set((await again([client])).map(({ kind }) => kind))];
        // Nobody else has seen it.
        await client.query('ROLLBACK');
      }
    } finally {
      await client.end();
    }
    for (const [name, [, kind]] of Object.entries(PLANTED)) expect(found[name]).toContain(kind);
  });
});
