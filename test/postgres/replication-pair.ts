import type pg from 'pg';
import { formatGid } from '../../src/commit/gid.ts';
import { ApplySession } from '../../src/replication/apply/apply-session.ts';
import { runsScript } from '../../src/replication/apply/extension-scripts.ts';
import type { ApplyResult, ApplySessionOptions, RecordSource } from '../../src/replication/apply/apply-session.ts';
import { ControlClient } from '../../src/replication/control-client.ts';
import { Decoder } from '../../src/replication/decoder.ts';
import { holdOrigin } from '../../src/replication/origins.ts';
import { TransactionSpool } from '../../src/replication/spool.ts';
import type { Gid } from '../../src/runtime/ids.ts';
import { epoch, nodeId } from '../../src/runtime/ids.ts';
import type { ConnectionOptions } from '../../src/wire/connection.ts';
import { startPostgres } from '../support/postgres.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';

/** Started servers by what is to be run; kept by the caller for `stop`. */
export interface PairOptions {
  readonly originBin?: string | undefined;
  readonly targetBin?: string | undefined;
  readonly targetSettings?: Record<string, string>;
  readonly database?: string;
  readonly encoding?: string;
}

const SLOT = 'pgmm_live_test';
const INLINE = 256 * 1024;

/**
 * Two bare servers: what the decoder hands over of one is replayed on the other, as two nodes do, without what lies
 * between them.
 */
export class ReplicationPair {
  readonly origin: TestPostgres;
  readonly target: TestPostgres;
  readonly bypasses: string[][] = [];
  readonly ddl: Gid[] = [];
  a!: pg.Client;
  b!: pg.Client;
  /** Watches, and does what needs a second connection, on the target. */
  control!: ControlClient;
  session!: ApplySession;
  decoder!: Decoder;
  spool!: TransactionSpool;
  readonly #database: string;
  readonly #directory = makeTempDir('replication');
  readonly #decoded = new Map<Gid, RecordSource>();
  readonly #waiting = new Map<Gid, (source: RecordSource) => void>();
  #sequence = 0;

  private constructor(origin: TestPostgres, target: TestPostgres, database: string) {
    this.origin = origin;
    this.target = target;
    this.#database = database;
  }

  static async start(options: PairOptions = {}): Promise<ReplicationPair> {
    const [origin, target] = await Promise.all([
      startPostgres({ bin: options.originBin }),
      startPostgres({ bin: options.targetBin, settings: options.targetSettings ?? {} }),
    ]);
    const pair = new ReplicationPair(origin, target, options.database ?? 'postgres');
    try {
      await pair.#open(options.encoding);
    } catch (error) {
      await pair.stop();
      throw error;
    }
    return pair;
  }

