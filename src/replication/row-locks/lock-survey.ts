import type { Lsn } from '../../runtime/ids.ts';
import { formatLsn, lsn, parseLsn } from '../../runtime/ids.ts';
import { PgError } from '../../runtime/errors.ts';
import { literal, quote } from '../../runtime/sql-text.ts';
import { Backend } from '../../wire/codes.ts';
import { readDataRowBytes } from '../../wire/backend-messages.ts';
import type { ServerConnection } from '../../wire/connection.ts';
import { FrontendWriter } from '../../wire/frontend.ts';
import { tableName } from '../apply/statements.ts';
import { handedOver } from './hand-over.ts';
import { encodeLocks, type LockMode, type RowLocks, type TableLock } from './lock-record.ts';
import { TransactionLocks, type LockedFile, type LockStrength, type RowLock } from './transaction-locks.ts';
import { WAL_PAGE, WalReader } from './wal-reader.ts';

/** What to look for, and where: a transaction that is prepared, so that its WAL is on disk. */
export interface LockQuestion {
  readonly xid: number;
  /** Positions before its first record, and behind its last. */
  readonly from: Lsn;
  readonly to: Lsn;
}

type LockedTable = Omit<RowLocks, 'mode' | 'rows'>;

const nameOf = ({ schema, table }: { readonly schema: string; readonly table: string }): string =>
  tableName({ schema, name: table });

/** Bytes of WAL that are read at once; in between other work goes on. */
const CHUNK = 512 * 1024;
/** Rows that are looked up by one statement, and that one record names. */
const ROWS_AT_ONCE = 1000;

const KEPT = (slot: string) => `SELECT restart_lsn FROM pg_catalog.pg_replication_slots WHERE slot_name = '${slot}'`;

const MODES: readonly LockMode[] = ['KEY SHARE', 'SHARE', 'NO KEY UPDATE', 'UPDATE'];
/** As pg_get_multixact_members() calls them: locks, then updates. */
const MEMBER_MODES: ReadonlyMap<string, LockStrength> = new Map([
  ['keysh', 0],
  ['sh', 1],
  ['fornokeyupd', 2],
  ['nokeyupd', 2],
  ['forupd', 3],
  ['upd', 3],
]);

/** Locks of tables that statements on rows don't take. */
const TABLE_MODES: ReadonlyMap<string, string> = new Map([
  ['ShareUpdateExclusiveLock', 'SHARE UPDATE EXCLUSIVE'],
  ['ShareLock', 'SHARE'],
  ['ShareRowExclusiveLock', 'SHARE ROW EXCLUSIVE'],
  ['ExclusiveLock', 'EXCLUSIVE'],
  ['AccessExclusiveLock', 'ACCESS EXCLUSIVE'],
]);

/** Those that leave nobody else a row to lock or change. Under ACCESS EXCLUSIVE, which ALTER TABLE takes, the survey could not even read there. */
const COVERS_ROWS: ReadonlySet<string> = new Set(['EXCLUSIVE', 'ACCESS EXCLUSIVE']);

/** Tables of which nothing is replicated. */
const REPLICATED = `c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384 AND n.nspname <> 'multimaster'`;

/** Prepared once, as planning takes longer than running them. */
const PREPARED = `
PREPARE wal (text, pg_catalog.int8, pg_catalog.int8) AS
SELECT pg_catalog.encode(pg_catalog.pg_read_binary_file('pg_wal/' || pg_catalog.pg_walfile_name($1::pg_catalog.pg_lsn), $2, $3), 'hex');

PREPARE preparing (xid) AS
SELECT 1 FROM pg_catalog.pg_stat_get_activity(NULL) WHERE backend_xid = $1;

PREPARE tables (xid) AS
WITH locks AS MATERIALIZED (SELECT * FROM pg_catalog.pg_locks WHERE pid IS NULL)
SELECT n.nspname, c.relname, l.mode
FROM locks x
JOIN locks l ON l.virtualtransaction = x.virtualtransaction AND l.locktype = 'relation'
JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE x.locktype = 'transactionid' AND x.transactionid = $1
  AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
  AND l.mode IN (${[...TABLE_MODES.keys()].map((mode) => `'${mode}'`).join(', ')}) AND ${REPLICATED};

PREPARE table_of_file (oid, oid) AS
SELECT n.nspname, c.relname, k.keys IS NOT NULL, coalesce(k.keys, (
  SELECT pg_catalog.json_agg(a.attname ORDER BY a.attnum) FROM pg_catalog.pg_attribute a
  WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''))
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
  SELECT pg_catalog.json_agg(a.attname ORDER BY u.n) AS keys
  FROM pg_catalog.pg_index i, pg_catalog.unnest(i.indkey::pg_catalog.int2[]) WITH ORDINALITY u (attnum, n)
  JOIN pg_catalog.pg_attribute a ON a.attnum = u.attnum
  WHERE i.indrelid = c.oid AND a.attrelid = c.oid AND u.n <= i.indnkeyatts
    AND CASE c.relreplident WHEN 'd' THEN i.indisprimary WHEN 'i' THEN i.indisreplident ELSE false END
) k ON true
WHERE c.oid = pg_catalog.pg_filenode_relation($1, $2) AND ${REPLICATED}`;

