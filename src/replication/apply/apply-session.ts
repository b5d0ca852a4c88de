import { PgError } from '../../runtime/errors.ts';
import type { Gid } from '../../runtime/ids.ts';
import { literal } from '../../runtime/sql-text.ts';
import type { ConnectionOptions, ServerConnection } from '../../wire/connection.ts';
import { connectForText } from '../text-settings.ts';
import { StatementPipeline } from './pipeline.ts';
import { RecordReader } from './record-reader.ts';
import { divergence, TransactionReplay, type ReplayedDdl, type TableCache } from './transaction-replay.ts';

/** Where a transaction's records come from; `read` may be called again from the start. */
export type RecordSource =
  | { readonly type: 'inline'; readonly data: Uint8Array }
  | { readonly type: 'remote'; read(offset: number, limit: number): Promise<{ bytes: Uint8Array; last: boolean }> };

export type ApplyResult =
  | { readonly type: 'prepared'; readonly rows: number }
  /** Rolled back; the session can be used again. */
  | { readonly type: 'failed'; readonly error: PgError }
  /** The connection is gone: whether the transaction is prepared has to be looked up. */
  | { readonly type: 'lost'; readonly error: PgError };

/** Everything is rolled back, and worth another try; `error` if that was the last. */
interface Again {
  readonly type: 'again';
  readonly error: PgError;
}

export interface ApplySessionOptions {
  readonly connection: ConnectionOptions;
  /** Marks what this session writes, so that the decoder leaves it out. One session at a time may use an origin. */
  readonly origin: string;
  readonly holdOrigin: (connection: ServerConnection, origin: string) => Promise<void>;
  /** Statements that stay prepared. */
  readonly statementCache: number;
  readonly ddl: (gid: Gid, content: Buffer, ordinal: number) => ReplayedDdl;
  /** A replayed transaction changed the schema. */
  readonly onDdl: (gid: Gid) => void;
  /** The replay of a large transaction got on. */
  readonly onProgress: (gid: Gid) => void;
}

/** Without any timeout: waiting is looked at from outside. Nothing that a database or a role sets may change what is written. */
const SETTINGS = {
  session_replication_role: 'replica',
  deadlock_timeout: '50ms',
  synchronous_commit: 'on',
  lock_timeout: '0',
  statement_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  idle_session_timeout: '0',
  default_transaction_read_only: 'off',
  default_transaction_isolation: 'read committed',
  default_transaction_deferrable: 'off',
  row_security: 'off',
  xmloption: 'content',
  client_min_messages: 'error',
  check_function_bodies: 'off',
  jit: 'off',
  // Plans outlive the few rows of a table that has just been made: rows are found by their key whenever there is one.
  plan_cache_mode: 'force_generic_plan',
  enable_seqscan: 'off',
};

const PIECE = 256 * 1024;
const DUPLICATE_OBJECT = '42710';
const QUERY_CANCELED = '57014';
/** Integrity constraint violations, serialization failures and deadlocks, cancellations. */
const SAYS_NOTHING_OF_TABLES = /^(23|40|57014)/;
/** A row that is missing can be one of several equal ones that another transaction took meanwhile. */
const MAX_ATTEMPTS = 4;

/** One connection that replays one transaction at a time and prepares it under its gid. */
export class ApplySession {
  readonly #options: ApplySessionOptions;
  readonly #connection: ServerConnection;
  readonly #pipeline: StatementPipeline;
  readonly #cache: TableCache = { statements: new Map(), lookups: 0 };
  #stale = false;
  /** A schema change is being committed: what is looked up now may be out of date at once. */
  #changePending = false;
  #cancelled: PgError | undefined;

  private constructor(options: ApplySessionOptions, connection: ServerConnection) {
    this.#options = options;
    this.#connection = connection;
    this.#pipeline = new StatementPipeline(connection, options.statementCache);
  }

  static async connect(options: ApplySessionOptions): Promise<ApplySession> {
    const connection = await connectForText({ ...options.connection, settings: SETTINGS });
    // 17 and later; it would end the connection in the middle of a large transaction.
    await connection.query(
      `SELECT pg_catalog.set_config(name, '0', false) FROM pg_catalog.pg_settings WHERE name = 'transaction_timeout'`,
    );
    await options.holdOrigin(connection, options.origin);
    return new ApplySession(options, connection);
  }

  get pid(): number {
    return this.#connection.pid;
  }

  /** Called once when the connection is lost. */
  onClose(listener: (error: PgError) => void): void {
    this.#connection.onClose(listener);
  }

  /**
   * Some table may have changed: look everything up again. To be called before a schema change is committed, with `pending`,
   * and after it: what is being replayed meanwhile, and may have waited for it, is then looked at once more.
   */
  schemaChanged(pending = false): void {
    this.#stale = true;
    this.#changePending = pending;
  }

  /** Gives up between two pieces of a large transaction; a statement that runs has to be cancelled as well. */
  cancel(): void {
    this.#cancelled ??= new PgError('57014', 'replay was cancelled');
  }

  /** Never rejects. */
  async apply(gid: Gid, source: RecordSource): Promise<ApplyResult> {
    this.#cancelled = undefined;
    for (let attempt = 1; ; attempt++) {
      if (this.#stale) this.#forget();
      const outcome = await this.#attempt(gid, source, attempt > 1);
      if (outcome.type !== 'again') return outcome;
      const cancelled = this.#cancellation();
      if (cancelled !== undefined || attempt === MAX_ATTEMPTS)
        return { type: 'failed', error: cancelled ?? outcome.error };
    }
  }

  #cancellation(): PgError | undefined {
    return this.#cancelled;
  }

