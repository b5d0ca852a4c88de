import { answered, refused } from '../context.ts';
import type { ClientText, Context, Procedure } from '../context.ts';
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

/** The bytes of its UTF-8 in hexadecimal: independent of client_encoding. */
const inUtf8 = (text: string): string => `pg_catalog.encode(pg_catalog.convert_to(${text}, 'UTF8'), 'hex')`;
const fromHex = (hex: string): string => Buffer.from(hex, 'hex').toString();

const STATE_SQL = `SELECT ${[
  'current_user::pg_catalog.text',
  'session_user::pg_catalog.text',
  ...SETTINGS.map((name) => `pg_catalog.current_setting('${name}', true)`),
]
  .map(inUtf8)
  .join(', ')}`;

const ENCODING_CHANGED = refused(
  'client_encoding has changed since the statement was prepared',
  'Prepare it again: the other nodes must read its text as this one did.',
);

/**
 * Before a schema statement: leaves its text, role and settings in the transaction's WAL, where the other nodes find it between
 * the row changes, and tells the event triggers that the statement about to come is known. Answers the error, if any.
 */
export function* announceDdl(context: Context, style: Style, text: ClientText): Procedure<Buffer | undefined> {
  const ascii = isAscii(text.bytes);
  const known = ascii || text.encoding === 'UTF8';
  // The client may have sent the change and the text in one go: which of the two encodings the server took it in is not known.
  const changed = !ascii && text.encoding !== context.link.encoding;
  const refusal = context.commits.refusal() ?? (changed ? ENCODING_CHANGED : undefined);
  if (refusal !== undefined) {
    context.hooks.count('refused');
    return errorResponse(refusal);
  }
  const state = known
    ? context.injectFixed(style, STATE_SQL)
    : context.inject(style, `${STATE_SQL}, ${inUtf8(asServerReads(text))}`);
  yield* answered(state);
  if (state.failed !== undefined) return failureOf(context, state.failed);
  const [role, sessionRole, ...values] = state.rows[0].map((value) => (value === null ? null : fromHex(value)));
  const settings: Record<string, string> = {};
  SETTINGS.forEach((name, i) => {
    const value = values[i];
    if (value !== null) settings[name] = value;
  });
  const { message, token } = context.ddl.announce(context.transactionName(), context.ordinal++, {
    statement: known ? text.bytes.toString() : (values[SETTINGS.length] ?? ''),
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

const isAscii = (bytes: Buffer): boolean => bytes.every((byte) => byte < 0x80);

/** What becomes of a text that a client sends: only the server knows all encodings. */
const asServerReads = ({ bytes, encoding }: ClientText): string =>
  `pg_catalog.convert_from(pg_catalog.decode('${bytes.toString('hex')}', 'hex'), ${literal(encoding)})`;

const END_SQL = `SELECT multimaster.shared_rows(), pg_catalog.set_config('multimaster.ddl', '', true), pg_catalog.pg_logical_emit_message(true, 'pgmm:end', '')`;

/**
 * After it: not every schema statement fires an event trigger, and the next one must be announced anew. And the other nodes must know which
 * changes of rows are the statement's own.
 */
export function* endDdl(context: Context, style: Style): Procedure {
  if (context.link.status !== 'T') return;
  const ended = context.injectFixed(style, END_SQL);
  yield* answered(ended);
  context.sharedRows = ended.rows.at(0)?.at(0) ?? undefined;
}
