import { DdlMessages, replayStatements } from '../catalog/ddl-message.ts';
import { fixGuard, switchGuard } from '../catalog/guard.ts';
import { installCatalog, PUBLICATION } from '../catalog/install.ts';
import { loadSafety } from '../catalog/safety.ts';
import type { SafetyNames } from '../sql/names.ts';
import { loadParser } from '../sql/parser.ts';
import { PgError } from '../runtime/errors.ts';
import { parseLsn, ZERO_LSN, type Gid, type LogIndex, type Lsn, type NodeId } from '../runtime/ids.ts';
import type { Logger } from '../runtime/log.ts';
import { literal } from '../runtime/sql-text.ts';
import { ServerConnection, type ConnectionOptions } from '../wire/connection.ts';
import { ApplyPool } from './apply/apply-pool.ts';
import type { ApplyResult } from './apply/apply-session.ts';
import { findBlockers, readAllWaits, type Blocked } from './apply/blockers.ts';
import { runsScript } from './apply/extension-scripts.ts';
import { schemaRename } from './apply/schema-names.ts';
import type { ReplayedDdl } from './apply/transaction-replay.ts';
import { CommitProgress, type LanePositions } from '../commit/core/commit-progress.ts';
import { OriginCommitConnection } from './commit-connection.ts';
import { commitOrigin, noteCommitted, prepareLanes, readCommitPositions } from './commit-origins.ts';
import { ControlClient } from './control-client.ts';
import { DatabaseSlots, type SlotEvents } from './database-slots.ts';
import { Decoder } from './decoder.ts';
import type { Retention } from './history/history-slot.ts';
import type { HistorySource } from './history/history-server.ts';
import { APPLICATION_NAME, holdOrigin, takeOver } from './origins.ts';
import { LockSurvey, type LockQuestion } from './row-locks/lock-survey.ts';
import type { TransactionSpool } from './spool.ts';
import { connectForText } from './text-settings.ts';

/** Asked before anything is changed in a server, and told when it is this node's. */
export interface Admission {
  examine(client: ControlClient): Promise<void>;
  adopt(client: ControlClient): Promise<void>;
}

export interface DatabaseReplicaOptions {
  readonly database: string;
  readonly node: NodeId;
  /** Without database and application name. */
  readonly server: Omit<ConnectionOptions, 'database' | 'applicationName'>;
  readonly secret: string;
  readonly stride: number;
  readonly apply: { readonly sessions: number; readonly statementCache: number };
  /** How many commit at a time in the order "relaxed". */
  readonly committers: number;
  readonly spool: TransactionSpool;
  /** Where notes about slots are kept. */
  readonly directory: string;
  readonly handedOut: () => LogIndex;
  /** Everything up to here is committed. */
  readonly committed: () => LogIndex;
  readonly retention: Retention;
  /** Where clients are sent that write past the proxy; undefined: they may. */
  readonly guard: string | undefined;
  readonly log: Logger;
  /** Whether a decoded transaction belongs to this run and is under way. */
  readonly wants: (gid: Gid) => boolean;
  /** Since when in the WAL a transaction may have locked rows or tables; undefined if it has not. */
  readonly locksSince: (gid: Gid) => Lsn | undefined;
  readonly decoded: (gid: Gid, data: Uint8Array | undefined) => void;
  readonly applied: (gid: Gid, result: ApplyResult) => void;
  readonly progress: (gid: Gid) => void;
  /** The decoder, or the search for locks, gets on with a large transaction. */
  readonly decoding: () => void;
  readonly bypass: (xid: number, relations: readonly string[]) => void;
  readonly slots: SlotEvents;
  /** For the first database: whether this server is the one that belongs to this node. Rejects if not. */
  readonly admission?: Admission | undefined;
  /** A connection is lost: everything has to be set up anew. */
  readonly closed: (error: Error) => void;
}

const OWN_OID = 'SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()';
const FLUSHED = 'SELECT pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text AS flushed';
const UNDEFINED_OBJECT = '42704';

const GUARD_WAITS = 'the guard waits for tables that are in use';

