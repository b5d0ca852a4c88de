import type { Epoch, Gid, LogIndex, NodeId } from '../runtime/ids.ts';
import type { ErrorReport, LogCommand, Rejection } from '../commit/core/types.ts';
import type { StandingMessage } from '../consensus/core/standing.ts';

/**
 * Everything that one proxy says to another. Links keep the order of what one node sends to one other; a message is lost
 * only together with its connection, and every exchange below is repeated or asked for again when a link comes back.
 */
export type PeerMessage =
  | { readonly t: 'raft'; readonly m: unknown }
  /** Sent to every peer at `heartbeat.interval`. */
  | ({ readonly t: 'beat' } & Beat)
  /** The changes of a prepared transaction: here in `data`, or to be fetched piece by piece. */
  | {
      readonly t: 'announce';
      readonly gid: Gid;
      readonly database: string;
      readonly dependsOn: LogIndex;
      readonly data?: Uint8Array | undefined;
    }
  | { readonly t: 'fetch'; readonly gid: Gid; readonly offset: number; readonly limit: number }
  | { readonly t: 'vote'; readonly gid: Gid; readonly epoch: Epoch; readonly error?: ErrorReport | undefined }
  /** The replay of a large transaction gets on with its work. */
  | { readonly t: 'progress'; readonly gid: Gid }
  /** The sender does not have this transaction under way any more, as of its log index `asOf`. */
  | { readonly t: 'not-active'; readonly gid: Gid; readonly asOf: LogIndex }
  /** Which of these, all begun at the receiver, are not under way any more? */
  | { readonly t: 'ask'; readonly gids: readonly Gid[] }
  | { readonly t: 'contend'; readonly loser: Gid; readonly winner: Gid; readonly table?: string | undefined }
  /** To the leader of `term`: append this, if the log allows it. */
  | {
      readonly t: 'propose';
      readonly term: number;
      readonly command: LogCommand;
      readonly votes: readonly (readonly [NodeId, Epoch])[];
      /** The sender has read the log up to here, and the command is not in it. */
      readonly asOf: LogIndex;
    }
  /** The leader of `term` did not append, finally. */
  | { readonly t: 'rejected'; readonly term: number; readonly command: LogCommand; readonly reason: Rejection }
  /** To the leader: this member should be excluded. */
  | {
      readonly t: 'suspect';
      readonly node: NodeId;
      readonly epoch: Epoch;
      readonly reason: string;
      readonly slow: boolean;
    }
  | { readonly t: 'committed'; readonly index: LogIndex }
  | StandingMessage
  /** To the leader: this voter has a new memory, and asks that its voice may count. */
  | { readonly t: 'let-in'; readonly memory: string }
  | OutcomeMessage
  /** A node that was away asks a donor for what was committed after `after`. Answered on the bulk link, under `id`. */
  | {
      readonly t: 'history';
      readonly id: number;
      readonly database: string;
      readonly after: LogIndex;
      /** Bytes, roughly. */
      readonly limit: number;
      /** Only which transactions there are. */
      readonly headersOnly: boolean;
      /** What the donor has given out so far may be lost: it is read anew from `after` on. Not said by earlier versions. */
      readonly fresh?: boolean;
    }
  /** A node that can't be brought up to date asks a donor for a copy of its data, from a byte on. Answered on the bulk link, under `id`. */
  | ({
      readonly t: 'clone';
      readonly id: number;
      readonly from: number;
      readonly limit: number;
    } & Partial<CopyRequest>);

/** Which kind of copy a node wants, and for what. Earlier versions say nothing of it and want a physical one. */
export interface CopyRequest {
  readonly method: 'physical' | 'logical';
  /** Of the server that is copied to. */
  readonly major: number;
  readonly architecture: string;
  readonly databases: readonly string[];
}

/** `unknown`: older than the decision log reaches back. */
export type TransactionOutcome = 'committed' | 'aborted' | 'in progress' | 'unknown';

/** Questions about the fate of a transaction (outcomes.ts); an answer bears the number of its question. */
export type OutcomeMessage =
  /** To the leader: up to where must the log be read to know everything that is committed now? */
  | { readonly t: 'read-index'; readonly id: number }
  /** Without an index: the sender does not lead, or can't be sure that it does. */
  | { readonly t: 'read-index-is'; readonly id: number; readonly index?: LogIndex | undefined }
  /** To the origin of a transaction whose epoch is open. */
  | { readonly t: 'outcome'; readonly id: number; readonly gid: Gid }
  | { readonly t: 'outcome-is'; readonly id: number; readonly outcome?: TransactionOutcome | undefined };

/** What travels on bulk connections. */
export type BulkMessage = Chunk | HistoryMessage | CloneMessage;

/** The answer to `clone`: the next bytes of the copy, or why there are none. */
export interface CloneMessage {
  readonly id: number;
  readonly clone: Uint8Array;
  readonly end: boolean;
  readonly total: number;
  readonly error?: string;
  /** The donor's server is too different for a copy of this kind. */
  readonly unlike?: boolean;
}

/** A part of one committed transaction; the last one bears its name and the time of its decision. */
export interface HistoryPiece {
  readonly index: LogIndex;
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly last: boolean;
  readonly gid?: string;
  readonly time?: number;
  /** Of a donor that commits in the order "relaxed", on the last part: everything up to here has been read. Otherwise that is `index`. */
  readonly after?: LogIndex;
}

/** The answer to `history`: pieces in the order of the donor's commits, or the reason why this donor can't help. */
export interface HistoryMessage {
  readonly id: number;
  readonly pieces: readonly HistoryPiece[];
  /** Nothing more is committed at the donor now. */
  readonly end: boolean;
  /** Everything up to here has been told. */
  readonly after?: LogIndex;
  readonly error?: string;
  /** What was asked for is not in this donor's history any more. */
  readonly gone?: boolean;
}

/** On a bulk connection: the answer to `fetch`, or an error text when the transaction's changes are gone. */
export interface Chunk {
  readonly gid: Gid;
  readonly offset: number;
  readonly bytes: Uint8Array;
  readonly last: boolean;
  readonly error?: string;
}

export interface Beat {
  /** Hybrid clock reading. */
  readonly clock: number;
  readonly committed: LogIndex;
  /** The epoch under which the sender takes part, 0 when it does not. */
  readonly epoch: Epoch;
  /** Whether the sender's PostgreSQL answers. */
  readonly postgres: boolean;
  /** Whether the sender's data have writes that went past its proxy, and that no other node has. */
  readonly bypassed: boolean;
  /** Whether the sender's voice in elections counts. Not said by versions for which it always does. */
  readonly votes?: boolean;
  /** Behind which log entry the sender may ask for history, where that is below `committed`. Not said by earlier versions. */
  readonly needed?: LogIndex | undefined;
  /** The last log entry that the sender knows to be decided, on its disk. Not said by earlier versions. */
  readonly decided?: LogIndex;
}
