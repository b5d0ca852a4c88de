/** Single steps that random runs reach rarely or never; each would be a hole if the sender behaved a little differently. */
import { expect, test } from 'vitest';
import type { Message } from '../../../src/consensus/core/messages.ts';
import { RaftCore } from '../../../src/consensus/core/raft-core.ts';
import { DEFAULT_LIMITS, type Effects, type Entry, type RaftConfig } from '../../../src/consensus/core/types.ts';
import { logIndex, nodeId } from '../../../src/runtime/ids.ts';

const config: RaftConfig = {
  ...DEFAULT_LIMITS,
  id: nodeId(1),
  voters: [1, 2, 3].map(nodeId),
  electionTicks: 10,
  heartbeatTicks: 2,
  seed: 1,
};
const payload = new Uint8Array([1]);
const entries = (...terms: number[]): Entry[] => terms.map((term, i) => ({ index: logIndex(i + 1), term, payload }));

function restored(term: number, log: Entry[]): RaftCore {
  return new RaftCore(config, { hardState: { term, votedFor: null }, snapshot: null, entries: log });
}

function receive(core: RaftCore, message: Message, from = 2): Message[] {
  const said = settle(core, core.step({ type: 'message', from: nodeId(from), message }));
  return said.map((one) => one.message);
}

/** The disk finishes at once. */
function settle(core: RaftCore, effects: Effects): Effects['messages'] {
  if (effects.persist === null) return effects.messages;
  return [...effects.messages, ...core.step({ type: 'persisted', seq: effects.persist.seq }).messages];
}

const append = (prevIndex: number, prevTerm: number, some: Entry[], commit: number): Message => ({
  type: 'append',
  term: 5,
  prevIndex: logIndex(prevIndex),
  prevTerm,
  entries: some,
  commit: logIndex(commit),
});

test('an append vouches only for what it covers: not for a suffix that may conflict', () => {
  const core = restored(4, entries(1, 2, 3, 3));
  const said = receive(core, append(1, 1, entries(1, 2).slice(1), 4));
  expect(said).toEqual([{ type: 'appendAccepted', term: 5, match: 2 }]);
  expect(core.commitIndex).toBe(2);
  expect(core.lastIndex).toBe(4);
});

test('a commit message moves nothing if the logs differ where it looks', () => {
  const core = restored(4, entries(1, 2, 3, 3));
  const commit = { type: 'commit', term: 5, commit: logIndex(4) } as const;
  expect(receive(core, { ...commit, prevIndex: logIndex(4), prevTerm: 5 })).toEqual([]);
  expect(core.commitIndex).toBe(0);
  receive(core, { ...commit, prevIndex: logIndex(2), prevTerm: 2 });
  expect(core.commitIndex).toBe(2);
});

test('an old append below the commit index is acknowledged up to there, and takes nothing back', () => {
  const core = restored(5, entries(1, 2, 5, 5));
  receive(core, append(4, 5, [], 4));
  expect(core.commitIndex).toBe(4);
  expect(receive(core, append(0, 0, entries(1, 2), 1))).toEqual([{ type: 'appendAccepted', term: 5, match: 4 }]);
  expect(core.lastIndex).toBe(4);
});

test('what is committed is neither compared nor replaced, whatever a leader says', () => {
  const core = restored(4, entries(1, 2, 3));
  receive(core, append(3, 3, [], 3));
  receive(core, append(2, 2, [{ index: logIndex(3), term: 5, payload }], 3));
  expect(core.termAt(logIndex(3))).toBe(3);
});

test('two leaders in one term stop the node', () => {
  const core = restored(4, entries(1));
  receive(core, append(1, 1, [], 1));
  expect(() => receive(core, append(1, 1, [], 1), 3)).toThrow('two leaders in term 5');
  expect(() => core.step({ type: 'tick' })).toThrow('already failed');
});

test('messages of strangers are not heard', () => {
  const core = restored(4, entries(1));
  expect(receive(core, { ...append(1, 1, [], 1), term: 9 }, 4)).toEqual([]);
  expect(core.term).toBe(4);
});

test('a vote goes to one candidate per term, and only to a log that is up to date', () => {
  const ask = (core: RaftCore, from: number, lastIndex: number, lastTerm: number): boolean => {
    const vote = { type: 'vote', term: 6, lastIndex: logIndex(lastIndex), lastTerm, transfer: false } as const;
    return receive(core, vote, from).some((one) => one.type === 'voteReply' && one.granted);
  };
  const core = restored(5, entries(1, 3, 3));
  expect(ask(core, 2, 9, 2)).toBe(false);
  expect(ask(core, 2, 2, 3)).toBe(false);
  expect(ask(core, 2, 3, 3)).toBe(true);
  expect(ask(core, 3, 9, 9)).toBe(false);
  expect(ask(core, 2, 3, 3)).toBe(true);
});

test('a vote that repeats while the first one waits for the disk waits too', () => {
  const core = restored(5, entries(1));
  const vote = { type: 'vote', term: 6, lastIndex: logIndex(1), lastTerm: 1, transfer: false } as const;
  const first = core.step({ type: 'message', from: nodeId(2), message: vote });
  expect(first.messages).toEqual([]);
  const second = core.step({ type: 'message', from: nodeId(2), message: vote });
  expect(second.persist).toBeNull();
  expect(second.messages).toEqual([]);
  expect(core.step({ type: 'persisted', seq: first.persist!.seq }).messages).toHaveLength(2);
});

test('a voter whose log was lost makes the leader that counts on it begin a new term', () => {
  const core = restored(5, []);
  expect(receive(core, { type: 'heartbeat', term: 5, commit: logIndex(12), round: 3 })).toEqual([
    { type: 'stale', term: 6 },
  ]);
  expect(core.term).toBe(6);
  // The leader of the new term asks what is here before it says what is committed.
  expect(receive(core, { ...append(12, 5, [], 12), term: 6 })).toMatchObject([
    { type: 'appendRejected', hintIndex: 0 },
  ]);
});