/** Everything that this program has open in one coordinated database of the local PostgreSQL. */
export class DatabaseReplica {
  readonly #options: DatabaseReplicaOptions;
  readonly #control: ControlClient;
  /** Looks into locks, and must not wait behind anything else for that. */
  readonly #watch: ControlClient;
  /** Moves the history slot, which takes as long as the WAL is large. */
  readonly #keeper: ControlClient;
  readonly #messages: DdlMessages;
  /** Transactions that change the schema, until they are committed here. */
  readonly #ddl = new Set<Gid>();
  readonly #committingDdl = new Set<Gid>();
  /** Counts looks at the schema. */
  #looks = 0;
  #spare!: ServerConnection;
  #committers: readonly OriginCommitConnection[] = [];
  #oid = '';
  #pool!: ApplyPool;
  /** Undefined until there is a slot to read from. */
  #decoder: Decoder | undefined;
  #slots!: DatabaseSlots;
  #safety!: SafetyNames;
  /** The end of the WAL when this began. */
  #opened: Lsn = ZERO_LSN;
  #closed = false;
  /** Opened when a transaction has locked something for the first time. */
  #lockSurvey: Promise<LockSurvey> | undefined;
  readonly #connections: ServerConnection[] = [];

  private constructor(options: DatabaseReplicaOptions) {
    this.#options = options;
    this.#messages = new DdlMessages(options.secret);
    const { server, database } = options;
    const client = (purpose: string) =>
      new ControlClient({ ...server, database, applicationName: `${APPLICATION_NAME} ${purpose}` });
    this.#control = client('control');
    this.#watch = client('watch');
    this.#keeper = client('history keeper');
  }

  /**
   * Connects, installs what is missing, and starts decoding, unless slots have to be made for that: then it goes on with that by itself
   * (`unready`). Leaves nothing open when it rejects.
   */
  static async open(options: DatabaseReplicaOptions): Promise<DatabaseReplica> {
    const replica = new DatabaseReplica(options);
    try {
      await replica.#open();
      return replica;
    } catch (error) {
      replica.close();
      throw error;
    }
  }

