import type { LogIndex } from '../../runtime/ids.ts';
import type { ConnectionOptions, ServerConnection } from '../../wire/connection.ts';
import { quote } from '../../runtime/sql-text.ts';
import type { HeldLook } from '../local-replica.ts';
import { connectForText } from '../text-settings.ts';
import { readEmptyTables, readTables, type SourceTable } from './contents.ts';

export interface CutOptions {
  /** Without database and application name. */
  readonly server: Omit<ConnectionOptions, 'database' | 'applicationName'>;
  readonly databases: readonly string[];
  /** See LocalReplica.holdCommits. */
  readonly hold: <T>(limit: number, look: () => Promise<T>) => Promise<HeldLook<T>>;
}

/** A database as it was in the moment of the cut. */
export interface CutDatabase {
  readonly name: string;
  /** In a transaction with that snapshot. */
  readonly reader: ServerConnection;
  readonly snapshot: string;
  /** In the order in which they are to be read. */
  readonly tables: readonly SourceTable[];
}

export interface Cut {
  readonly index: LogIndex;
  readonly databases: readonly CutDatabase[];
}

/**
 * The sessions that read a copy. Not a name that a replay spares: one that needs a table which is being read ends the session (LocalReplica), and with it the
 * copy, as a donor's work comes first.
 */
export const READER = 'pgmm_copy';

/** Milliseconds for which clients' commits may be held back, and for which a lock may be waited for within them. */
const HOLD_LIMIT = 1000;
const LOCK_TIMEOUT = 300;
const ATTEMPTS = 20;
const PAUSE = 500;

/**
 * One snapshot of each database, all of the same moment, between two commits. A snapshot does not tell what became of a table that was
 * truncated or rewritten since, so every table is locked within that moment, against nothing but such changes. Tried again where it takes too long; rejects with
 * the last reason.
 */
export async function takeCut(options: CutOptions): Promise<Cut> {
  for (let left = ATTEMPTS; ; left--) {
    const readers: ServerConnection[] = [];
    try {
      for (const database of options.databases) readers.push(await connect(options.server, database));
      const { index, found } = await options.hold(HOLD_LIMIT, () =>
        Promise.all(readers.map((reader, at) => begin(reader, options.databases[at]))),
      );
      return { index, databases: found };
    } catch (error) {
      for (const reader of readers) reader.destroy();
      const { message } = error as Error;
      if (left <= 1)
        throw new Error(`no moment could be had for a snapshot of all databases: ${message}`, { cause: error });
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

/** A reader waits for whoever takes the copy, for as long as that may be. */
function connect(server: CutOptions['server'], database: string): Promise<ServerConnection> {
  return connectForText({
    ...{ ...server, database, applicationName: READER },
    settings: {
      ...{ lock_timeout: `${LOCK_TIMEOUT}ms`, row_security: 'off' },
      ...{ statement_timeout: '0', idle_in_transaction_session_timeout: '0' },
    },
  });
}

async function begin(reader: ServerConnection, name: string): Promise<CutDatabase> {
  await reader.query('BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY');
  const [[snapshot]] = await reader.query('SELECT pg_catalog.pg_export_snapshot()');
  const tables = await readTables(reader);
  await reader.query(lockStatements(tables, await readEmptyTables(reader)).join(';'));
  return { name, reader, snapshot: snapshot ?? '', tables };
}

/**
 * Each lock behind a savepoint, so that it can be given back when the table was read: the one that is read last comes first. Tables that are copied
 * without rows come at the end, since they are needed only until the schema is dumped.
 */
export function lockStatements(tables: readonly SourceTable[], empty: readonly string[]): string[] {
  const lock = (table: string) => `LOCK TABLE ONLY ${table} IN ACCESS SHARE MODE`;
  const locks = tables.map((table, at) => [
    `SAVEPOINT ${savepoint(at)}`,
    ...(table.isLockable ? [lock(`${quote(table.schema)}.${quote(table.name)}`)] : []),
  ]);
  return [...locks.reverse().flat(), `SAVEPOINT ${SCHEMA}`, ...empty.map(lock)];
}

const SCHEMA = 'schema';
const savepoint = (at: number): string => `table_${at}`;

/** The schema is dumped: what is not read need not stay as it is. */
export async function releaseSchema({ reader }: CutDatabase): Promise<void> {
  await reader.query(`ROLLBACK TO ${SCHEMA}`);
}

/** The table is read, and may be changed in any way. Tables must be released in their order. */
export async function releaseTable({ reader }: CutDatabase, at: number): Promise<void> {
  await reader.query(`ROLLBACK TO ${savepoint(at)}`);
}
