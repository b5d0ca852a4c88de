/**
 * When a referee's memory may be relied upon. A store can be emptied, replaced by an old copy, or be another one than yesterday,
 * and a voter that forgot what it said is worse than none. So each life of the memory bears a random id, the two nodes remember
 * it on their own disks, and it counts only while it is *sealed*: both nodes have told it where their logs end and in which
 * term they are, and both have turned to it. Setting up takes both nodes; being relied upon afterwards takes one.
 *
 * The node with the lower number is the *keeper*: it alone makes memories and seals them, so each node's sequence of memories is
 * a part of the keeper's. `test/unit/consensus/referee-setup.test.ts` walks through crashes, losses and changed addresses.
 */
import type { LogIndex } from '../../runtime/ids.ts';

/** What a node remembers of the referee, durably: whom it turned to, and the furthest that it has seen it. */
export interface RefereeMemory {
  readonly id: string | null;
  readonly term: number;
  readonly lastTerm: number;
  readonly lastIndex: LogIndex;
}

/** What the store holds; `id` is null if there is nothing. */
export interface FoundReferee extends RefereeMemory {
  /** The other node has told where its log ends. */
  readonly joined: boolean;
  readonly sealed: boolean;
}

export type SetupStep =
  /** Make a new memory in place of what was found, and remember it first. */
  | 'create'
  /**
   * Forget the former one, tell this one where the log ends, which breaks its seal, and only then remember it. In another order a crash
   * in between would leave a node with a seal from an earlier stay, or the keeper with one of a node that is elsewhere.
   */
  | 'join'
  | 'seal'
  /** Remove it: the keeper makes a new one. */
  | 'discard'
  | 'wait'
  | 'ready';

export function nextStep(isKeeper: boolean, memory: RefereeMemory, found: FoundReferee): SetupStep {
  const isKnown = found.id !== null && found.id === memory.id;
  if (isKeeper) {
    if (!isKnown || wentBack(memory, found)) return 'create';
    if (!found.joined) return 'wait';
    return found.sealed ? 'ready' : 'seal';
  }
  if (found.id === null) return 'wait';
  if (!isKnown) return 'join';
  if (wentBack(memory, found)) return 'discard';
  if (!found.joined) return 'join';
  return found.sealed ? 'ready' : 'wait';
}

/** Neither term nor position ever falls, unless an old copy of the store was put in its place. */
export function wentBack(seen: RefereeMemory, found: RefereeMemory): boolean {
  if (found.term < seen.term || found.lastTerm < seen.lastTerm) return true;
  return found.lastTerm === seen.lastTerm && found.lastIndex < seen.lastIndex;
}