/**
 * Finds out which rows and tables a prepared transaction of this server has locked, other than by changing them: from its WAL and from
 * pg_locks. On a connection of its own, whose settings make values as text mean the same everywhere.
 */
export class LockSurvey {
  readonly #connection: ServerConnection;
  readonly #segmentSize: bigint;
  readonly #slot: string;

  private constructor(connection: ServerConnection, segmentSize: bigint, slot: string) {
    this.#connection = connection;
    this.#segmentSize = segmentSize;
    this.#slot = slot;
  }

  /** Takes a connection of a superuser, and the slot that the transactions are decoded from. Rejects on a server that was built with another size of WAL pages. */
  static async open(connection: ServerConnection, slot: string): Promise<LockSurvey> {
    const [[segment, page]] = await connection.query(
      `SELECT (SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_segment_size'),
        pg_catalog.current_setting('wal_block_size')`,
    );
    if (page !== String(WAL_PAGE))
      throw new PgError('0A000', `wal_block_size is ${page}, only ${WAL_PAGE} is supported`);
    await connection.query(`SET plan_cache_mode = force_generic_plan; ${PREPARED}`);
    return new LockSurvey(connection, BigInt(segment ?? 0), slot);
  }

  /** Records for the end of its changes; empty if it locked nothing more. `progress` is called after each piece of the WAL. */
  async look(question: LockQuestion, progress: () => void = () => undefined): Promise<Buffer[]> {
    const { xid } = question;
    const [found, tables] = await Promise.all([this.#readLocks(question, progress), this.#tables(xid)]);
    const records: Buffer[] = [];
    if (tables.length > 0) records.push(encodeLocks({ tables, rows: [] }));
    const covered = new Set(tables.filter(({ mode }) => COVERS_ROWS.has(mode)).map(nameOf));
    for (const file of found.locked()) {
      const target = await this.#describe(file);
      if (target === undefined || covered.has(nameOf(target))) continue;
      for await (const rows of this.#rows(target, file, found.xids))
        records.push(encodeLocks({ tables: [], rows: [rows] }));
    }
    return records;
  }

  /**
   * A transaction can have run for long before it changed or locked anything: what came before is not read, and may be gone. What a slot that
   * decodes it still needs reaches back to the first thing that it did (ReorderBufferGetOldestTXN in logical.c).
   */
  async #readLocks({ xid, from, to }: LockQuestion, progress: () => void): Promise<TransactionLocks> {
    const kept = (await this.#connection.query(KEPT(this.#slot))).at(0)?.[0] ?? null;
    const start = kept === null || parseLsn(kept) < from ? from : parseLsn(kept);
    const found = new TransactionLocks(xid);
    for await (const record of this.#records(start, to, progress)) found.add(record);
    return found;
  }

  async *#records(from: Lsn, to: Lsn, progress: () => void): AsyncIterable<Buffer> {
    const start = from - (from % BigInt(WAL_PAGE));
    const reader = new WalReader(start);
    for (let at: bigint = start; at < to;) {
      const bytes = await this.#readWal(at, to);
      for (let page = 0; page < bytes.length; page += WAL_PAGE)
        yield* reader.push(bytes.subarray(page, page + WAL_PAGE));
      at += BigInt(bytes.length);
      progress();
    }
  }

  /** What one file holds of it, from the beginning of a page. */
  async #readWal(from: bigint, to: bigint): Promise<Buffer> {
    const offset = from % this.#segmentSize;
    const end = [to - from, BigInt(CHUNK), this.#segmentSize - offset].reduce((a, b) => (a < b ? a : b));
    // A position at the very beginning of a file counts as the end of the one before.
    const within = formatLsn(lsn(from + 1n));
    const [[content]] = await this.#connection.query(`EXECUTE wal ('${within}', ${offset}, ${end})`);
    const bytes = Buffer.from(content ?? '', 'hex');
    if (BigInt(bytes.length) === end) return bytes;
    throw new PgError('58030', 'the WAL of a transaction that locked rows ends before the transaction does');
  }

  async #tables(xid: number): Promise<TableLock[]> {
    await handedOver(async () => (await this.#connection.query(`EXECUTE preparing ('${xid}')`)).length > 0);
    const rows = await this.#connection.query(`EXECUTE tables ('${xid}')`);
    return rows.map(([schema, table, mode]) => ({
      schema: schema ?? '',
      table: table ?? '',
      mode: TABLE_MODES.get(mode ?? '') ?? '',
    }));
  }

  /** The table that a file belongs to; undefined for what is not replicated, and for a table that this transaction has made. */
  async #describe({ file }: LockedFile): Promise<LockedTable | undefined> {
    const described = await this.#connection.query(`EXECUTE table_of_file (${file.tablespace}, ${file.node})`);
    if (described.length === 0) return undefined;
    const [schema, table, byKey, names] = described[0];
    const columns = JSON.parse(names ?? '[]') as string[];
    return { schema: schema ?? '', table: table ?? '', columns, byKey: byKey === 't' };
  }

  /**
   * The keys of locked rows, which nobody else can have changed since. A row that this transaction has made itself is not to be
   * seen from here, and nobody else knows it either.
   */
  async *#rows(target: LockedTable, { rows }: LockedFile, xids: ReadonlySet<number>): AsyncIterable<RowLocks> {
    for (const [strength, places] of await this.#byStrength(rows, xids)) {
      for (let at = 0; at < places.length; at += ROWS_AT_ONCE) {
        const found = await this.#keys(target, places.slice(at, at + ROWS_AT_ONCE));
        if (found.length > 0) yield { ...target, mode: MODES[strength], rows: found };
      }
    }
  }

  async #byStrength(rows: readonly RowLock[], xids: ReadonlySet<number>): Promise<Map<LockStrength, string[]>> {
    const places = new Map<LockStrength, string[]>();
    for (const { block, offset, lock } of rows) {
      const strength = 'strength' in lock ? lock.strength : await this.#memberStrength(lock.multixact, xids);
      if (strength === undefined) continue;
      const list = places.get(strength) ?? [];
      list.push(`"(${block},${offset})"`);
      places.set(strength, list);
    }
    return places;
  }

  /** The strongest of what these hold of a row that several transactions have locked. */
  async #memberStrength(multixact: number, xids: ReadonlySet<number>): Promise<LockStrength | undefined> {
    const members = await this.#connection.query(
      `SELECT xid, mode FROM pg_catalog.pg_get_multixact_members('${multixact}')`,
    );
    const own = members.filter(([xid]) => xids.has(Number(xid))).map(([, mode]) => MEMBER_MODES.get(mode ?? ''));
    return own.reduce((a, b) => (a === undefined || (b !== undefined && b > a) ? b : a), undefined);
  }

  #keys({ schema, table, columns }: LockedTable, places: readonly string[]): Promise<(Buffer | null)[][]> {
    const name = tableName({ schema, name: table });
    // Where it is by now: under FOR KEY SHARE others may have changed the row, all but its key.
    const sql = `SELECT ${columns.map(quote).join(', ')} FROM ONLY ${name}
      WHERE ctid = ANY (ARRAY (SELECT pg_catalog.currtid2(${literal(name)}, t)
        FROM pg_catalog.unnest('{${places.join(',')}}'::pg_catalog.tid[]) t))`;
    return new Promise((resolve, reject) => {
      const rows: (Buffer | null)[][] = [];
      this.#connection.request(new FrontendWriter(sql.length + 64).query(sql).take(), {
        message: (type, bytes, start, end) => {
          if (type === Backend.dataRow) rows.push(readDataRowBytes(bytes.subarray(start, end)));
        },
        done: (error) => (error === undefined ? resolve(rows) : reject(error)),
      });
    });
  }
}
