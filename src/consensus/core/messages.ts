/**
 * What voters say to each other: plain objects that any structural encoder (msgpack, JSON with bytes) carries. `term` is
 * the sender's current term, except where noted.
 */
import type { LogIndex } from '../../runtime/ids.ts';
import type { Entry, Snapshot } from './types.ts';

/** "Would you vote for me?" (section 9.6). `term` is the term the sender would campaign in: its own plus one. */
export interface PreVote {
  readonly type: 'preVote';
  readonly term: number;
  readonly lastIndex: LogIndex;
  readonly lastTerm: number;
}

/** `forTerm` repeats the request's term. */
export interface PreVoteReply {
  readonly type: 'preVoteReply';
  readonly term: number;
  readonly forTerm: number;
  readonly granted: boolean;
}

export interface Vote {
  readonly type: 'vote';
  readonly term: number;
  readonly lastIndex: LogIndex;
  readonly lastTerm: number;
  /** The old leader asked for this campaign (section 4.2.3), so having heard from it is no reason to ignore it. */
  readonly transfer: boolean;
}

export interface VoteReply {
  readonly type: 'voteReply';
  readonly term: number;
  readonly granted: boolean;
}

/** `commit` is the leader's commit index; the receiver caps it at the last entry that this message vouches for. */
export interface Append {
  readonly type: 'append';
  readonly term: number;
  readonly prevIndex: LogIndex;
  readonly prevTerm: number;
  readonly entries: readonly Entry[];
  readonly commit: LogIndex;
}

/**
 * The commit index, as soon as it rises and no append is due that would carry it. Says about the log what an append
 * without entries says, but isn't answered: if it is lost, the next append or heartbeat says it again.
 */
export interface Commit {
  readonly type: 'commit';
  readonly term: number;
  readonly prevIndex: LogIndex;
  readonly prevTerm: number;
  readonly commit: LogIndex;
}

/** The sender's log is durable and equal to the leader's up to `match`. Also answers a snapshot. */
export interface AppendAccepted {
  readonly type: 'appendAccepted';
  readonly term: number;
  readonly match: LogIndex;
}

/**
 * The entry before those of the message isn't in the sender's log. `hintIndex` and `hintTerm` name the last entry in it
 * that could be equal to the leader's, so that the leader skips a whole term per round trip (section 5.3 of the paper).
 */
export interface AppendRejected {
  readonly type: 'appendRejected';
  readonly term: number;
  /** `prevIndex` of the refused message: tells a stale refusal from a current one. */
  readonly prevIndex: LogIndex;
  readonly hintIndex: LogIndex;
  readonly hintTerm: number;
}

/** `commit` never exceeds what the receiver is known to hold. `round` counts confirmations of leadership for reads. */
export interface Heartbeat {
  readonly type: 'heartbeat';
  readonly term: number;
  readonly commit: LogIndex;
  readonly round: number;
}

export interface HeartbeatReply {
  readonly type: 'heartbeatReply';
  readonly term: number;
  readonly round: number;
}

/** In one piece: the state of a decision log is small (membership and what isn't settled). */
export interface InstallSnapshot {
  readonly type: 'snapshot';
  readonly term: number;
  readonly snapshot: Snapshot;
}

/**
 * What a voter that does not count says to the leader: it tells the leader what to send next, and must not be counted for anything. A leader
 * that does not know this type drops it. `memory` names the sender's memory: another one than before has forgotten what was sent.
 */
export interface Learner {
  readonly type: 'learner';
  readonly term: number;
  readonly memory: string;
  readonly reply: AppendAccepted | AppendRejected | HeartbeatReply;
}

/** "Campaign now": the leader hands over (section 3.10). */
export interface TimeoutNow {
  readonly type: 'timeoutNow';
  readonly term: number;
}

/**
 * Answer to a leader of an older term. Without it a voter whose term ran ahead is stuck: it may not follow that leader,
 * and its own campaigns are ignored by everyone who hears that leader.
 */
export interface Stale {
  readonly type: 'stale';
  readonly term: number;
}

export type Message =
  | PreVote
  | PreVoteReply
  | Vote
  | VoteReply
  | Append
  | Commit
  | AppendAccepted
  | AppendRejected
  | Heartbeat
  | HeartbeatReply
  | InstallSnapshot
  | Learner
  | TimeoutNow
  | Stale;
