import { statedOrdinal } from '../../catalog/ddl-message.ts';
import { PgError } from '../../runtime/errors.ts';
import { literal, quote } from '../../runtime/sql-text.ts';
import type { ServerConnection } from '../../wire/connection.ts';
import { Message, readLogicalMessage, readRelation, readTruncate, type Relation } from '../pgoutput/messages.ts';
import { readRowChange, type RowChange } from '../pgoutput/tuples.ts';
import { CopyText } from './copy-text.ts';
import { ExtensionScripts } from './extension-scripts.ts';
import { ForeignKeyChecks, foreignKeyViolation, type ForeignKeyCheck } from './foreign-key-checks.ts';
import { decodeLocks, LOCKS_RECORD, type Locks, type RowLocks } from '../row-locks/lock-record.ts';
import type { StatementPipeline } from './pipeline.ts';
import { SchemaNames, type SchemaRename } from './schema-names.ts';
import { tableName, TableStatements, type Statement } from './statements.ts';
import { loadTableInfo } from './table-info.ts';

export const GID_PREFIX = 'pgmm:gid';
export const DDL_PREFIX = 'pgmm:ddl';
/** Behind a schema statement and all that it did. Needs no signature: it takes nothing but an end. */
const END_PREFIX = 'pgmm:end';

/** Inserts into one table in a row from which on COPY is used for them. */
const COPY_FROM = 16;
/** Bytes of COPY data that travel in one command. */
const COPY_SIZE = 512 * 1024;
/** Distinct foreign keys that are remembered before they are checked on the way. */
const MAX_CHECKS = 10_000;

const BEGIN: Statement = { key: 'begin', sql: 'BEGIN', parameters: [] };
const EMIT = 'SELECT pg_catalog.pg_logical_emit_message(true, $1, $2::pg_catalog.text)';

const DEFER = 'SET CONSTRAINTS ALL DEFERRED';
const CHECK_DEFERRED = `DO $$ BEGIN
  SET CONSTRAINTS ALL IMMEDIATE;
EXCEPTION WHEN unique_violation OR exclusion_violation THEN
END $$`;

const GONE = 'undefined_table OR invalid_schema_name OR wrong_object_type';

const EMIT_BYTES = 'SELECT pg_catalog.pg_logical_emit_message(true, $1, $2::pg_catalog.bytea)';

/** What was found out about local tables, shared by the transactions of one session until the schema changes. */
export interface TableCache {
  /** By the bytes of the origin's RELATION message: another definition there is another key here. */
  readonly statements: Map<string, TableStatements>;
  /** Counts the tables looked up, so that each has an identity of its own. */
  lookups: number;
}

/** A schema statement of the origin. */
export interface ReplayedDdl {
  /** What to run in its place. */
  readonly statements: readonly string[];
  readonly renamed: SchemaRename | undefined;
  /** Row changes that come before the end of the statement may be its own; see ExtensionScripts. */
  readonly runsScript: boolean;
}

export interface ReplayContext {
  readonly connection: ServerConnection;
  readonly pipeline: StatementPipeline;
  readonly cache: TableCache;
  /** Checks a DDL message's signature and gives what to run. Throws a PgError if it isn't genuine. */
  readonly ddl: (content: Buffer, ordinal: number) => ReplayedDdl;
  /** The schema changed within the transaction. */
  readonly schemaChanged: () => void;
}

/**
 * Replays the records of one transaction on the apply session's connection, in order, between BEGIN and PREPARE. `careful`
 * looks at every result before PREPARE: the slower way, taken when the fast one found something odd.
 */
export class TransactionReplay {
  readonly #context: ReplayContext;
  readonly #careful: boolean;
  readonly #large: boolean;
  readonly #tables = new Map<number, TableStatements>();
  readonly #relations = new Map<number, { readonly relation: Relation; readonly key: string }>();
  readonly #checks = new ForeignKeyChecks();
  #inserts: { table: TableStatements; changes: RowChange[] } | undefined;
  readonly #copyText = new CopyText();
  readonly #schemas = new SchemaNames();
  readonly #scripts: ExtensionScripts;
  #nextOrdinal = 0;
  #deferred = false;
  rows = 0;
  /** Something that the fast way can't tell apart: to be replayed again, carefully. */
  doubt: string | undefined;

  constructor(context: ReplayContext, careful: boolean, large: boolean) {
    this.#context = context;
    this.#scripts = new ExtensionScripts(context.connection);
    this.#careful = careful;
    this.#large = large;
  }

