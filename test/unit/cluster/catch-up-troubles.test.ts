import { describe, expect, it } from 'vitest';
import { CatchUpTroubles } from '../../../src/cluster/catch-up-troubles.ts';
import { nodeId } from '../../../src/runtime/ids.ts';

const NOBODY = new Set<never>();
const TWO = new Set([nodeId(2)]);
const BOTH = new Set([nodeId(2), nodeId(3)]);

describe('why a node gets on no further with catching up', () => {
  function setUp() {
    const clock = { now: 10 };
    const changes: boolean[] = [];
    const troubles = new CatchUpTroubles(
      () => clock.now,
      (isHopeless) => changes.push(isHopeless),
    );
    return { clock, changes, troubles };
  }

  it('tells each problem once', () => {
    const { troubles, changes } = setUp();
    expect(troubles.failed('a', 'nobody is there', NOBODY)).toBe(true);
    expect(troubles.failed('a', 'nobody is there', NOBODY)).toBe(false);
    expect(troubles.problem).toBe('nobody is there');
    expect(troubles.failed('a', 'it is gone', TWO)).toBe(true);
    troubles.over('a');
    expect(troubles.problem).toBeUndefined();
    expect(changes).toEqual([true, false]);
  });

  it('counts from when the first donor said so, also while another database is read all the time', () => {
    const { clock, troubles, changes } = setUp();
    troubles.failed('a', 'it is gone', TWO);
    for (clock.now = 20; clock.now < 50; clock.now += 10) {
      troubles.over('b');
      troubles.failed('a', 'it is gone', BOTH);
    }
    // That donors can't be asked now says nothing new.
    troubles.failed('a', 'nobody is there', NOBODY);
    expect(troubles.hopeless).toEqual({ gone: BOTH, since: 10 });
    troubles.failed('b', 'it is gone', TWO);
    troubles.over('a');
    expect(troubles.hopeless).toEqual({ gone: TWO, since: 50 });
    expect(changes).toEqual([true]);
    troubles.clear();
    expect(troubles.hopeless).toBeUndefined();
    expect(changes).toEqual([true, false]);
  });
});
