import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCluster, type TestCluster } from '../support/cluster.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import type { Level } from './levels.ts';
import { runWorkload } from './run.ts';
import type { Target } from './session.ts';
import { foreignKeys } from './workloads/foreign-key.ts';
import { listAppend } from './workloads/list-append.ts';
import { monotonic } from './workloads/monotonic.ts';
import { bank, counters, uniqueRace, writeSkew } from './workloads/small.ts';

/** PGMM_CONSISTENCY_SEED tries other transactions, _SECONDS more of them in each run. */
const SEED = Number(process.env['PGMM_CONSISTENCY_SEED'] ?? 1);
const SECONDS = Number(process.env['PGMM_CONSISTENCY_SECONDS'] ?? 1.5);
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

describe(`consistency, seed ${SEED}`, () => {
  let cluster: TestCluster;
  let server: TestPostgres;
  let control: Target;
  let three: Target;

  beforeAll(async () => {
    cluster = await (await startCluster()).ready();
    server = await startPostgres();
    three = { name: 'cluster', uris: () => [1, 2, 3].map((node) => cluster.node(node).uri), tellsOutcomes: true };
    control = { name: 'control', uris: () => [server.uri()], tellsOutcomes: false };
  });
  afterAll(async () => {
    await cluster.stop();
    await server.stop();
  });

  it.each(RUNS)('$name in $level', { timeout: 120_000 + SECONDS * 2000 }, async ({ level, kind }) => {
    for (const target of [control, three]) {
      const result = await runWorkload(target, kind, { level, seed: SEED, seconds: SECONDS });
      console.log(result.line);
      expect(result.forbidden).toEqual([]);
      expect(result.transactions).toBeGreaterThan(0);
    }
  });
});
