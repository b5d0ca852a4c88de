/** Random runs. `SEEDS=20000 npx vitest run safety` runs more; `SEED=17` runs one again. */
import { expect, test } from 'vitest';
import { Cluster, type Statistics } from './cluster.ts';

const only = process.env['SEED'];
const first = only === undefined ? 1 : Number(only);
const count = only === undefined ? Number(process.env['SEEDS'] ?? 500) : 1;
const STEPS = 2000;

test(`${count} random runs are safe, and make progress once the faults end`, { timeout: 3_600_000 }, () => {
  const total: Partial<Record<keyof Statistics, number>> = {};
  for (let seed = first; seed < first + count; seed++) {
    const cluster = new Cluster(seed);
    try {
      cluster.run(STEPS);
    } catch (error) {
      throw new Error(`SEED=${seed}: ${String(error)}`, { cause: error });
    }
    for (const [name, value] of Object.entries(cluster.statistics) as [keyof Statistics, number][]) {
      total[name] = (total[name] ?? 0) + value;
    }
  }
  if (process.env['SEEDS'] !== undefined) console.log(total);
  // A run in which nothing happens would prove nothing.
  if (count >= 100) {
    for (const value of Object.values(total)) expect(value).toBeGreaterThan(count / 4);
  }
});

test(`${count} random runs of two nodes and a referee are safe, and make progress`, { timeout: 3_600_000 }, () => {
  const total = { granted: 0, taken: 0, lost: 0, leaders: 0, committed: 0 };
  for (let seed = first; seed < first + count; seed++) {
    const cluster = new Cluster(seed, true);
    try {
      cluster.run(STEPS);
    } catch (error) {
      throw new Error(`SEED=${seed}: ${String(error)}`, { cause: error });
    }
    const { granted, taken, lost } = cluster.referee!;
    const { leaders, committed } = cluster.statistics;
    for (const [name, value] of Object.entries({ granted, taken, lost, leaders, committed }))
      total[name as keyof typeof total] += value;
  }
  if (process.env['SEEDS'] !== undefined) console.log(total);
  if (count >= 100) for (const value of Object.values(total)) expect(value).toBeGreaterThan(count / 4);
});

test('one seed, one run', () => {
  const [a, b] = [new Cluster(5), new Cluster(5)];
  a.run(STEPS);
  b.run(STEPS);
  expect(a.statistics).toEqual(b.statistics);
});