  /** Adds a record. A promise means that the caller has to wait for it before the next one. */
  record(bytes: Buffer): Promise<void> | undefined {
    switch (bytes[0]) {
      case Message.relation:
        return this.#onRelation(bytes);
      case Message.insert:
      case Message.update:
      case Message.delete:
        return this.#scripts.running ? this.#onScriptRow(readRowChange(bytes)) : this.#onRow(readRowChange(bytes));
      case Message.truncate:
        this.#flushInserts();
        this.#checkDeferred();
        return this.#truncate(bytes);
      case Message.message:
        return this.#onMessage(bytes);
      case LOCKS_RECORD:
        this.#flushInserts();
        return this.#lock(decodeLocks(bytes));
      default:
        return undefined;
    }
  }

  /** Before everything else. */
  begin(): void {
    this.#context.pipeline.prepared(BEGIN);
  }

  #onRelation(bytes: Buffer): Promise<void> | undefined {
    const key = bytes.toString('latin1', 5);
    const known = this.#context.cache.statements.get(key);
    const id = bytes.readUInt32BE(1);
    const relation = known?.relation ?? readRelation(bytes);
    this.#relations.set(id, { relation, key });
    // It may be gone again.
    if (this.#scripts.running) return undefined;
    if (known === undefined) return this.#load(id);
    this.#use(id, known);
    return undefined;
  }