  async #open(): Promise<void> {
    const { node, stride } = this.#options;
    for (const client of [this.#control, this.#watch, this.#keeper]) {
      client.on('error', (error) => this.#onClosed(error));
      await client.connect();
    }
    const { admission } = this.#options;
    await admission?.examine(this.#control);
    await installCatalog(this.#control, { nodeId: node, stride });
    await admission?.adopt(this.#control);
    await switchGuard((sql, values) => this.#control.ask(sql, values), this.#options.guard);
    this.#safety = await loadSafety(this.#control);
    const oid = (await this.#control.ask<{ oid: number }>(OWN_OID)).rows[0].oid.toString();
    this.#oid = oid;
    this.#spare = await this.#connect('rollback');
    await this.#openPool(oid);
    // What these do is not known any more.
    for (const gid of await this.preparedGids()) this.#ddl.add(gid as Gid);
    this.#slots = this.#createSlots();
    await this.#slots.open();
  }

  #createSlots(): DatabaseSlots {
    const { server, database, directory, log, slots } = this.#options;
    return new DatabaseSlots({
      ...{ oid: this.#oid, database, directory, log, events: slots },
      ...{ control: this.#control, keeper: this.#keeper, watch: this.#watch },
      connect: () => this.#connect('slots'),
      committed: () => this.#committedOrSent(),
      read: async (slot) => {
        this.#opened = await this.#flushedNow();
        await takeOver(this.#control, () =>
          this.#startDecoder(slot, { ...server, database, applicationName: `${APPLICATION_NAME} decoder` }),
        );
      },
    });
  }

  /** Why what is written here would reach no other node; undefined when it is read. */
  get unready(): string | undefined {
    return this.#slots.unready;
  }

  async #flushedNow(): Promise<Lsn> {
    return parseLsn((await this.#control.ask<{ flushed: string }>(FLUSHED)).rows[0].flushed);
  }

  async #connect(purpose: string): Promise<ServerConnection> {
    const { server, database } = this.#options;
    const connection = await ServerConnection.connect({
      ...server,
      database,
      applicationName: `${APPLICATION_NAME} ${purpose}`,
      settings: { search_path: '', default_transaction_read_only: 'off', statement_timeout: '0', lock_timeout: '0' },
    });
    connection.onClose((error) => this.#onClosed(error));
    this.#connections.push(connection);
    return connection;
  }

  /** Whether as many committers as there are to be can be used yet; see prepareLanes. They are prepared in any case, for the next start. */
  lanesAreReady(): Promise<boolean> {
    return prepareLanes(this.#control, this.#oid, this.#options.committers);
  }

  /** To be called once, before anything is committed. */
  async openCommitters(lanes: number): Promise<void> {
    const oid = this.#oid;
    const committers: OriginCommitConnection[] = [];
    for (let lane = 0; lane < lanes; lane++) {
      const connection = await this.#connect('committer');
      await holdOrigin(connection, this.#control, commitOrigin(oid, lane, lanes));
      committers.push(new OriginCommitConnection(connection));
    }
    this.#committers = committers;
  }

  async #openPool(oid: string): Promise<void> {
    const { server, database, apply, applied, progress } = this.#options;
    await loadParser();
    this.#pool = await ApplyPool.connect({
      connection: { ...server, database, applicationName: `${APPLICATION_NAME} apply` },
      sessions: apply.sessions,
      statementCache: apply.statementCache,
      originPrefix: `pgmm_apply_${oid}_`,
      holdOrigin: (connection, origin) => holdOrigin(connection, this.#control, origin),
      ddl: (gid, content, ordinal) => this.#checkDdl(gid, content, ordinal),
      onDdl: (gid) => this.#ddl.add(gid),
      onProgress: progress,
      cancelBackend: async (pid) => {
        await this.#watch.ask('SELECT pg_catalog.pg_cancel_backend($1)', [pid]);
      },
      applied,
      closed: (error) => this.#onClosed(error),
    });
  }

  #checkDdl(gid: Gid, content: Buffer, ordinal: number): ReplayedDdl {
    const ddl = this.#messages.decode(content, gid, ordinal);
    if (ddl !== undefined) {
      const { statement } = ddl;
      return {
        ...{ statements: replayStatements(ddl), renamed: schemaRename(statement) },
        runsScript: runsScript(statement),
      };
    }
    throw new PgError('42501', 'a schema change was not announced by a proxy of this cluster', {
      detail: `Statement ${ordinal + 1} of transaction "${gid}" bears no valid signature.`,
    });
  }

  async #startDecoder(slot: string, connection: ConnectionOptions): Promise<void> {
    const { spool, wants, decoding, decoded, bypass, log } = this.#options;
    const decoder = new Decoder({
      connection,
      slot,
      publication: PUBLICATION,
      statusInterval: 1000,
      handlers: {
        begin: (gid) => {
          if (!wants(gid)) return false;
          spool.begin(gid);
          return true;
        },
        changes: (gid, records) => {
          if (spool.append(gid, records)) return true;
          const resume = () => decoder.resume();
          spool.settled(gid).then(resume, (error: unknown) => {
            log.error({ err: error, gid }, 'the changes of a transaction could not be spooled');
            resume();
          });
          return false;
        },
        decoding,
        ddl: (gid) => this.#ddl.add(gid),
        prepared: (gid, xid, to) => {
          const from = this.#options.locksSince(gid);
          if (from === undefined) decoded(gid, spool.complete(gid));
          else void this.#addLocks(gid, { xid, from, to });
        },
        bypass,
        closed: (error) => this.#onClosed(error),
      },
    });
    await decoder.start();
    this.#decoder = decoder;
    if (this.#closed) decoder.stop();
  }

  /** Completes a transaction by what it has locked; without that it must not be replayed anywhere. */
  async #addLocks(gid: Gid, question: LockQuestion): Promise<void> {
    const { spool, decoding, decoded, log } = this.#options;
    try {
      const survey = await this.#survey();
      const records = await survey.look(question, decoding);
      // It will be decoded again, and completed then.
      if (this.#closed) return;
      for (const record of records) if (!spool.append(gid, record)) await spool.settled(gid);
    } catch (error) {
      if (this.#closed) return;
      log.error({ err: error, gid }, 'what a transaction has locked could not be found out');
      spool.fail(gid, locksUnknown(error as Error));
    }
    decoded(gid, spool.complete(gid));
  }

  #survey(): Promise<LockSurvey> {
    this.#lockSurvey ??= this.#openLockSurvey().catch((error: unknown) => {
      // What kept it from being opened may be over when the next transaction needs it.
      this.#lockSurvey = undefined;
      throw error;
    });
    return this.#lockSurvey;
  }

  async #openLockSurvey(): Promise<LockSurvey> {
    const { server, database } = this.#options;
    const connection = await connectForText({
      ...{ ...server, database, applicationName: `${APPLICATION_NAME} lock survey` },
      settings: { default_transaction_read_only: 'off', statement_timeout: '0', lock_timeout: '0' },
    });
    let survey: LockSurvey;
    try {
      survey = await LockSurvey.open(connection, this.#slots.live);
    } catch (error) {
      connection.destroy();
      throw error;
    }
    connection.onClose((error) => this.#onClosed(error));
    this.#connections.push(connection);
    return survey;
  }

  #onClosed(error: Error): void {
    if (this.#closed) return;
    this.close();
    this.#options.closed(error);
  }

  /** Everything that is written from now on stands behind this in the WAL. */
  get received(): Lsn {
    return this.#decoder?.received ?? ZERO_LSN;
  }

  get safety(): SafetyNames {
    return this.#safety;
  }

  /** For readers of what was committed here. Undefined until it is kept. */
  get history(): HistorySource | undefined {
    const { server, database } = this.#options;
    const { history } = this.#slots;
    if (history === undefined) return undefined;
    return {
      from: history.from,
      committed: async () => {
        const index = this.#options.committed();
        return { index, position: await this.#flushedNow() };
      },
      readerOptions: () => ({
        connection: { ...server, database, applicationName: `${APPLICATION_NAME} history` },
        slot: history.name,
        publication: PUBLICATION,
      }),
    };
  }

  /** All that was written before this began has been looked at, for writes past the proxy too. */
  get hasReadWal(): boolean {
    return this.#decoder !== undefined && this.#decoder.received >= this.#opened;
  }

  /** Brings the guard to the tables that are not in use. */
  async fixGuard(): Promise<void> {
    const left = await fixGuard((sql, values) => this.#keeper.ask(sql, values));
    if (left > 0) this.#options.log.info({ database: this.#options.database, tables: left }, GUARD_WAITS);
  }

  /** How much WAL was durable when the history slot was last looked at; undefined before that. */
  get flushed(): Lsn | undefined {
    return this.#slots.history?.flushed;
  }

  /** Lets go of WAL that no node needs: all have committed up to `needed`. */
  async advanceHistory(needed: LogIndex): Promise<void> {
    const { handedOut, retention, log, database } = this.#options;
    const { history } = this.#slots;
    if (history === undefined) return;
    const surrender = await history.advance(handedOut, () => this.#committedOrSent(), needed, retention);
    if (surrender === undefined) return;
    const { from, reason } = surrender;
    const what =
      reason === 'retention'
        ? 'retention is exceeded'
        : `slot ${history.name} had lost its WAL (max_slot_wal_keep_size?), or was dropped, and begins anew`;
    log.warn(
      { database, needed, from },
      `${what}: a node that is away can no longer catch up from here and has to be copied anew`,
    );
  }

  /** After a start nothing has been sent yet, and much may be committed. */
  async #committedOrSent(): Promise<LogIndex> {
    const { highest } = new CommitProgress([...(await this.commitPositions()).values()]);
    return Math.max(highest, this.#options.handedOut()) as LogIndex;
  }

  walSince(index: LogIndex): number {
    return this.#slots.history?.walSince(index) ?? 0;
  }

  /** Bytes of WAL that this database's slots hold back, by slot. */
  async retainedWal(): Promise<[slot: string, bytes: number][]> {
    const { rows } = await this.#keeper.ask<{ slot: string; bytes: string }>(
      `SELECT slot_name AS slot, (pg_catalog.pg_current_wal_lsn() - restart_lsn)::pg_catalog.int8 AS bytes
       FROM pg_catalog.pg_replication_slots
       WHERE database = pg_catalog.current_database() AND slot_name LIKE 'pgmm%' AND restart_lsn IS NOT NULL`,
    );
    return rows.map(({ slot, bytes }) => [slot, Number(bytes)]);
  }

  committer(lane: number): OriginCommitConnection {
    return this.#committers[lane];
  }

  get pool(): ApplyPool {
    return this.#pool;
  }

  /** What the positions of the committers' origins say, by the number of lanes. */
  commitPositions(): Promise<ReadonlyMap<number, LanePositions>> {
    return readCommitPositions(this.#control, this.#oid);
  }

  /** Everything up to this index is committed, in all databases. */
  noteCommitted(index: LogIndex): Promise<void> {
    return noteCommitted(this.#control, this.#oid, index);
  }

  /** The gids of everything that is prepared in this database under a name of this program. */
  async preparedGids(): Promise<string[]> {
    const { rows } = await this.#control.ask<{ gid: string }>(
      `SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database() AND gid LIKE 'pgmm:%'`,
    );
    return rows.map(({ gid }) => gid);
  }

  /** Resolves when it is gone. */
  async rollbackPrepared(gid: Gid): Promise<void> {
    this.#ddl.delete(gid);
    try {
      await this.#spare.query(`ROLLBACK PREPARED ${literal(gid)}`);
    } catch (error) {
      if (!(error instanceof PgError) || error.sqlstate !== UNDEFINED_OBJECT) throw error;
      this.#options.log.warn({ gid }, 'nothing was prepared under the name of a transaction to roll back');
    }
  }

  /** The transaction's changes are not needed any more. */
  release(gid: Gid): void {
    this.#decoder?.finished(gid);
  }

  /** What replays wait for that have been running for at least `age` milliseconds; of those only that are due. */
  async blocked(age: number, isDue: (gid: Gid) => boolean): Promise<{ gid: Gid; blocked: Blocked }[]> {
    const running = new Map([...this.#pool.runningSince(performance.now() - age)].filter(([, gid]) => isDue(gid)));
    if (running.size === 0) return [];
    const found = await findBlockers(this.#watch, [...running.keys()]);
    return found.flatMap((blocked) => {
      // The session may have gone on to another transaction since.
      const gid = this.#pool.gidOf(blocked.pid);
      return gid !== undefined && gid === running.get(blocked.pid) ? [{ gid, blocked }] : [];
    });
  }

  /** Backends of the whole server that wait for a lock, and for whom. */
  lockWaits(): Promise<ReadonlyMap<number, readonly number[]>> {
    return readAllWaits(this.#watch);
  }

  /** Ends a stranger's backend that stands in the way of a replay. None of this program's own, whatever it holds. */
  async terminateBackend(pid: number): Promise<boolean> {
    const { rowCount } = await this.#watch.ask(
      `SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
       WHERE pid = $1 AND backend_type = 'client backend' AND application_name NOT LIKE '${APPLICATION_NAME} %'`,
      [pid],
    );
    return rowCount === 1;
  }

  /** COMMIT PREPARED is about to be sent: neither a replay that waits for the schema change nor a session may go on by what was known before. */
  onCommitting(gid: Gid): void {
    if (!this.#ddl.has(gid)) return;
    this.#committingDdl.add(gid);
    this.#safety = { changingSince: this.received, ...this.#safety };
    this.#pool.schemaChanged(true);
  }

  /** Everything up to a transaction is committed here: if it changed the schema, what was known of it is out of date. */
  async onCommitted(gid: Gid): Promise<void> {
    if (!this.#ddl.delete(gid)) return;
    this.#committingDdl.delete(gid);
    this.#pool.schemaChanged(this.#committingDdl.size > 0);
    const look = ++this.#looks;
    const found = await loadSafety(this.#control);
    const isSettled = look === this.#looks && this.#committingDdl.size === 0;
    this.#safety = isSettled ? found : { ...found, changingSince: this.#safety.changingSince };
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    const pool = this.#pool as ApplyPool | undefined;
    const slots = this.#slots as DatabaseSlots | undefined;
    pool?.end();
    slots?.close();
    this.#decoder?.stop();
    for (const connection of this.#connections) connection.end();
    for (const client of [this.#control, this.#watch, this.#keeper]) {
      client.end().catch((error: unknown) => {
        this.#options.log.debug({ err: error }, 'a control connection did not end cleanly');
      });
    }
  }
}

function locksUnknown({ message }: Error): PgError {
  return new PgError('58030', `what the transaction has locked could not be found out: ${message}`, {
    hint: 'Retry the transaction.',
  });
}