  async #open(encoding: string | undefined): Promise<void> {
    const database = this.#database;
    for (const server of database === 'postgres' ? [] : [this.origin, this.target]) {
      const client = await server.connect();
      const more = encoding === undefined ? '' : ` ENCODING '${encoding}' LOCALE 'C' TEMPLATE template0`;
      await client.query(`CREATE DATABASE ${database}${more}`);
      await client.end();
    }
    this.a = await this.origin.connect({ database });
    this.b = await this.target.connect({ database });
    this.control = new ControlClient(this.connection(this.target));
    this.control.on('error', () => undefined);
    await this.control.connect();
    await this.a.query('CREATE PUBLICATION pgmm FOR ALL TABLES');
    await this.a.query(`SELECT pg_create_logical_replication_slot('${SLOT}', 'pgoutput', false, true)`);
    this.spool = await TransactionSpool.open({
      directory: `${this.#directory}/spool`,
      inline: INLINE,
      memory: 64 << 20,
    });
    this.session = await this.openSession('pgmm_apply_0');
    await this.startDecoder();
  }

  connection(server: TestPostgres): ConnectionOptions {
    return {
      host: server.host,
      port: server.port,
      user: 'postgres',
      database: this.#database,
      applicationName: 'pgmm test',
    };
  }

  openSession(origin: string, more: Partial<ApplySessionOptions> = {}): Promise<ApplySession> {
    return ApplySession.connect({
      connection: this.connection(this.target),
      origin,
      holdOrigin: (connection, name) => holdOrigin(connection, this.control, name),
      statementCache: 100,
      // The tests' schema changes are not signed: the message is the statement.
      ddl: (_gid, content) => ({
        statements: ['SET LOCAL search_path = public', ...content.toString('utf8').split(';;')],
        renamed: undefined,
        runsScript: runsScript(content.toString('utf8')),
      }),
      onDdl: () => undefined,
      onProgress: () => undefined,
      ...more,
    });
  }

  async startDecoder(): Promise<void> {
    const { spool } = this;
    const decoder: Decoder = new Decoder({
      connection: this.connection(this.origin),
      slot: SLOT,
      publication: 'pgmm',
      statusInterval: 200,
      handlers: {
        begin: (gid) => {
          if (!gid.startsWith('pgmm:')) return false;
          spool.begin(gid);
          return true;
        },
        changes: (gid, records) => {
          if (spool.append(gid, records)) return true;
          void spool.settled(gid).finally(() => decoder.resume());
          return false;
        },
        decoding: () => undefined,
        ddl: (gid) => this.ddl.push(gid),
        prepared: (gid) => this.#onPrepared(gid, spool.complete(gid)),
        bypass: (_xid, relations) => this.bypasses.push([...relations].sort()),
        closed: () => undefined,
      },
    });
    await decoder.start();
    this.decoder = decoder;
  }

  #onPrepared(gid: Gid, data: Buffer | undefined): void {
    const source: RecordSource =
      data === undefined
        ? { type: 'remote', read: (offset, limit) => this.spool.read(gid, offset, limit) }
        : { type: 'inline', data };
    const waiting = this.#waiting.get(gid);
    this.#waiting.delete(gid);
    if (waiting === undefined) this.#decoded.set(gid, source);
    else waiting(source);
  }

  nextGid(): Gid {
    const sequence = ++this.#sequence;
    return formatGid({ cluster: 'test', node: nodeId(1), epoch: epoch(1), sequence, clock: Date.now() });
  }

  /** The schema, the same on both servers; what is decoded of it is nobody's business. */
  async both(sql: string): Promise<void> {
    await Promise.all([this.a.query(sql), this.b.query(sql)]);
    this.session.schemaChanged();
  }

  /** Runs statements on the origin and prepares them, with the message that every node adds. */
  async prepare(statements: readonly string[], client = this.a): Promise<Gid> {
    const gid = this.nextGid();
    await client.query('BEGIN');
    for (const sql of statements) await client.query(sql);
    await client.query(`SELECT pg_logical_emit_message(true, 'pgmm:gid', '${gid}')`);
    await client.query(`PREPARE TRANSACTION '${gid}'`);
    return gid;
  }

  decoded(gid: Gid): Promise<RecordSource> {
    const source = this.#decoded.get(gid);
    if (source === undefined) return new Promise((resolve) => this.#waiting.set(gid, resolve));
    this.#decoded.delete(gid);
    return Promise.resolve(source);
  }

  /** Prepares on the origin and replays on the target. */
  async replay(...statements: string[]): Promise<{ gid: Gid; result: ApplyResult }> {
    const gid = await this.prepare(statements);
    const source = await this.decoded(gid);
    return { gid, result: await this.session.apply(gid, source) };
  }

  async commit(gid: Gid): Promise<void> {
    await Promise.all([this.a, this.b].map((client) => client.query(`COMMIT PREPARED '${gid}'`)));
    this.finish(gid);
  }

  /** Rolls back where it is prepared. */
  async rollback(gid: Gid): Promise<void> {
    for (const client of [this.a, this.b]) {
      const { rowCount } = await client.query('SELECT FROM pg_prepared_xacts WHERE gid = $1', [gid]);
      if (rowCount === 1) await client.query(`ROLLBACK PREPARED '${gid}'`);
    }
    this.finish(gid);
  }

  /** What a failed test left must not stand in the way of the next. */
  async clear(): Promise<void> {
    for (const server of [this.origin, this.target]) {
      const client = await server.connect({ database: this.#database });
      const { rows } = await client.query<{ gid: string }>('SELECT gid FROM pg_prepared_xacts');
      for (const { gid } of rows) await client.query(`ROLLBACK PREPARED '${gid}'`);
      await client.end();
    }
  }

  finish(gid: Gid): void {
    this.spool.release(gid);
    this.decoder.finished(gid);
  }

  /** One transaction on both servers. Gives the rows that were replayed; throws why it could not be. */
  async run(...statements: string[]): Promise<number> {
    const { gid, result } = await this.replay(...statements);
    if (result.type === 'prepared') {
      await this.commit(gid);
      return result.rows;
    }
    await this.rollback(gid);
    throw result.error;
  }

  /** The table's rows on both servers, as text and in the same order. */
  async tables(table: string): Promise<[string[], string[]]> {
    const rows = async (client: pg.Client) => {
      await client.query('SET extra_float_digits = 3');
      const { rows } = await client.query<{ row: string }>(
        `SELECT t::text AS row FROM ${table} t ORDER BY t::text COLLATE "C"`,
      );
      return rows.map(({ row }) => row);
    };
    return Promise.all([rows(this.a), rows(this.b)]);
  }

  async stop(): Promise<void> {
    (this.decoder as Decoder | undefined)?.stop();
    (this.session as ApplySession | undefined)?.end();
    await (this.control as ControlClient | undefined)?.end();
    await Promise.all([this.origin.stop(), this.target.stop()]);
    removeTempDir(this.#directory);
  }
}
