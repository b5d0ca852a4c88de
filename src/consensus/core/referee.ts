/**
 * A voter without a log: the third vote of two nodes, kept in a store that can change a few numbers atomically. It remembers
 * its term, whom it voted for, and the *position* (term, index) of its last entry, and never an entry.
 *
 * A position says as much as a log does: by the Log Matching property an entry's term and index fix it and all before it. So the
 * referee is a Raft follower whose log is "everything up to that position"; see docs/referee.md for the whole argument. This
 * file is the pure half: what Raft's messages to that voter ask of the store, and what its answers mean to Raft.
 */
import type { LogIndex, NodeId } from '../../runtime/ids.ts';
import type { Message } from './messages.ts';

/** Its number among the voters: above that of any node, and never that of a leader. */
export const REFEREE = 64 as NodeId;

/** Where a log ends, and the term of its owner. */
export interface LogPosition {
  readonly term: number;
  readonly lastTerm: number;
  readonly lastIndex: LogIndex;
}

/** What a node's Raft core asks of the referee. */
export type RefereeRequest =
  | { readonly op: 'preVote'; readonly term: number; readonly lastTerm: number; readonly lastIndex: LogIndex }
  | {
      readonly op: 'vote';
      readonly term: number;
      readonly lastTerm: number;
      readonly lastIndex: LogIndex;
      readonly transfer: boolean;
    }
  | {
      /** This node leads `term`: confirm that no later term is known, and take its log up to `index`. */
      readonly op: 'lead';
      readonly term: number;
      /** The last entry of that very term that is durable on the leader's own disk; 0 if there is none yet. */
      readonly index: LogIndex;
      /** The highest round of heartbeats that asked; see Heartbeat. */
      readonly round: number;
    };

/**
 * - `yes`, `no`: a vote is granted or not; leadership is confirmed, or refused in favour of the later `term`.
 * - `held`: a leader was heard from a moment ago, so the candidate gets no answer (sections 4.2.3 and 6.2 of the thesis).
 */
export interface RefereeAnswer {
  readonly verdict: 'yes' | 'no' | 'held';
  /** The referee's own. */
  readonly term: number;
}

/** The last entry that is durable on this node's own disk. */
export interface DurableEntry {
  readonly term: number;
  readonly index: LogIndex;
}

/** Null for a message that a voter takes without an answer. */
export function requestOf(message: Message, durable: DurableEntry): RefereeRequest | null {
  switch (message.type) {
    case 'preVote':
    case 'vote': {
      const { term, lastTerm, lastIndex } = message;
      if (message.type === 'preVote') return { op: 'preVote', term, lastTerm, lastIndex };
      return { op: 'vote', term, lastTerm, lastIndex, transfer: message.transfer };
    }
    case 'heartbeat':
    case 'append':
    case 'snapshot':
      return lead(message.term, durable, message.type === 'heartbeat' ? message.round : 0);
    // Says only what is committed, which this voter does not remember; nor does it campaign.
    case 'commit':
    case 'timeoutNow':
    // It never leads and never asks for votes, so nobody answers it.
    case 'stale':
    case 'preVoteReply':
    case 'voteReply':
    case 'appendAccepted':
    case 'appendRejected':
    case 'heartbeatReply':
    case 'learner':
      return null;
  }
}

/**
 * Only entries of the leader's own term are ever asked for: any older position of the referee then is a lower one, and gives way to
 * what the leader has, as a follower's conflicting entries would. And only what is on the leader's own disk: an entry
 * that nobody can give back would keep every candidate from being elected.
 */
export function lead(term: number, durable: DurableEntry, round: number): RefereeRequest {
  return { op: 'lead', term, index: durable.term === term ? durable.index : (0 as LogIndex), round };
}

/** What the referee says to the node that asked, in Raft's words. */
export function repliesTo(request: RefereeRequest, { verdict, term }: RefereeAnswer): Message[] {
  if (verdict === 'held') return [];
  switch (request.op) {
    case 'preVote':
      return [{ type: 'preVoteReply', term, forTerm: request.term, granted: verdict === 'yes' }];
    case 'vote':
      return [{ type: 'voteReply', term, granted: verdict === 'yes' }];
    case 'lead': {
      if (verdict === 'no') return [{ type: 'stale', term }];
      const heard: Message = { type: 'heartbeatReply', term, round: request.round };
      return request.index === 0 ? [heard] : [heard, { type: 'appendAccepted', term, match: request.index }];
    }
  }
}
