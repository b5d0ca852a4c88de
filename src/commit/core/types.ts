import type { Epoch, Gid, LogIndex, NodeId } from '../../runtime/ids.ts';

/**
 * Vocabulary of the commit protocol (docs/architecture.md, "The life of a write").
 *
 * - A *member* is a node whose vote every commit needs, under the epoch at which the log admitted it.
 * - The *guard* is what the log's entries say so far: who is a member, which transactions committed.
 * - A transaction is *dead* when its origin's epoch has ended in the log and no COMMIT entry stands before that end.
 */
export type Members = ReadonlyMap<NodeId, Epoch>;

/** What travels of an error inside votes and outcomes; see runtime/errors.ts for the fields. */
export interface ErrorReport {
  readonly sqlstate: string;
  readonly message: string;
  readonly detail?: string | undefined;
  readonly hint?: string | undefined;
  readonly fields?: Record<string, string> | undefined;
}

/** An entry of the decision log, as written by its leader. Times are wall-clock milliseconds and decide nothing. */
export type LogCommand =
  | {
      readonly type: 'commit';
      readonly gid: Gid;
      readonly database: string;
      readonly time: number;
      /** What the transaction can have seen: replay on any node has to wait until this index is committed there. */
      readonly dependsOn: LogIndex;
      /** Set when the origin's client waits until every member has committed (`remote_apply`). */
      readonly notify: boolean;
      /** Counts the proposals of one run of a node, so that copies on their way to a leader can be told apart. Not logged. */
      readonly attempt?: number | undefined;
    }
  /** Begins an epoch of `node`: its number is this entry's index. Ends the node's former epoch, if that is open. */
  | {
      readonly type: 'admit';
      readonly node: NodeId;
      /** The node's newest epoch when it asked: a request that was overtaken by another one changes nothing. */
      readonly previous: Epoch;
      readonly time: number;
    }
  /** Ends an epoch of `node`. */
  | {
      readonly type: 'exclude';
      readonly node: NodeId;
      readonly epoch: Epoch;
      readonly reason: string;
      readonly time: number;
      /** It answered, and its votes did not come. */
      readonly slow?: boolean;
    }
  /** The voice of `node` in the decision log's elections counts from now on, under this memory; see consensus/core/standing.ts. */
  | { readonly type: 'voter'; readonly node: NodeId; readonly memory: string; readonly time: number }
  /** A session of `node` asks for an advisory lock (advisory-locks.ts). What comes of it follows from the log. */
  | {
      readonly type: 'lock';
      readonly node: NodeId;
      readonly epoch: Epoch;
      /** Number of the session in this run of the node. */
      readonly session: number;
      /** Rises with each request of the session. */
      readonly request: number;
      /** Database and key: `postgres:5`, or `postgres:1,2` for a key of two. */
      readonly lock: string;
      readonly shared: boolean;
      /** False: denied at once where it would have to wait. */
      readonly wait: boolean;
      readonly attempt?: number | undefined;
    }
  /** It waits no more, and lets go of these; undefined: it has ended. */
  | {
      readonly type: 'unlock';
      readonly node: NodeId;
      readonly epoch: Epoch;
      readonly session: number;
      readonly request: number;
      readonly locks: readonly (readonly [lock: string, shared: boolean])[] | undefined;
      readonly attempt?: number | undefined;
    }
  /**
   * Who waits in the PostgreSQL of `node` for the transaction of a session that itself waits for an advisory lock, by that request: for
   * the search for deadlocks. Replaces what was said of the request before.
   */
  | {
      readonly type: 'lock-waits';
      readonly node: NodeId;
      readonly epoch: Epoch;
      readonly session: number;
      readonly request: number;
      /** Sessions of the same node. */
      readonly blocks: readonly number[];
    }
  /** By the leader, so long after the end of an epoch that no session of it can believe any more to hold a lock. */
  | { readonly type: 'free-locks'; readonly node: NodeId; readonly epoch: Epoch };

/**
 * Why a leader that knows the whole log did not append a command. Unless noted, final for that term and every later one:
 * no log will ever contain the proposal that was refused.
 */
export type Rejection =
  /** The origin's epoch has ended: the transaction is dead. */
  | { readonly type: 'epoch-ended' }
  /** Members whose vote under their current epoch the proposal lacks. */
  | { readonly type: 'votes-missing'; readonly nodes: readonly NodeId[] }
  /** The log has this COMMIT already. */
  | { readonly type: 'already-committed' }
  /** The proposer has not read enough of the log for the leader to tell whether its COMMIT is in it. Not final. */
  | { readonly type: 'behind' }
  /** An EXCLUDE of an epoch that is not open, or something that would change nothing. */
  | { readonly type: 'no-change' }
  /** An EXCLUDE that would leave fewer members than `minimumMembers`. */
  | { readonly type: 'too-few-members' };

/** One entry of the log; without a command it is the no-op of a leader's term. */
export interface LogEntry {
  readonly index: LogIndex;
  readonly command: LogCommand | undefined;
}
