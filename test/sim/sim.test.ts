/** A share of the simulator's runs. `SEEDS=5000 npx vitest run test/sim` runs more; `npm run sim` runs them on all cores. */
import { expect, test } from 'vitest';
import { runSeed } from './run.ts';
import { runShare, SEEDS, STEPS } from './share.ts';

const LAST = Math.floor(SEEDS / 2);

test(`the first ${LAST} of ${SEEDS} runs break no rule`, { timeout: 3_600_000 }, () => runShare(1, LAST));

test('one seed, one run', () => {
  for (const seed of [3, 8, 21]) {
    const [one, other] = [runSeed(seed, STEPS), runSeed(seed, STEPS)];
    expect(one.hash).toBe(other.hash);
    expect(one.counts).toEqual(other.counts);
  }
  expect(runSeed(3, STEPS).hash).not.toBe(runSeed(8, STEPS).hash);
});
