import type { Context } from './context.ts';

/**
 * Names of functions whose effects outlive the rollback of a prepared transaction: advisory locks of the session, settings of the session (PREPARE
 * TRANSACTION makes them final), and what is done over another connection.
 */
const OUTLIVES_ROLLBACK = /advisory|set_config|dblink/i;

/**
 * Whether a text, which is a single query, may be run again after a conflict. What a function hides can't be seen here: it happens once in
 * each attempt, as it would if the client tried again.
 */
export function isRepeatable(context: Context, bytes: Buffer, start: number, end: number): boolean {
  if (context.statementRetries === 0 || end - start > context.retryBytes) return false;
  return !OUTLIVES_ROLLBACK.test(bytes.toString('latin1', start, end));
}
