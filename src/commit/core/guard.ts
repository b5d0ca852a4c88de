import { parseGid } from '../gid.ts';
import type { Epoch, Gid, LogIndex, NodeId } from '../../runtime/ids.ts';
import { AdvisoryLocks, type AdvisoryLocksSnapshot, type LockOutcome } from './advisory-locks.ts';
import type { LogCommand, Members, Rejection } from './types.ts';

/** The votes that a proposal carries: who prepared the transaction, under which epoch. */
export type Votes = ReadonlyMap<NodeId, Epoch>;

/** How many of the newest COMMIT entries are remembered by name, to find proposals that come twice. */
export const RECENT_COMMITS = 16384;

export interface GuardSnapshot {
  readonly index: LogIndex;
  readonly members: readonly (readonly [NodeId, Epoch])[];
  readonly lastEpochs: readonly (readonly [NodeId, Epoch])[];
  /** The last COMMIT entry up to `index`. */
  readonly lastCommit: LogIndex;
  /** The memories of voters that were let in; a log of before these were known has none. */
  readonly voters?: readonly (readonly [NodeId, string])[];
  /** Not in snapshots of versions that had none. */
  readonly locks?: AdvisoryLocksSnapshot;
}

const NO_OUTCOMES: readonly LockOutcome[] = [];

/**
 * The replicated state machine: what a prefix of the decision log says about membership, commits and advisory locks. Every node keeps
 * one for the entries it has applied; a leader keeps a second one that also covers entries it has appended and not yet
 * committed, and appends a proposal only if that one finds nothing against it. So I5 holds by construction, and I2 rests
 * on `votes-missing`.
 */
export class Guard {
  #index = 0 as LogIndex;
  readonly #members = new Map<NodeId, Epoch>();
  /** The newest epoch of every node that was ever admitted, ended or not. */
  readonly #lastEpochs = new Map<NodeId, Epoch>();
  /** Of voters that were let in with a new memory: its name. */
  readonly #voters = new Map<NodeId, string>();
  #lastCommit = 0 as LogIndex;
  #locks = new AdvisoryLocks();
  /** COMMIT entries after `#recentFrom`, oldest first. */
  readonly #recent = new Map<Gid, LogIndex>();
  #recentFrom = 0 as LogIndex;
  readonly #recentLimit: number;

  constructor(recentLimit = RECENT_COMMITS) {
    this.#recentLimit = recentLimit;
  }

  get index(): LogIndex {
    return this.#index;
  }

  get members(): Members {
    return this.#members;
  }

  get locks(): Pick<AdvisoryLocks, 'isEmpty' | 'list' | 'knows'> {
    return this.#locks;
  }

