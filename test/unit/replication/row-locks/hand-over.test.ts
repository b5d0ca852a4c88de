import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { handedOver, pauseAfter } from '../../../../src/replication/row-locks/hand-over.ts';

describe('asking until the locks of a PREPARE are handed over', () => {
  beforeEach(() => void vi.useFakeTimers());
  afterEach(() => void vi.useRealTimers());

  /** A backend that is still preparing for so many questions. */
  function backend(questions: number): { asked: number; isPreparing: () => Promise<boolean> } {
    const state = {
      asked: 0,
      isPreparing: () => Promise.resolve(state.asked++ < questions),
    };
    return state;
  }

  it('pauses longer and longer, up to a bound, and not at first', () => {
    const pauses = Array.from({ length: 30 }, (_, i) => pauseAfter(i + 1));
    expect(pauses).toEqual([...pauses].sort((a, b) => a - b));
    expect(pauses.slice(0, 9)).toEqual(Array.from({ length: 9 }, () => 0));
    expect(pauses.slice(9, 17)).toEqual([1, 2, 4, 8, 16, 32, 64, 100]);
    expect(pauses.at(-1)).toBe(100);
  });

  it('needs no timer where it is a matter of microseconds', async () => {
    const quick = backend(5);
    await handedOver(quick.isPreparing);
    expect(quick.asked).toBe(6);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('asks ten times a second where PREPARE waits for a standby, for as long as that takes', async () => {
    const waiting = backend(1000);
    const done = vi.fn();
    const end = handedOver(waiting.isPreparing).then(done);
    await vi.advanceTimersByTimeAsync(1000);
    const before = waiting.asked;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(waiting.asked - before).toBe(100);
    expect(done).not.toHaveBeenCalled();
    await vi.advanceTimersByTimeAsync(90_000);
    await end;
  });
});
