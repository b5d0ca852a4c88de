import type { DecidedCommit } from '../commit/core/commit-queue.ts';
import type { ErrorReport } from '../commit/core/types.ts';
import type { Gid, NodeId } from '../runtime/ids.ts';
import type { Chunk, HistoryMessage, PeerMessage } from './messages.ts';

/** Where a replay gets a transaction's changes from: whole, or piece by piece from its origin. */
export type ChangeSource =
  | { readonly type: 'inline'; readonly data: Uint8Array }
  /** Rejects when the origin does not have them any more, or the link breaks for longer than it should. */
  | { readonly type: 'remote'; read(offset: number, limit: number): Promise<{ bytes: Uint8Array; last: boolean }> };

/** This node's PostgreSQL, as the cluster node uses it. Results come back as events of the node core. */
export interface Replica {
  /** Why PostgreSQL can't be used now, for operators; undefined while it can. */
  readonly problem: string | undefined;
  /** COMMIT PREPARED, strictly in the order of the calls. */
  commit(entry: DecidedCommit): void;
  apply(gid: Gid, database: string, source: ChangeSource): void;
  cancelApply(gid: Gid): void;
  rollbackPrepared(gid: Gid, database: string): void;
  /** Wait until nothing of this proxy runs there any more, then report what PostgreSQL has. */
  recover(): void;
  /** The transaction in progress of this backend must end. */
  overruleBackend(pid: number, error: ErrorReport): void;
  /** Backends that wait for a lock now, and for whom (0: a prepared transaction). Empty while PostgreSQL can't be asked. */
  lockWaits(): Promise<ReadonlyMap<number, readonly number[]>>;
  /** An own transaction's changes are not needed any more. */
  release(gid: Gid): void;
  /** A piece of an own transaction's changes. */
  readChanges(gid: Gid, offset: number, limit: number): Promise<Pick<Chunk, 'bytes' | 'last'>>;
  /** What is committed here after an index, for a node that was away. Rejects with the reason when this node can't tell. */
  readHistory(
    reader: NodeId,
    request: Extract<PeerMessage, { t: 'history' }>,
  ): Promise<Pick<HistoryMessage, 'pieces' | 'end' | 'after'>>;
  /** That node did not get an answer: what it was not told is read again. */
  forgetHistory(reader: NodeId, database: string): void;
}
