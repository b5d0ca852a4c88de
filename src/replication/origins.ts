import pg from 'pg';
import type { ControlClient } from './control-client.ts';
import { PgError } from '../runtime/errors.ts';
import { literal } from '../runtime/sql-text.ts';
import type { ServerConnection } from '../wire/connection.ts';

/** Every connection of this program's own says so in its application_name; nobody else's backend is ever ended. */
export const APPLICATION_NAME = 'pgmm';

const OBJECT_IN_USE = '55006';
const UNIQUE_VIOLATION = '23505';
const ATTEMPTS = 50;
const PAUSE = 100;

/**
 * Ends a backend that an earlier run of this program left behind, which still holds an origin or a slot. Only if it is this
 * program's: the error names the process.
 */
async function endLeftover(control: ControlClient, error: Error): Promise<void> {
  const pid = /PID (\d+)/.exec(error.message)?.[1];
  if (pid === undefined) return;
  await control.ask(
    `SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity
     WHERE pid = $1::pg_catalog.int4 AND application_name LIKE '${APPLICATION_NAME}%'`,
    [pid],
  );
}

/** Tries until nothing of an earlier run stands in the way any more. Rejects with the last error after five seconds. */
export async function takeOver<T>(control: ControlClient, attempt: () => Promise<T>): Promise<T> {
  for (let left = ATTEMPTS; ; left--) {
    try {
      return await attempt();
    } catch (error) {
      if (sqlstateOf(error) !== OBJECT_IN_USE || left === 0) throw error;
      await endLeftover(control, error as Error);
      await new Promise((resolve) => setTimeout(resolve, PAUSE));
    }
  }
}

/** Of an error from either kind of connection. */
function sqlstateOf(error: unknown): string | undefined {
  if (error instanceof PgError) return error.sqlstate;
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

/** Creates the origin if it's missing and makes it this session's. */
export async function holdOrigin(connection: ServerConnection, control: ControlClient, origin: string): Promise<void> {
  const name = literal(origin);
  try {
    await connection.query(
      `SELECT pg_catalog.pg_replication_origin_create(${name}) WHERE pg_catalog.pg_replication_origin_oid(${name}) IS NULL`,
    );
  } catch (error) {
    // Another session may have created it meanwhile.
    if (sqlstateOf(error) !== UNIQUE_VIOLATION) throw error;
  }
  await takeOver(control, () => connection.query(`SELECT pg_catalog.pg_replication_origin_session_setup(${name})`));
}
