/**
 * What goes into the Raft core and what comes out of it. The core is a pure machine: one event in, one batch of effects
 * out. It has no socket, disk, clock or random source; time is the `tick` event, randomness is a seed.
 *
 * Names follow the Raft paper (Ongaro and Ousterhout 2014) and Ongaro's thesis; section numbers below are the thesis's.
 */
import type { LogIndex, NodeId } from '../../runtime/ids.ts';
import type { Message } from './messages.ts';

/**
 * One log entry. An empty payload is the no-op that a leader appends at the start of its term (section 6.4); a proposal
 * is never empty. The core doesn't look into payloads.
 */
export interface Entry {
  readonly index: LogIndex;
  readonly term: number;
  readonly payload: Uint8Array;
}

export const isNoop = (entry: Entry): boolean => entry.payload.length === 0;

/** What a voter must remember across a crash beside its log: figure 2's currentTerm and votedFor. */
export interface HardState {
  readonly term: number;
  readonly votedFor: NodeId | null;
}

/** The state machine after the entry at `index`, as the layer above encoded it. Replaces the log up to there. */
export interface Snapshot {
  readonly index: LogIndex;
  readonly term: number;
  readonly state: Uint8Array;
}

/** What storage gave back at start. `entries` follow `snapshot` without a gap. */
export interface Restored {
  readonly hardState: HardState;
  readonly snapshot: Snapshot | null;
  readonly entries: readonly Entry[];
}

export const EMPTY: Restored = { hardState: { term: 0, votedFor: null }, snapshot: null, entries: [] };

export interface RaftConfig {
  readonly id: NodeId;
  /** All voters, this node among them. Fixed for the life of the core. */
  readonly voters: readonly NodeId[];
  /**
   * Ticks without a leader after which a voter campaigns; the actual wait is drawn anew each time from
   * [electionTicks, 2 * electionTicks). A leader that hears from no majority for electionTicks steps down.
   */
  readonly electionTicks: number;
  /** Ticks between a leader's heartbeats; less than electionTicks. */
  readonly heartbeatTicks: number;
  /** Seeds the election jitter. Nodes of one cluster need not have different seeds; the id is mixed in. */
  readonly seed: number;
  /** Payload bytes in one append message; one larger entry still goes, alone. */
  readonly maxBatchBytes: number;
  /** Append messages that may be under way to one follower before the leader waits for an answer. */
  readonly maxInflightBatches: number;
  /** Payload bytes appended but not committed beyond which a leader refuses proposals. */
  readonly maxUncommittedBytes: number;
  /** Unanswered readIndex requests beyond which a leader refuses more. */
  readonly maxPendingReads: number;
  /** Entries below a snapshot that stay in memory, so that a follower slightly behind isn't sent the snapshot. */
  readonly retainEntries: number;
  /**
   * The name of this voter's memory while that does not count (standing.ts): it follows, and neither campaigns nor votes, and what it
   * acknowledges only tells the leader what to send next. Ends with the `counts` event.
   */
  readonly learner?: string | undefined;
}

export const DEFAULT_LIMITS = {
  maxBatchBytes: 1 << 20,
  maxInflightBatches: 256,
  maxUncommittedBytes: 64 << 20,
  maxPendingReads: 4096,
  retainEntries: 1000,
} as const;

export type Role = 'follower' | 'preCandidate' | 'candidate' | 'leader';

export type RaftEvent =
  | { readonly type: 'tick' }
  | { readonly type: 'message'; readonly from: NodeId; readonly message: Message }
  /** `payload` is kept, not copied. Answered in the same step by `effects.proposal`. */
  | { readonly type: 'propose'; readonly payload: Uint8Array; readonly expectedTerm: number }
  /** Everything asked by `effects.persist` with this `seq` or a lower one is durable. */
  | { readonly type: 'persisted'; readonly seq: number }
  /** Answered by `effects.reads`, in this step or a later one. `context` is echoed; the caller keeps it unique. */
  | { readonly type: 'readIndex'; readonly context: number }
  /** The state machine after the delivered entry `index`; the log up to there is no longer needed. */
  | { readonly type: 'compact'; readonly index: LogIndex; readonly state: Uint8Array }
  /** Ask a leader to hand over (section 3.10). Best effort: watch `effects.leadership`. */
  | { readonly type: 'transferLeadership'; readonly to: NodeId }
  /** Campaign now, as if the election timeout had passed. Still asks for pre-votes first. */
  | { readonly type: 'campaign' }
  /** This voter's memory counts from now on, and that is durable. */
  | { readonly type: 'counts' };

