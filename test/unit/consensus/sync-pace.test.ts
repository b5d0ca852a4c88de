import { describe, expect, it } from 'vitest';
import { SyncPace } from '../../../src/consensus/sync-pace.ts';

/** How many of the next syncs run in place, each taking that long. */
function inPlace(pace: SyncPace, syncs: number, milliseconds: number): number {
  let count = 0;
  for (let i = 0; i < syncs; i++) {
    if (!pace.inPlace()) continue;
    count += 1;
    pace.took(milliseconds);
  }
  return count;
}

describe('where syncs run', () => {
  it('in place on a quick disk', () => {
    expect(inPlace(new SyncPace(), 5000, 0.15)).toBe(5000);
  });

  it('almost always aside on a slow one', () => {
    expect(inPlace(new SyncPace(), 5000, 8)).toBe(5);
    expect(inPlace(new SyncPace(), 5000, 2)).toBeLessThan(20);
  });

  it('aside for a while after one that took long, then in place again', () => {
    const pace = new SyncPace();
    expect(inPlace(pace, 100, 0.1)).toBe(100);
    expect(inPlace(pace, 1, 30)).toBe(1);
    expect(inPlace(pace, 1000, 0.1)).toBe(0);
    expect(inPlace(pace, 1000, 0.1)).toBe(1000);
  });
});