  async #load(id: number): Promise<void> {
    const described = this.#relations.get(id);
    if (described === undefined) throw new Error(`relation ${id} was not described`);
    const { relation, key } = described;
    const { cache, connection } = this.#context;
    this.#flushInserts();
    await this.#settled();
    const info = await loadTableInfo(connection, relation.schema, relation.name);
    if (info.uncheckedConstraint !== null) throw uncheckedConstraint(relation, info.uncheckedConstraint);
    const table = new TableStatements(relation, info, String(++cache.lookups));
    cache.statements.set(key, table);
    this.#use(id, table);
  }

  /** What was one statement at the origin comes row by row: keys may be there twice in between. */
  #use(id: number, table: TableStatements): void {
    this.#tables.set(id, table);
    if (!table.info.deferrable || this.#deferred) return;
    this.#deferred = true;
    this.#context.pipeline.once(DEFER);
  }

  /**
   * TRUNCATE and ALTER TABLE are refused while checks are pending that the origin has long made. A check that fails stays
   * pending: the origin may have deferred it as well.
   */
  #checkDeferred(): void {
    if (!this.#deferred) return;
    this.#context.pipeline.once(CHECK_DEFERRED);
    this.#context.pipeline.once(DEFER);
  }

  async #onScriptRow(change: RowChange): Promise<void> {
    if (!(await this.#isOfScript(this.#described(change.relation)))) await this.#onRow(change);
  }

  async #isOfScript(relation: Relation): Promise<boolean> {
    if (!this.#scripts.running) return false;
    this.#flushInserts();
    await this.#settled();
    return this.#scripts.make(relation);
  }

  #described(id: number): Relation {
    const described = this.#relations.get(id);
    if (described === undefined) throw new Error(`relation ${id} was not described`);
    return described.relation;
  }

  #onRow(change: RowChange): Promise<void> | undefined {
    const table = this.#tables.get(change.relation);
    // After DDL a table that it didn't touch is not described again, but has to be looked up again.
    if (table === undefined) return this.#load(change.relation).then(() => this.#onRow(change));
    this.rows += 1;
    // The few updates of a small transaction are looked at one by one; of a large one the distinct keys are fewer.
    const late = this.#large || this.#careful;
    const before = table.foreignKeys.length > 0 ? this.#checks.add(table, change, late) : [];
    if (this.#large && change.type === 'insert' && table.writtenColumns.length > 0) {
      this.#gather(table, change);
    } else {
      this.#flushInserts();
      for (const statement of before) this.#context.pipeline.prepared(statement, this.#onParent);
      this.#send(table, change);
    }
    if (this.#checks.size > MAX_CHECKS) return this.#checkOnTheWay();
    return this.#context.pipeline.full ? this.#context.pipeline.room() : undefined;
  }

  #send(table: TableStatements, change: RowChange): void {
    const statement = table.build(change, this.#careful);
    const { type } = change;
    const check = type === 'insert' ? undefined : (rows: number) => this.#onRowResult(rows, table, type);
    this.#context.pipeline.prepared(statement, check);
  }

  #onRowResult(rows: number, table: TableStatements, type: RowChange['type']): void {
    if (rows === 0) this.doubt ??= `row to ${type} not found in table ${table.name}`;
    if (rows > 1) this.doubt ??= `${rows} rows instead of one to ${type} in table ${table.name}`;
  }

  readonly #onParent = (rows: number): void => {
    if (rows === 0) this.doubt ??= 'a parent row is missing';
  };

  #gather(table: TableStatements, change: RowChange): void {
    if (this.#inserts?.table !== table) this.#flushInserts();
    this.#inserts ??= { table, changes: [] };
    const { changes } = this.#inserts;
    // Records are views into what was read; the few that wait for the decision are kept as they are.
    if (changes.length < COPY_FROM) changes.push(change);
    if (changes.length < COPY_FROM) return;
    if (this.#copyText.length === 0) for (const held of changes.slice(0, -1)) this.#copyRow(table, held);
    this.#copyRow(table, change);
    if (this.#copyText.length >= COPY_SIZE) this.#sendCopy(table);
  }

  #copyRow(table: TableStatements, change: RowChange): void {
    const row = change.row ?? [];
    this.#copyText.row(table.writtenColumns.map((i) => row[i]));
  }

  #sendCopy(table: TableStatements): void {
    const columns = table.writtenColumns.map((i) => quote(table.relation.columns[i].name));
    this.#context.pipeline.copy(
      `COPY ${tableName(table.relation)} (${columns.join(', ')}) FROM STDIN`,
      this.#copyText.take(),
    );
    if (this.#inserts !== undefined) this.#inserts = { table, changes: [] };
  }

  #flushInserts(): void {
    const inserts = this.#inserts;
    if (inserts === undefined) return;
    this.#inserts = undefined;
    if (this.#copyText.length > 0) this.#sendCopy(inserts.table);
    else for (const change of inserts.changes) this.#send(inserts.table, change);
  }

  async #truncate(bytes: Buffer): Promise<void> {
    const { relations, cascade, restartIdentity } = readTruncate(bytes);
    const names: string[] = [];
    for (const id of relations) {
      const relation = this.#described(id);
      if (!(await this.#isOfScript(relation))) names.push(`ONLY ${tableName(relation)}`);
    }
    if (names.length === 0) return;
    const options = `${restartIdentity ? ' RESTART IDENTITY' : ''}${cascade ? ' CASCADE' : ''}`;
    this.#context.pipeline.once(`TRUNCATE ${names.join(', ')}${options}`);
  }

  /**
   * What the origin had locked without changing it, so that nobody here can have what excludes it. A row that is not here has been
   * removed by a transaction that the origin has not heard of yet, and that its own replay there will meet; a table that is not
   * here, or is something else, has been renamed or dropped by this transaction, whose replay holds what that takes. Renaming a
   * schema takes nothing of its tables, and the origin calls them by the names that others know.
   */
  async #lock({ tables, rows }: Locks): Promise<void> {
    const { pipeline } = this.#context;
    for (const { schema, table, mode } of tables) {
      const name = tableName({ schema: this.#schemas.now(schema), name: table });
      const statement = `LOCK TABLE ONLY ${name} IN ${mode} MODE`;
      pipeline.once(`DO ${literal(`BEGIN ${statement}; EXCEPTION WHEN ${GONE} THEN NULL; END`)}`);
    }
    for (const locked of rows) {
      const table = await this.#lockedTable(locked);
      for (const row of locked.rows) {
        pipeline.prepared(table.lock(row.map(toBuffer), locked.byKey, locked.mode));
        if (pipeline.full) await pipeline.room();
      }
    }
  }

  async #lockedTable({ schema: before, table, columns, byKey }: RowLocks): Promise<TableStatements> {
    const { cache, connection } = this.#context;
    const schema = this.#schemas.now(before);
    const key = `locks ${JSON.stringify([schema, table, byKey, columns])}`;
    const known = cache.statements.get(key);
    if (known !== undefined) return known;
    await this.#settled();
    const info = await loadTableInfo(connection, schema, table);
    const relation: Relation = {
      ...{ id: 0, schema, name: table, identity: byKey ? 'd' : 'f' },
      columns: columns.map((name) => ({ name, key: byKey, typeOid: 0 })),
    };
    const statements = new TableStatements(relation, info, String(++cache.lookups));
    cache.statements.set(key, statements);
    return statements;
  }

  #onMessage(bytes: Buffer): Promise<void> | undefined {
    const { prefix, content } = readLogicalMessage(bytes);
    if (prefix === GID_PREFIX) return undefined;
    this.#flushInserts();
    if (prefix === DDL_PREFIX) {
      this.#checkDeferred();
      return this.#runDdl(content);
    }
    // Only a script has to be told where it ends, also to who reads it from this node's WAL.
    if (prefix === END_PREFIX && !this.#scripts.end()) return undefined;
    this.#repeat(prefix, content);
    return undefined;
  }

  /** As bytes, which no encoding of a database changes: a schema statement is signed. */
  #repeat(prefix: string, content: Buffer): void {
    const parameters = [Buffer.from(prefix), Buffer.from(`\\x${content.toString('hex')}`)];
    this.#context.pipeline.once(EMIT_BYTES, parameters);
  }

  async #runDdl(content: Buffer): Promise<void> {
    const { pipeline } = this.#context;
    // What checks the data of a whole table, as a new foreign key does, is to be planned like anywhere else.
    pipeline.once('SET LOCAL enable_seqscan = on');
    // Never one that came already: a statement that is copied into another place has too low a number for it.
    const ordinal = Math.max(statedOrdinal(content) ?? 0, this.#nextOrdinal);
    this.#nextOrdinal = ordinal + 1;
    const { statements, renamed, runsScript } = this.#context.ddl(content, ordinal);
    // The message itself goes on, so that this node's own WAL tells the whole transaction as well: before what the statement does.
    this.#repeat(DDL_PREFIX, content);
    for (const sql of statements) pipeline.once(sql);
    if (renamed !== undefined) this.#schemas.rename(renamed);
    this.#scripts.end();
    if (runsScript) this.#scripts.begin();
    await this.#settled();
    this.#context.cache.statements.clear();
    this.#tables.clear();
    pipeline.forget();
    this.#context.schemaChanged();
  }

  /** Everything is in: the last checks, and the message that names the transaction in the WAL. */
  async finish(gid: string): Promise<void> {
    this.#flushInserts();
    const { pipeline } = this.#context;
    if (this.#careful || this.#large) {
      await this.#settled();
      if (this.doubt !== undefined) return;
      for (const check of await this.#missingParents()) await this.#refuseIfChildIsLeft(check);
    } else {
      for (const { table, placed, values } of this.#checks)
        pipeline.prepared(table.parent(placed, values), this.#onParent);
    }
    pipeline.prepared({ key: 'emit', sql: EMIT, parameters: [Buffer.from(GID_PREFIX), Buffer.from(gid)] });
  }

  async #missingParents(): Promise<ForeignKeyCheck[]> {
    const missing: ForeignKeyCheck[] = [];
    for (const check of this.#checks) {
      const { pipeline } = this.#context;
      pipeline.prepared(check.table.parent(check.placed, check.values), (rows) => {
        if (rows === 0) missing.push(check);
      });
      if (pipeline.full) await pipeline.room();
    }
    await this.#settled();
    return missing;
  }

  /** Parents that are there already need not be remembered; the others may yet come. */
  async #checkOnTheWay(): Promise<void> {
    this.#flushInserts();
    this.#checks.keepOnly(await this.#missingParents());
  }

  /** A row that the same transaction removed again needs no parent. */
  async #refuseIfChildIsLeft(check: ForeignKeyCheck): Promise<void> {
    const left: ForeignKeyCheck[] = [];
    this.#context.pipeline.prepared(check.table.child(check.placed, check.values), (rows) => {
      if (rows > 0) left.push(check);
    });
    await this.#settled();
    if (left.length > 0) throw foreignKeyViolation(check);
  }

  /** Whether a table that was written to is not any more what it was taken for. Nobody can change it now that it is prepared. */
  async tablesChanged(): Promise<boolean> {
    for (const { info, relation } of this.#tables.values()) {
      const now = await loadTableInfo(this.#context.connection, relation.schema, relation.name);
      if (now.text !== info.text) return true;
    }
    return false;
  }

  /** Waits for everything sent so far. Throws the first error. */
  async #settled(): Promise<void> {
    const error = await this.#context.pipeline.settle();
    if (error !== undefined) throw error;
  }
}

const toBuffer = (value: Uint8Array | null) => (value === null ? null : Buffer.from(value));

/** This node's data is not what the origin's was: an operator has to know. */
export function divergence(what: string): PgError {
  return new PgError('XX001', `could not replay a transaction: ${what}`, {
    detail: 'The data of this node differs from that of the node where the transaction ran.',
    hint: 'Compare the nodes with "pgmm verify".',
  });
}

function uncheckedConstraint(relation: Relation, constraint: string): PgError {
  return new PgError(
    '0A000',
    `deferrable constraint "${constraint}" of table "${relation.name}" is not checked on replay`,
    {
      hint: `Enable its trigger always (ALTER TABLE … ENABLE ALWAYS TRIGGER), or make it NOT DEFERRABLE.`,
    },
  );
}
