import { describe, expect, it, vi } from 'vitest';
import { OutcomeUnavailable, Outcomes } from '../../../src/cluster/outcomes.ts';
import { formatGid } from '../../../src/commit/gid.ts';
import { logIndex, nodeId, type Epoch } from '../../../src/runtime/ids.ts';

const [self, peer] = [nodeId(1), nodeId(2)];
const gid = formatGid({ cluster: 'test', node: peer, epoch: 3 as Epoch, sequence: 1, clock: 1 });

/** A node that leads, knows that the log is committed up to 9, and has read it up to `applied`. */
function setUp() {
  const log = { applied: logIndex(7) };
  const outcomes = new Outcomes({
    self,
    log: { readIndex: () => Promise.resolve(logIndex(9)), entries: () => [], firstIndex: logIndex(1), leader: self },
    applied: () => log.applied,
    hasEnded: () => true,
    isUnderWay: () => false,
    send: () => false,
    timeout: 1000,
  });
  return { log, outcomes };
}

describe('the outcome of a transaction', () => {
  it('is told when the log has been read up to the moment of the question', async () => {
    const { log, outcomes } = setUp();
    const answer = outcomes.outcome(gid);
    await Promise.resolve();
    log.applied = logIndex(9);
    outcomes.onApplied();
    expect(await answer).toBe('aborted');
  });

  it('is not known where the log can not be read on in time, as the node was cut off meanwhile', async () => {
    vi.useFakeTimers();
    try {
      const { outcomes } = setUp();
      const answer = expect(outcomes.outcome(gid)).rejects.toThrow(
        new OutcomeUnavailable('it has read the decision log up to entry 7 and needs it up to entry 9'),
      );
      await vi.advanceTimersByTimeAsync(1000);
      await answer;
      // Nobody waits for that any more.
      outcomes.onApplied();
      expect(vi.getTimerCount()).toBe(0);
    } finally {
      vi.useRealTimers();
    }
  });
});
