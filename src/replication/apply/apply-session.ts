import { PgError } from '../../runtime/errors.ts';
import type { Gid } from '../../runtime/ids.ts';
import { ServerConnection, type ConnectionOptions } from '../../wire/connection.ts';
import { StatementPipeline } from './pipeline.ts';
import { RecordReader } from './record-reader.ts';
import { TransactionReplay, type TableCache } from './transaction-replay.ts';

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

export interface ApplySessionOptions {
  readonly connection: ConnectionOptions;
  /** Marks what this session writes, so that the decoder leaves it out. One session at a time may use an origin. */
  readonly origin: string;
  readonly holdOrigin: (connection: ServerConnection, origin: string) => Promise<void>;
  /** Statements that stay prepared. */
  readonly statementCache: number;
  readonly ddl: (gid: Gid, content: Buffer, ordinal: number) => readonly string[];
  /** A replayed transaction changed the schema. */
  readonly onDdl: (gid: Gid) => void;
  /** The replay of a large transaction got on. */
  readonly onProgress: (gid: Gid) => void;
}

/** As a subscription's apply worker sets them, and without any timeout: waiting is looked at from outside. */
const SETTINGS = {
  session_replication_role: 'replica',
  deadlock_timeout: '50ms',
  synchronous_commit: 'on',
  lock_timeout: '0',
  statement_timeout: '0',
  idle_in_transaction_session_timeout: '0',
  default_transaction_read_only: 'off',
  default_transaction_isolation: 'read committed',
  row_security: 'off',
  search_path: '',
  DateStyle: 'ISO',
  IntervalStyle: 'postgres',
  extra_float_digits: '3',
  bytea_output: 'hex',
  check_function_bodies: 'off',
};

const PIECE = 256 * 1024;
const DUPLICATE_OBJECT = '42710';

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

/** One connection that replays one transaction at a time and prepares it under its gid. */
export class ApplySession {
  readonly #options: ApplySessionOptions;
  readonly #connection: ServerConnection;
  readonly #pipeline: StatementPipeline;
  readonly #cache: TableCache = { statements: new Map() };
  #stale = false;
  #cancelled: PgError | undefined;

  private constructor(options: ApplySessionOptions, connection: ServerConnection) {
    this.#options = options;
    this.#connection = connection;
    this.#pipeline = new StatementPipeline(connection, options.statementCache);
  }

  static async connect(options: ApplySessionOptions): Promise<ApplySession> {
    const connection = await ServerConnection.connect({ ...options.connection, settings: SETTINGS });
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

  /** Some table may have changed: look everything up again. */
  schemaChanged(): void {
    this.#stale = true;
  }

  /** Gives up between two pieces of a large transaction; a statement that runs has to be cancelled as well. */
  cancel(): void {
    this.#cancelled ??= new PgError('57014', 'replay was cancelled');
  }

  /** Never rejects. */
  async apply(gid: Gid, source: RecordSource): Promise<ApplyResult> {
    this.#cancelled = undefined;
    if (this.#stale) this.#forget();
    const first = await this.#attempt(gid, source, false);
    return first ?? (await this.#attempt(gid, source, true)) ?? { type: 'failed', error: new PgError('XX000', 'replay is in doubt') };
  }

  #forget(): void {
    this.#stale = false;
    this.#cache.statements.clear();
    this.#pipeline.forget();
  }

  /** Undefined when the fast way found something odd: everything is rolled back then. */
  async #attempt(gid: Gid, source: RecordSource, careful: boolean): Promise<ApplyResult | undefined> {
    const replay = new TransactionReplay(
      {
        connection: this.#connection,
        pipeline: this.#pipeline,
        cache: this.#cache,
        ddl: (content, ordinal) => this.#options.ddl(gid, content, ordinal),
        schemaChanged: () => this.#options.onDdl(gid),
      },
      careful,
      source.type === 'remote',
    );
    let error: PgError | undefined;
    try {
      this.#pipeline.once('BEGIN');
      await this.#feed(gid, replay, source);
      await replay.finish(gid);
      this.#pipeline.once(`PREPARE TRANSACTION ${literal(gid)}`);
      error = await this.#pipeline.settle();
    } catch (failure) {
      const sent = await this.#pipeline.settle();
      error = failure instanceof PgError ? failure : (sent ?? new PgError('XX000', (failure as Error).message));
    }
    if (error !== undefined) return this.#failed(gid, error);
    if (replay.doubt === undefined) return { type: 'prepared', rows: replay.rows };
    const undone = await this.#tryQuery(`ROLLBACK PREPARED ${literal(gid)}`);
    return undone === undefined ? undefined : { type: 'lost', error: undone };
  }

  async #feed(gid: Gid, replay: TransactionReplay, source: RecordSource): Promise<void> {
    const reader = new RecordReader();
    if (source.type === 'inline') {
      const data = Buffer.from(source.data.buffer, source.data.byteOffset, source.data.byteLength);
      for (const record of reader.push(data)) await replay.record(record);
    } else {
      let offset = 0;
      for (let last = false; !last; ) {
        if (this.#cancelled !== undefined) throw this.#cancelled;
        const piece = await source.read(offset, PIECE);
        offset += piece.bytes.length;
        last = piece.last;
        const bytes = Buffer.from(piece.bytes.buffer, piece.bytes.byteOffset, piece.bytes.byteLength);
        for (const record of reader.push(bytes)) await replay.record(record);
        if (this.#pipeline.error !== undefined) break;
        this.#options.onProgress(gid);
      }
      if (this.#pipeline.error !== undefined) return;
    }
    reader.finish();
  }

  async #failed(gid: Gid, error: PgError): Promise<ApplyResult> {
    if (this.#connection.closed !== undefined) return { type: 'lost', error };
    const rolledBack = await this.#tryQuery('ROLLBACK');
    if (rolledBack !== undefined) return { type: 'lost', error: rolledBack };
    // Statements may have failed because of what they were prepared for is gone.
    this.#forget();
    if (error.sqlstate === DUPLICATE_OBJECT && (await this.#isPrepared(gid))) return { type: 'prepared', rows: 0 };
    return { type: 'failed', error };
  }

  async #isPrepared(gid: Gid): Promise<boolean> {
    try {
      return (await this.#connection.query(`SELECT 1 FROM pg_catalog.pg_prepared_xacts WHERE gid = ${literal(gid)}`)).length > 0;
    } catch {
      return false; // the connection is lost, which its own listener reports
    }
  }

  async #tryQuery(sql: string): Promise<PgError | undefined> {
    try {
      await this.#connection.query(sql);
      return undefined;
    } catch (error) {
      return error as PgError;
    }
  }

  end(): void {
    this.#connection.end();
  }
}