  /** Epochs that have ended, and whose sessions the log still lets have locks. */
  orphans(): { node: NodeId; epoch: Epoch }[] {
    if (this.#locks.isEmpty) return [];
    return this.#locks.epochs().filter(({ node, epoch }) => this.#members.get(node) !== epoch);
  }

  get lastCommit(): LogIndex {
    return this.#lastCommit;
  }

  /** Whether this COMMIT stands among the newest ones. No says nothing: it may be too old to be remembered. */
  hasCommitted(gid: Gid): boolean {
    return this.#recent.has(gid);
  }

  /** The memory with which a voter was last let in, if it ever was. */
  memoryOf(node: NodeId): string | undefined {
    return this.#voters.get(node);
  }

  lastEpoch(node: NodeId): Epoch {
    return this.#lastEpochs.get(node) ?? (0 as Epoch);
  }

  /** Whether no COMMIT of a transaction of this epoch can come any more. */
  hasEnded(node: NodeId, epoch: Epoch): boolean {
    const last = this.lastEpoch(node);
    return epoch < last || (epoch === last && this.#members.get(node) !== epoch);
  }

  /**
   * What stands against appending this command after the entries seen so far; undefined when nothing does. `asOf` is the
   * index up to which the proposer has read the log: no COMMIT of its transaction stands up to there.
   */
  check(command: LogCommand, votes: Votes, asOf: LogIndex, minimumMembers: number): Rejection | undefined {
    switch (command.type) {
      case 'commit':
        return this.#checkCommit(command.gid, votes, asOf);
      case 'exclude':
        if (this.#members.get(command.node) !== command.epoch) return { type: 'no-change' };
        return this.#members.size - 1 < minimumMembers ? { type: 'too-few-members' } : undefined;
      case 'admit':
        return this.lastEpoch(command.node) === command.previous ? undefined : { type: 'no-change' };
      case 'voter':
        return this.#voters.get(command.node) === command.memory ? { type: 'no-change' } : undefined;
      case 'lock':
      case 'unlock':
        if (this.#members.get(command.node) !== command.epoch) return { type: 'epoch-ended' };
        return this.#locks.has(command) ? { type: 'no-change' } : undefined;
      case 'lock-waits':
        if (this.#members.get(command.node) !== command.epoch) return { type: 'epoch-ended' };
        return this.#locks.knows(command) ? { type: 'no-change' } : undefined;
      case 'free-locks':
        return this.orphans().some(({ node, epoch }) => node === command.node && epoch === command.epoch)
          ? undefined
          : { type: 'no-change' };
    }
  }

  #checkCommit(gid: Gid, votes: Votes, asOf: LogIndex): Rejection | undefined {
    if (this.#recent.has(gid)) return { type: 'already-committed' };
    if (asOf < this.#recentFrom) return { type: 'behind' };
    const parts = parseGid(gid);
    if (parts === undefined || this.#members.get(parts.node) !== parts.epoch) return { type: 'epoch-ended' };
    const missing = [...this.#members].filter(([node, epoch]) => votes.get(node) !== epoch).map(([node]) => node);
    return missing.length > 0 ? { type: 'votes-missing', nodes: missing } : undefined;
  }

  /**
   * Takes in the entry that follows `index`; commands that `check` would refuse must not stand in a log. Answers what
   * becomes of requests for advisory locks.
   */
  apply(index: LogIndex, command: LogCommand | undefined): readonly LockOutcome[] {
    if (index !== this.#index + 1) throw new Error(`log entry ${index} does not follow ${this.#index}`);
    this.#index = index;
    if (command === undefined) return NO_OUTCOMES;
    switch (command.type) {
      case 'commit':
        this.#applyCommit(index, command.gid);
        return NO_OUTCOMES;
      case 'admit':
        this.#members.set(command.node, index as number as Epoch);
        this.#lastEpochs.set(command.node, index as number as Epoch);
        return this.#locks.free(command.node, (index - 1) as Epoch);
      case 'exclude':
        if (this.#members.get(command.node) !== command.epoch) throw new Error(`EXCLUDE of a closed epoch at ${index}`);
        this.#members.delete(command.node);
        return this.#locks.epochEnded(command.node, command.epoch);
      case 'lock':
      case 'unlock':
        return this.#locks.apply(command);
      case 'lock-waits':
        return this.#locks.blocked(command);
      case 'free-locks':
        return this.#locks.free(command.node, command.epoch);
      case 'voter':
        this.#voters.set(command.node, command.memory);
        return NO_OUTCOMES;
    }
  }

  #applyCommit(index: LogIndex, gid: Gid): void {
    const parts = parseGid(gid);
    if (parts === undefined || this.#members.get(parts.node) !== parts.epoch) {
      throw new Error(`I5 violated: COMMIT of ${gid} stands after the end of its epoch`);
    }
    if (this.#recent.has(gid)) throw new Error(`the log has COMMIT of ${gid} twice`);
    this.#lastCommit = index;
    this.#recent.set(gid, index);
    if (this.#recent.size <= this.#recentLimit) return;
    const [oldest] = this.#recent;
    this.#recent.delete(oldest[0]);
    this.#recentFrom = oldest[1];
  }

  clone(): Guard {
    const guard = Guard.restore(this.snapshot(), this.#recentLimit);
    for (const [gid, index] of this.#recent) guard.#recent.set(gid, index);
    guard.#recentFrom = this.#recentFrom;
    return guard;
  }

  /** What a log can be continued from. The recent commits are left out: a restored guard says `behind` for a while. */
  snapshot(): GuardSnapshot {
    return {
      index: this.#index,
      members: [...this.#members],
      lastEpochs: [...this.#lastEpochs],
      lastCommit: this.#lastCommit,
      voters: [...this.#voters],
      ...(this.#locks.hasSessions && { locks: this.#locks.snapshot() }),
    };
  }

  static restore(snapshot: GuardSnapshot, recentLimit?: number): Guard {
    const guard = new Guard(recentLimit);
    guard.#index = guard.#recentFrom = snapshot.index;
    guard.#lastCommit = snapshot.lastCommit;
    if (snapshot.locks !== undefined) guard.#locks = AdvisoryLocks.restore(snapshot.locks);
    for (const [node, epoch] of snapshot.members) guard.#members.set(node, epoch);
    for (const [node, epoch] of snapshot.lastEpochs) guard.#lastEpochs.set(node, epoch);
    for (const [node, memory] of snapshot.voters ?? []) guard.#voters.set(node, memory);
    return guard;
  }
}
