import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { formatGid } from '../../../src/commit/gid.ts';
import { Turns, type Turn } from '../../../src/commit/turns.ts';
import { epoch, nodeId } from '../../../src/runtime/ids.ts';

const lostAt = (clock: number) => formatGid({ cluster: 'c', node: nodeId(1), epoch: epoch(1), sequence: 1, clock });
const PATIENCE = 2000;

describe('turns of clients that lost a conflict', () => {
  let turns: Turns;
  let woken: number[];
  const enter = (seniority: number): Turn => turns.enter(lostAt(seniority), () => woken.push(seniority));

  beforeEach(() => {
    vi.useFakeTimers();
    turns = new Turns(PATIENCE);
    woken = [];
  });

  afterEach(() => {
    vi.useRealTimers();
  });

  /** Until only one may try at a time. */
  function narrow(): void {
    for (let i = 0; i < 10; i++) enter(i).end('lost');
    woken = [];
  }

  it('let several try at once at first, and fewer when they lose', () => {
    expect([1, 2, 3, 4, 5].map((n) => enter(n).granted)).toEqual([true, true, true, true, false]);
    turns = new Turns(PATIENCE);
    narrow();
    expect([1, 2].map((n) => enter(n).granted)).toEqual([true, false]);
  });

  it('let more try at once when they commit', () => {
    narrow();
    for (let i = 0; i < 10; i++) enter(i).end('committed');
    expect([1, 2, 3, 4].map((n) => enter(n).granted)).toEqual([true, true, true, true]);
  });

  it('go to the one that lost first', () => {
    narrow();
    const first = enter(9);
    const [late, early, middle] = [enter(8), enter(3), enter(5)];
    first.end('other');
    first.end('other');
    expect([late, early, middle].map(({ granted }) => granted)).toEqual([false, true, false]);
    early.end('lost');
    middle.end('lost');
    expect(woken).toEqual([9, 3, 5, 8]);
    expect(turns.waiting).toBe(0);
  });

  it('are not lost with a client that leaves while it waits', () => {
    narrow();
    const first = enter(1);
    enter(2).end('other');
    const third = enter(3);
    first.end('lost');
    expect(third.granted).toBe(true);
  });

  it('are not held for longer than a second, and not waited for beyond the patience', () => {
    narrow();
    enter(1);
    const waiting = [2, 3, 4, 5].map(enter);
    vi.advanceTimersByTime(999);
    expect(waiting.map(({ granted }) => granted)).toEqual([false, false, false, false]);
    vi.advanceTimersByTime(1);
    expect(waiting.map(({ granted }) => granted)).toEqual([true, false, false, false]);
    vi.advanceTimersByTime(1000);
    expect(waiting.map(({ granted }) => granted)).toEqual([true, true, true, true]);
  });

  it('are for everyone where there is no patience', () => {
    turns = new Turns(0);
    expect(Array.from({ length: 20 }, (_, n) => enter(n).granted)).not.toContain(false);
  });
});
