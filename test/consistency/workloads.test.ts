import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCluster, type TestCluster } from '../support/cluster.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import type { Level } from './levels.ts';
import { runWorkload } from './run.ts';
import type { Target } from './session.ts';
import { foreignKeys } from './workloads/foreign-key.ts';
import { listAppend } from './workloads/list-append.ts';
import { bank, counters, uniqueRace, writeSkew } from './workloads/small.ts';

/** PGMM_CONSISTENCY_SEED tries other transactions, _SECONDS more of them in each run. */
const SEED = Number(process.env['PGMM_CONSISTENCY_SEED'] ?? 1);
const SECONDS = Number(process.env['PGMM_CONSISTENCY_SECONDS'] ?? 1.5);
const LEVELS: readonly Level[] = ['READ COMMITTED', 'REPEATABLE READ'];

const KINDS = [listAppend(false), listAppend(true), bank, writeSkew(false), counters, uniqueRace, foreignKeys];
const RUNS = LEVELS.flatMap((level) => KINDS.map((kind) => ({ level, kind, name: kind.name })));

describe(`consistency, seed ${SEED}`, () => {
  let cluster: TestCluster;
  let server: TestPostgres;
  let control: Target;
  let three: Target;

  beforeAll(async () => {
    cluster = await (await startCluster()).ready();
    server = await startPostgres();
    three = { name: 'cluster', uris: () => [1, 2, 3].map((node) => cluster.node(node).uri) };
    control = { name: 'control', uris: () => [server.uri()] };
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