  #forget(): void {
    this.#stale = this.#changePending;
    this.#cache.statements.clear();
    this.#pipeline.forget();
  }

  /** `again` when something odd was found: everything is rolled back then. */
  async #attempt(gid: Gid, source: RecordSource, careful: boolean): Promise<ApplyResult | Again> {
    const large = source.type === 'remote';
    const replay = new TransactionReplay(
      {
        connection: this.#connection,
        pipeline: this.#pipeline,
        cache: this.#cache,
        ddl: (content, ordinal) => this.#options.ddl(gid, content, ordinal),
        schemaChanged: () => this.#options.onDdl(gid),
      },
      careful,
      large,
    );
    let error: PgError | undefined;
    try {
      replay.begin();
      await this.#feed(gid, replay, source);
      await replay.finish(gid);
      if (this.#cancelled !== undefined) throw this.#cancelled;
      // A small transaction is one write and one answer; of others every result is looked at before PREPARE.
      if (careful || large) error = await this.#pipeline.settle();
      if (error === undefined && replay.doubt === undefined) {
        this.#pipeline.once(`PREPARE TRANSACTION ${literal(gid)}`);
        error = await this.#pipeline.settle();
        if (error === undefined) return await this.#prepared(gid, replay);
      }
    } catch (failure) {
      const sent = await this.#pipeline.settle();
      error = failure instanceof PgError ? failure : (sent ?? new PgError('XX000', (failure as Error).message));
    }
    if (error !== undefined) return this.#failed(gid, error);
    return this.#undo('ROLLBACK', divergence(replay.doubt ?? 'nothing was prepared'));
  }

  /**
   * A row that was not found shows only here: PREPARE was sent along. A crash in the moment until it is undone would leave
   * the transaction prepared without that row, on a node whose data differed already.
   */
  async #prepared(gid: Gid, replay: TransactionReplay): Promise<ApplyResult | Again> {
    const undo = `ROLLBACK PREPARED ${literal(gid)}`;
    if (replay.doubt !== undefined) return this.#undo(undo, divergence(replay.doubt));
    if (this.#stale && (await this.#mayHaveChanged(replay))) {
      return this.#undo(undo, new PgError('40001', 'the schema changed while a transaction was being replayed'));
    }
    return { type: 'prepared', rows: replay.rows };
  }

  /** Also where that can't be told, as when a cancellation hits the look: what is prepared must not be taken for failed. */
  async #mayHaveChanged(replay: TransactionReplay): Promise<boolean> {
    try {
      return await replay.tablesChanged();
    } catch {
      return true; // if the connection is lost, undoing says so
    }
  }

  async #undo(sql: string, error: PgError): Promise<ApplyResult | Again> {
    const failure = await this.#tryQuery(sql);
    return failure === undefined ? { type: 'again', error } : { type: 'lost', error: failure };
  }

  async #feed(gid: Gid, replay: TransactionReplay, source: RecordSource): Promise<void> {
    const reader = new RecordReader();
    if (source.type === 'inline') {
      const data = Buffer.from(source.data.buffer, source.data.byteOffset, source.data.byteLength);
      await replayAll(replay, reader.push(data));
    } else {
      let offset = 0;
      for (let last = false; !last;) {
        if (this.#cancelled !== undefined) throw this.#cancelled;
        const piece = await source.read(offset, PIECE).catch(unreadable);
        offset += piece.bytes.length;
        last = piece.last;
        const bytes = Buffer.from(piece.bytes.buffer, piece.bytes.byteOffset, piece.bytes.byteLength);
        await replayAll(replay, reader.push(bytes));
        if (this.#pipeline.error !== undefined) return;
        this.#options.onProgress(gid);
      }
    }
    reader.finish();
  }

  async #failed(gid: Gid, error: PgError): Promise<ApplyResult> {
    if (this.#connection.closed !== undefined) return { type: 'lost', error };
    const rolledBack = await this.#tryQuery('ROLLBACK');
    if (rolledBack !== undefined) return { type: 'lost', error: rolledBack };
    // A statement may have failed because what it was prepared for is gone. A lost conflict says nothing of the kind.
    if (!SAYS_NOTHING_OF_TABLES.test(error.sqlstate)) this.#forget();
    if (error.sqlstate === DUPLICATE_OBJECT && (await this.#isPrepared(gid))) return { type: 'prepared', rows: 0 };
    return { type: 'failed', error };
  }

  async #isPrepared(gid: Gid): Promise<boolean> {
    try {
      return (
        (await this.#uncancelled(`SELECT 1 FROM pg_catalog.pg_prepared_xacts WHERE gid = ${literal(gid)}`)).length > 0
      );
    } catch {
      return false; // the connection is lost, which its own listener reports
    }
  }

  async #tryQuery(sql: string): Promise<PgError | undefined> {
    try {
      await this.#uncancelled(sql);
      return undefined;
    } catch (error) {
      return error as PgError;
    }
  }

  /** A cancellation that was meant for the replay may hit what cleans up after it. */
  async #uncancelled(sql: string): Promise<(string | null)[][]> {
    for (;;) {
      try {
        return await this.#connection.query(sql);
      } catch (error) {
        if ((error as PgError).sqlstate !== QUERY_CANCELED) throw error;
      }
    }
  }

  end(): void {
    this.#connection.end();
  }
}

/** The node that has the changes says in words why it can't give them: to the client it is trouble of input and output, as it is there. */
function unreadable(error: Error): never {
  throw error instanceof PgError ? error : new PgError('58030', error.message);
}

async function replayAll(replay: TransactionReplay, records: Iterable<Buffer>): Promise<void> {
  for (const record of records) {
    const wait = replay.record(record);
    if (wait !== undefined) await wait;
  }
}
