import { expect, test } from 'vitest';
import { majority, reachedByMajority, replicatedIndex, voteResult } from '../../../src/consensus/core/quorum.ts';
import { logIndex, nodeId, type NodeId } from '../../../src/runtime/ids.ts';

/** All subsets of `voters`: the definition of a majority, without arithmetic that could be wrong the same way. */
function majorities(voters: readonly NodeId[]): NodeId[][] {
  const subsets: NodeId[][] = [];
  for (let bits = 0; bits < 1 << voters.length; bits++) {
    const subset = voters.filter((_, i) => (bits & (1 << i)) !== 0);
    if (subset.length > voters.length - subset.length) subsets.push(subset);
  }
  return subsets;
}

const votersOf = (n: number): NodeId[] => Array.from({ length: n }, (_, i) => nodeId(i + 1));

/** Every assignment of one of `values` to each voter. */
function* assignments<T>(n: number, values: readonly T[]): Generator<T[]> {
  if (n === 0) {
    yield [];
    return;
  }
  for (const rest of assignments(n - 1, values)) for (const value of values) yield [...rest, value];
}

test('any two majorities meet, and a majority is the smallest set for which that holds', () => {
  for (let n = 1; n <= 7; n++) {
    const all = majorities(votersOf(n));
    expect(Math.min(...all.map((one) => one.length))).toBe(majority(n));
    for (const a of all) for (const b of all) expect(a.some((voter) => b.includes(voter))).toBe(true);
  }
});

test('the replicated index is the highest that all of some majority holds', () => {
  for (let n = 1; n <= 5; n++) {
    const voters = votersOf(n);
    for (const match of assignments(n, [0, 1, 2, 7])) {
      const slow = Math.max(
        ...majorities(voters).map((some) => Math.min(...some.map((voter) => match[voter - 1] ?? 0))),
      );
      expect(replicatedIndex(voters, (voter) => logIndex(match[voter - 1] ?? 0))).toBe(slow);
      expect(reachedByMajority(match)).toBe(slow);
    }
  }
});

test('a vote is won once a majority granted it, lost once no majority can', () => {
  for (let n = 1; n <= 5; n++) {
    const voters = votersOf(n);
    for (const answers of assignments<boolean | undefined>(n, [true, false, undefined])) {
      const votes = new Map<NodeId, boolean>();
      answers.forEach((answer, i) => {
        if (answer !== undefined) votes.set(nodeId(i + 1), answer);
      });
      const won = majorities(voters).some((some) => some.every((voter) => votes.get(voter) === true));
      const open = majorities(voters).some((some) => some.every((voter) => votes.get(voter) !== false));
      expect(voteResult(voters, votes)).toBe(won ? 'won' : open ? 'pending' : 'lost');
    }
  }
});

test('answers of nodes that are not voters do not count', () => {
  const votes = new Map([7, 8, 9].map((n) => [nodeId(n), true] as const));
  expect(voteResult(votersOf(3), votes)).toBe('pending');
});
