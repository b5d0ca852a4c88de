/** One call of PostgreSQL's functions for advisory locks. */
export interface LockCall {
  readonly effect: 'lock' | 'try' | 'unlock' | 'unlock all';
  readonly shared: boolean;
  /** Until the end of the transaction. */
  readonly transaction: boolean;
  /** The arguments as SQL: one of type bigint or two of type integer; parameters are numbered as in `parameters`. */
  readonly key: readonly string[];
  /** Where the call stands in the statement's text, in UTF-16 units. */
  readonly start: number;
  readonly end: number;
  readonly name: string;
}

/** A SELECT that locks or unlocks, once. */
export interface LockStatement {
  readonly calls: readonly LockCall[];
  /** Which of the client's parameters the keys are made of, from 1. */
  readonly parameters: readonly number[];
  /** Nothing but calls that lock, each of which PostgreSQL carries out. */
  readonly onlyTakes: boolean;
}

/**
 * What a statement is to the session. The names say what the session does, not what the grammar calls it.
 */
export type StatementKind =
  /** Certainly changes nothing: goes straight to the local server. */
  | { readonly type: 'read' }
  /**
   * Runs in a transaction and may change data; the server is asked at the end. `certain`: an INSERT and the like, which may
   * be refused before it runs. `copyIn`: the client will send data.
   */
  | { readonly type: 'write'; readonly certain: boolean; readonly copyIn: boolean }
  /** `readWrite`: the client's own BEGIN, made READ WRITE unless it says otherwise. `unchanged`: without that. */
  | { readonly type: 'begin'; readonly readWrite: string; readonly unchanged: string }
  | { readonly type: 'commit'; readonly chain: boolean }
  | { readonly type: 'rollback'; readonly chain: boolean }
  /** SAVEPOINT, RELEASE, ROLLBACK TO. */
  | { readonly type: 'savepoint'; readonly command: string }
  /** Takes advisory locks of the whole cluster, or lets go of them. */
  | { readonly type: 'lock'; readonly locks: LockStatement }
  /** Replayed on the other nodes as a statement. */
  | { readonly type: 'ddl' }
  /** Concerns this session or this server only: runs straight, never wrapped. */
  | { readonly type: 'local'; readonly forgets: Forgets }
  /** Changes default_transaction_read_only, which the session keeps itself; `sql` is what is left for the server. */
  | {
      readonly type: 'set-read-only';
      readonly value: boolean | 'reset';
      readonly tag: string;
      readonly sql: string | undefined;
    }
  | { readonly type: 'show-read-only'; readonly name: string }
  /** `sqlstate`: 0A000 unless it says otherwise. */
  | { readonly type: 'unsupported'; readonly reason: string; readonly hint: string; readonly sqlstate?: string };

/** Which prepared statements are gone after DEALLOCATE and DISCARD. */
export type Forgets =
  | { readonly what: 'nothing' }
  | { readonly what: 'statement'; readonly name: string }
  | { readonly what: 'statements' }
  /** DISCARD ALL: also every setting goes back to its first value. */
  | { readonly what: 'everything' };

export const READ: StatementKind = { type: 'read' };
/** May change data. */
export const MAYBE: StatementKind = { type: 'write', certain: false, copyIn: false };
/** Changes data if it runs. */
export const WRITE: StatementKind = { type: 'write', certain: true, copyIn: false };
/** TRUNCATE: changes data, under a lock of the whole table. */
export const TRUNCATE: StatementKind = { type: 'write', certain: true, copyIn: false };
export const COPY_IN: StatementKind = { type: 'write', certain: true, copyIn: true };
export const DDL: StatementKind = { type: 'ddl' };
export const LOCAL: StatementKind = { type: 'local', forgets: { what: 'nothing' } };

export function unsupported(reason: string, hint: string): StatementKind {
  return { type: 'unsupported', reason, hint };
}
/** SET: undone when the transaction it stands in is rolled back, so it must stand in the right one. */
export const SETTING: StatementKind = { type: 'local', forgets: { what: 'nothing' } };

/** SET and RESET of multimaster.read_level and multimaster.read_after. */
export const READ_SETTING: StatementKind = { type: 'local', forgets: { what: 'nothing' } };

/** Whether a statement may change how new the session's reads must be. */
export function changesReads(kind: StatementKind): boolean {
  if (kind.type === 'set-read-only') return kind.sql === 'RESET ALL';
  return kind === READ_SETTING || (kind.type === 'local' && kind.forgets.what === 'everything');
}

/** Whether a statement locks whole tables against all who write to them. */
export function locksTables(kind: StatementKind): boolean {
  return kind.type === 'ddl' || kind === TRUNCATE;
}

/** Whether a statement shows data, so that it matters how new that is. */
export function takesSnapshot(kind: StatementKind): boolean {
  switch (kind.type) {
    case 'read':
    case 'write':
    case 'lock':
    case 'ddl':
      return true;
    case 'local':
      return kind !== SETTING && kind !== READ_SETTING && kind.forgets.what === 'nothing';
    default:
      return false;
  }
}

/** Whether a statement of a pipeline must run in the transaction that the others of it run in. */
export function needsTransaction(kind: StatementKind): boolean {
  return (
    kind.type === 'read' ||
    kind.type === 'write' ||
    kind.type === 'lock' ||
    kind.type === 'ddl' ||
    kind.type === 'set-read-only' ||
    // Outside a transaction it would tell that those of reads are read-only.
    (kind.type === 'show-read-only' && kind.name === 'transaction_read_only') ||
    kind === SETTING ||
    kind === READ_SETTING
  );
}