/**
 * One atomic request to storage. Order matters: hard state, then truncation, then snapshot, then entries. A crash may
 * leave any prefix of that order. Requests are carried out in the order of `seq`.
 */
export interface PersistBatch {
  /** Counts up by one per request. Confirmed by the `persisted` event. */
  readonly seq: number;
  readonly hardState: HardState | null;
  /** Forget this entry and all after it: they conflict with the leader's log and were never committed. */
  readonly truncateFrom: LogIndex | null;
  /** A snapshot received from the leader: it replaces the whole log, also what lies after its index. */
  readonly snapshot: Snapshot | null;
  readonly entries: readonly Entry[];
}

export interface Outgoing {
  readonly to: NodeId;
  readonly message: Message;
}

export interface Leadership {
  readonly leader: NodeId | null;
  readonly term: number;
  readonly role: Role;
  /**
   * This node is the leader and the no-op of its term is committed and delivered. So every entry of an earlier term that
   * can ever commit has been delivered to the layer above, and proposals are accepted.
   */
  readonly ready: boolean;
}

export type RejectReason =
  | 'not-leader'
  /** Leader, but the no-op of its term isn't delivered yet. */
  | 'not-ready'
  /** `expectedTerm` isn't the leader's term. */
  | 'wrong-term'
  /** Leadership is being handed over. */
  | 'transferring'
  /** maxUncommittedBytes or maxPendingReads is reached. */
  | 'overloaded';

export type ProposalAnswer =
  | { readonly accepted: true; readonly index: LogIndex; readonly term: number }
  | {
      readonly accepted: false;
      readonly reason: RejectReason;
      readonly term: number;
      readonly leader: NodeId | null;
      /**
       * A proposal made with this `expectedTerm` will enter the log nowhere and never, unless it has been delivered here
       * or is in this leader's log already. True exactly for a ready leader of a later term: only the leader of
       * `expectedTerm` takes it, and terms in a log never fall, so nothing of that term can follow the committed no-op
       * of this one. Not so when this is the leader of `expectedTerm` and is overloaded or handing over: this call
       * appended nothing, but another copy of the proposal may be taken later.
       */
      readonly definitive: boolean;
    };

export type ReadAnswer =
  /** Once the entry at `index` is applied, a read sees everything committed before it was asked for (section 6.4). */
  | { readonly context: number; readonly ok: true; readonly index: LogIndex }
  | { readonly context: number; readonly ok: false; readonly reason: RejectReason; readonly leader: NodeId | null };

/**
 * What one step asks for. The order of carrying out: hand `persist` (then `compact`) to storage without waiting for it,
 * send `messages`, then tell the layer above `install`, `committed`, `leadership`, answers.
 *
 * `messages` may always be sent at once. Those that promise something about this node's disk (vote requests, granted
 * votes, append acknowledgements) are kept inside the core until the `persisted` event, and come out of that step: a
 * driver can't send them too early.
 */
export interface Effects {
  readonly messages: readonly Outgoing[];
  readonly persist: PersistBatch | null;
  /** A snapshot taken by `compact`: storage keeps the entries after its index. Nothing waits for it. */
  readonly compact: Snapshot | null;
  /** A durable snapshot from the leader replaces the state machine; `committed` follows it. */
  readonly install: Snapshot | null;
  /** Entries that are committed and durable on this node, no-ops included: in order, without gaps, each once. */
  readonly committed: readonly Entry[];
  /** Present when something in it changed. */
  readonly leadership: Leadership | null;
  readonly proposal: ProposalAnswer | null;
  readonly reads: readonly ReadAnswer[];
}
