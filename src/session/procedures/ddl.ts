import { answered } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { literal } from '../../runtime/sql-text.ts';
import type { Style } from '../injected.ts';
import { errorResponse } from '../../wire/backend-messages.ts';
import { failureOf, WITH_SHARED_OBJECTS } from './commit.ts';

/** Settings that change what a schema statement means or makes. */
const SETTINGS = [
  ...['search_path', 'check_function_bodies', 'default_table_access_method', 'default_toast_compression', 'xmloption'],
  ...['DateStyle', 'IntervalStyle', 'TimeZone', 'standard_conforming_strings', 'quote_all_identifiers', 'xmlbinary'],
  ...['bytea_output', 'extra_float_digits', 'lc_monetary', 'lc_numeric', 'lc_time', 'default_text_search_config'],
];

const STATE_SQL = `SELECT ${[
  'current_user::pg_catalog.text',
  'session_user::pg_catalog.text',
  ...SETTINGS.map((name) => `pg_catalog.current_setting('${name}', true)`),
].join(', ')}`;

/**
 * Before a schema statement: leaves its text, role and settings in the transaction's WAL, where the other nodes find it between
 * the row changes, and tells the event triggers that the statement about to come is known. Answers the error, if any.
 */
export function* announceDdl(context: Context, style: Style, statement: string): Procedure<Buffer | undefined> {
  const refusal = context.commits.refusal();
  if (refusal !== undefined) {
    context.hooks.count('refused');
    return errorResponse(refusal);
  }
  const state = context.injectFixed(style, STATE_SQL);
  yield* answered(state);
  if (state.failed !== undefined) return failureOf(context, state.failed);
  const [role, sessionRole, ...values] = state.rows[0];
  const settings: Record<string, string> = {};
  SETTINGS.forEach((name, i) => {
    const value = values[i];
    if (value !== null) settings[name] = value;
  });
  const { message, token } = context.ddl.announce(context.transactionName(), context.ordinal++, {
    statement,
    role: role ?? '',
    sessionRole: sessionRole ?? '',
    settings,
  });
  // Hexadecimal: independent of client_encoding and of standard_conforming_strings.
  const content = Buffer.from(message).toString('hex');
  const announced = context.inject(
    style,
    `SELECT pg_catalog.pg_logical_emit_message(true, 'pgmm:ddl', pg_catalog.decode('${content}', 'hex')), pg_catalog.set_config('multimaster.ddl', ${literal(token)}, true), multimaster.changed_shared_objects(${context.sharedRows ?? 'NULL'})`,
  );
  yield* answered(announced);
  if (announced.failed !== undefined) return failureOf(context, announced.failed);
  // After the statement nobody could tell any more whether something before it had.
  if (announced.rows[0].at(2) === 't') {
    context.hooks.count('refused');
    return errorResponse(WITH_SHARED_OBJECTS);
  }
  context.stand();
  return undefined;
}

/** After it: not every schema statement fires an event trigger, and the next one must be announced anew. */
export function* endDdl(context: Context, style: Style): Procedure {
  if (context.link.status !== 'T') return;
  const ended = context.injectFixed(
    style,
    "SELECT pg_catalog.set_config('multimaster.ddl', '', true), multimaster.shared_rows()",
  );
  yield* answered(ended);
  context.sharedRows = ended.rows.at(0)?.at(1) ?? undefined;
}
