/** A share of the simulator's runs. `SEEDS=5000 npx vitest run test/sim` runs more; `npm run sim` runs them on all cores. */
import { expect, test } from 'vitest';
import { printFailure, runSeed } from './run.ts';
import { Summary } from './summary.ts';

const SEEDS = Number(process.env['SEEDS'] ?? 300);
const STEPS = 2000;

test(`${SEEDS} runs break no rule`, { timeout: 3_600_000 }, () => {
  const summary = new Summary();
  for (let seed = 1; seed <= SEEDS; seed++) {
    const result = runSeed(seed, STEPS);
    if (result.failure !== undefined) throw new Error(printFailure(result));
    summary.add(result.steps, result.counts);
  }
  if (process.env['SEEDS'] !== undefined) console.log(summary.print());
  if (SEEDS < 100) return;
  const usual = [
    'committed',
    'aborted 40001',
    'catch-ups',
    'log: exclude',
    'log: admit',
    'fault: proxy crash',
    'fault: postgres crash',
  ];
  for (const what of usual) expect.soft(summary.counts.get(what), what).toBeGreaterThan(SEEDS / 2);
});

test('one seed, one run', () => {
  for (const seed of [3, 8, 21]) {
    const [one, other] = [runSeed(seed, STEPS), runSeed(seed, STEPS)];
    expect(one.hash).toBe(other.hash);
    expect(one.counts).toEqual(other.counts);
  }
  expect(runSeed(3, STEPS).hash).not.toBe(runSeed(8, STEPS).hash);
});
