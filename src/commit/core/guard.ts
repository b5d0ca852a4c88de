import { parseGid } from '../gid.ts';
import type { Epoch, Gid, LogIndex, NodeId } from '../../runtime/ids.ts';
import type { LogCommand, Members, Rejection } from './types.ts';

/** The votes that a proposal carries: who prepared the transaction, under which epoch. */
export type Votes = ReadonlyMap<NodeId, Epoch>;

interface Committed {
  epoch: Epoch;
  /** Every sequence below is decided and will not be proposed again. */
  low: number;
  /** Committed sequences from `low` on. Bounded by what an origin has in flight. */
  readonly sequences: Set<number>;
}

export interface GuardSnapshot {
  readonly index: LogIndex;
  readonly members: readonly (readonly [NodeId, Epoch])[];
  readonly lastEpochs: readonly (readonly [NodeId, Epoch])[];
  readonly committed: readonly (readonly [NodeId, Epoch, number, readonly number[]])[];
}

/**
 * The replicated state machine: what a prefix of the decision log says about membership and commits. Every node keeps
 * one for the entries it has applied; a leader keeps a second one that also covers entries it has appended and not yet
 * committed, and appends a proposal only if that one finds nothing against it. So I5 holds by construction, and I2 rests
 * on `votes-missing`.
 */
export class Guard {
  #index = 0 as LogIndex;
  readonly #members = new Map<NodeId, Epoch>();
  /** The newest epoch of every node that was ever admitted, ended or not. */
  readonly #lastEpochs = new Map<NodeId, Epoch>();
  readonly #committed = new Map<NodeId, Committed>();

  get index(): LogIndex {
    return this.#index;
  }

  get members(): Members {
    return this.#members;
  }

  lastEpoch(node: NodeId): Epoch {
    return this.#lastEpochs.get(node) ?? (0 as Epoch);
  }

  /** Whether no COMMIT of a transaction of this epoch can come any more. */
  hasEnded(node: NodeId, epoch: Epoch): boolean {
    const last = this.lastEpoch(node);
    return epoch < last || (epoch === last && this.#members.get(node) !== epoch);
  }

  /** What stands against appending this command after the entries seen so far; undefined when nothing does. */
  check(command: LogCommand, votes: Votes, minimumMembers: number): Rejection | undefined {
    switch (command.type) {
      case 'commit':
        return this.#checkCommit(command.gid, votes);
      case 'exclude':
        if (this.#members.get(command.node) !== command.epoch) return { type: 'no-change' };
        return this.#members.size - 1 < minimumMembers ? { type: 'too-few-members' } : undefined;
      case 'admit':
        return undefined;
    }
  }

  #checkCommit(gid: Gid, votes: Votes): Rejection | undefined {
    const parts = parseGid(gid);
    if (parts === undefined || this.#members.get(parts.node) !== parts.epoch) return { type: 'epoch-ended' };
    const committed = this.#committed.get(parts.node);
    if (committed !== undefined && committed.epoch === parts.epoch) {
      if (parts.sequence < committed.low || committed.sequences.has(parts.sequence)) return { type: 'already-committed' };
    }
    const missing = [...this.#members].filter(([node, epoch]) => votes.get(node) !== epoch).map(([node]) => node);
    return missing.length > 0 ? { type: 'votes-missing', nodes: missing } : undefined;
  }

  /** Takes in the entry that follows `index`; commands that `check` would refuse must not stand in a log. */
  apply(index: LogIndex, command: LogCommand | undefined): void {
    if (index !== this.#index + 1) throw new Error(`log entry ${index} does not follow ${this.#index}`);
    this.#index = index;
    if (command === undefined) return;
    switch (command.type) {
      case 'commit':
        this.#applyCommit(command.gid, command.lowSequence);
        return;
      case 'admit':
        this.#members.set(command.node, index as number as Epoch);
        this.#lastEpochs.set(command.node, index as number as Epoch);
        this.#committed.delete(command.node);
        return;
      case 'exclude':
        if (this.#members.get(command.node) !== command.epoch) throw new Error(`EXCLUDE of a closed epoch at ${index}`);
        this.#members.delete(command.node);
        this.#committed.delete(command.node);
        return;
    }
  }

  #applyCommit(gid: Gid, lowSequence: number): void {
    const parts = parseGid(gid);
    if (parts === undefined || this.#members.get(parts.node) !== parts.epoch) {
      throw new Error(`I5 violated: COMMIT of ${gid} stands after the end of its epoch`);
    }
    let committed = this.#committed.get(parts.node);
    if (committed === undefined) {
      committed = { epoch: parts.epoch, low: 0, sequences: new Set() };
      this.#committed.set(parts.node, committed);
    }
    if (committed.sequences.has(parts.sequence)) throw new Error(`the log has COMMIT of ${gid} twice`);
    committed.sequences.add(parts.sequence);
    if (lowSequence > committed.low) {
      committed.low = lowSequence;
      for (const sequence of committed.sequences) if (sequence < lowSequence) committed.sequences.delete(sequence);
    }
  }

  clone(): Guard {
    return Guard.restore(this.snapshot());
  }

  snapshot(): GuardSnapshot {
    return {
      index: this.#index,
      members: [...this.#members],
      lastEpochs: [...this.#lastEpochs],
      committed: [...this.#committed].map(([node, c]) => [node, c.epoch, c.low, [...c.sequences]] as const),
    };
  }

  static restore(snapshot: GuardSnapshot): Guard {
    const guard = new Guard();
    guard.#index = snapshot.index;
    for (const [node, epoch] of snapshot.members) guard.#members.set(node, epoch);
    for (const [node, epoch] of snapshot.lastEpochs) guard.#lastEpochs.set(node, epoch);
    for (const [node, epoch, low, sequences] of snapshot.committed) {
      guard.#committed.set(node, { epoch, low, sequences: new Set(sequences) });
    }
    return guard;
  }
}
