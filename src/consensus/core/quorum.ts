/** Majorities of a fixed set of voters. Compared in the tests with a slow enumeration of all subsets. */
import type { LogIndex, NodeId } from '../../runtime/ids.ts';

export type VoteResult = 'won' | 'lost' | 'pending';

export const majority = (voters: number): number => Math.floor(voters / 2) + 1;

/** The highest value that a majority of voters has reached. Used for match indexes and for read rounds. */
export function reachedByMajority(values: readonly number[]): number {
  const descending = [...values].sort((a, b) => b - a);
  return descending[majority(values.length) - 1] ?? 0;
}

/** The highest index that a majority of voters holds. */
export function replicatedIndex(voters: readonly NodeId[], matchOf: (voter: NodeId) => LogIndex): LogIndex {
  return reachedByMajority(voters.map(matchOf)) as LogIndex;
}

/** `votes` has the answers so far; voters that haven't answered are absent. Answers of non-voters don't count. */
export function voteResult(voters: readonly NodeId[], votes: ReadonlyMap<NodeId, boolean>): VoteResult {
  const needed = majority(voters.length);
  const granted = voters.filter((voter) => votes.get(voter) === true).length;
  const refused = voters.filter((voter) => votes.get(voter) === false).length;
  if (granted >= needed) return 'won';
  return refused > voters.length - needed ? 'lost' : 'pending';
}
