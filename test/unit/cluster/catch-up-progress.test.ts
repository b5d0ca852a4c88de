import { describe, expect, it } from 'vitest';
import { CatchUpProgress } from '../../../src/cluster/catch-up-progress.ts';

const at = (seconds: number, decided: number, committed: number, isMember = false) => ({
  ...{ now: seconds * 1000, isMember, decided, committed, bytes: committed * 100 },
});

describe('the progress of catching up', () => {
  it('tells what is left, at the rate by which the distance shrinks', () => {
    const progress = new CatchUpProgress();
    progress.sample(at(0, 1000, 100));
    expect(progress.progress).toMatchObject({ remaining: 900, done: 0, secondsLeft: null });
    progress.sample(at(1, 1100, 300));
    progress.sample(at(2, 1200, 500));
    // 200 entries a second come in, and 100 are added: the distance shrinks by 100 a second.
    expect(progress.progress).toEqual({
      remaining: 700,
      done: 400,
      bytes: 40_000,
      entriesPerSecond: 200,
      secondsLeft: 7,
    });
  });

  it('knows no end while others are as quick', () => {
    const progress = new CatchUpProgress();
    progress.sample(at(0, 1000, 100));
    progress.sample(at(1, 1200, 300));
    expect(progress.progress?.secondsLeft).toBeNull();
  });

  it('forgets rates of long ago, and ends with membership', () => {
    const progress = new CatchUpProgress();
    progress.sample(at(0, 1000, 0));
    progress.sample(at(60, 1000, 600));
    progress.sample(at(61, 1000, 610));
    expect(progress.progress?.entriesPerSecond).toBe(10);
    expect(progress.sample(at(62, 1000, 990, true))).toBe(true);
    expect(progress.progress).toBeUndefined();
    expect(progress.sample(at(63, 1000, 1000, true))).toBe(false);
  });
});
