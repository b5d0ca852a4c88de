import { literal } from '../runtime/sql-text.ts';
import { Frontend } from '../wire/codes.ts';

/**
 * Statements that the session sends of its own accord. In answer to a client's Query they are Queries as well. Between
 * extended-protocol messages they must not be: a Query destroys the unnamed statement, which is the client's ("Extended Query"). There they use
 * one reserved name, closed before and after, so that it does not matter whether the client ran DISCARD ALL in between or
 * an error left it behind.
 */
export type Style = 'simple' | 'extended';

const NAME = '_pgmm';

function message(type: number, ...parts: readonly (string | Buffer)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(`${part}\0`, 'utf8') : part)));
  const head = Buffer.alloc(5);
  head[0] = type;
  head.writeUInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const NO_PARAMETERS = Buffer.from([0, 0]);
const BIND = message(Frontend.bind, NAME, NAME, Buffer.alloc(6));
const EXECUTE = message(Frontend.execute, NAME, Buffer.alloc(4));
const CLOSE = Buffer.concat([message(Frontend.close, `P${NAME}`), message(Frontend.close, `S${NAME}`)]);

export const SYNC = message(Frontend.sync);
export const COPY_FAIL = message(Frontend.copyFail, 'the transaction was rolled back');

/** A text that is not UTF-8 comes as bytes. */
const terminated = (sql: Buffer | string): (Buffer | string)[] =>
  typeof sql === 'string' ? [sql] : [sql, Buffer.from([0])];

export function queryMessage(sql: Buffer | string): Buffer {
  return message(Frontend.query, ...terminated(sql));
}

/** A Parse of the client's with another text; what follows the text (the parameter types) stays. */
export function parseMessage(name: Buffer, sql: Buffer, rest: Buffer): Buffer {
  return message(Frontend.parse, ...terminated(name), ...terminated(sql), rest);
}

/** Closes a statement of the client's, encoded as its name was read. */
export function closeStatement(name: string): Buffer {
  return message(Frontend.close, Buffer.from(`S${name}\0`, 'latin1'));
}

const remembered = new Map<string, Buffer>();

/** Answered with exactly one ReadyForQuery in both styles. */
export function statement(style: Style, sql: Buffer | string): Buffer {
  if (style === 'simple') return queryMessage(sql);
  const parse = message(Frontend.parse, NAME, ...terminated(sql), NO_PARAMETERS);
  return Buffer.concat([CLOSE, parse, BIND, EXECUTE, CLOSE, SYNC]);
}

/** In the extended protocol, with parameters. */
export function statementWith(
  sql: Buffer,
  types: readonly number[],
  parameters: readonly { readonly binary: boolean; readonly value: Buffer | undefined }[],
): Buffer {
  const shorts = (...values: number[]): Buffer =>
    Buffer.concat(values.map((value) => Buffer.from([value >> 8, value & 255])));
  const int = (value: number): Buffer => {
    const bytes = Buffer.alloc(4);
    bytes.writeInt32BE(value | 0);
    return bytes;
  };
  const parse = message(Frontend.parse, NAME, ...terminated(sql), shorts(types.length), ...types.map(int));
  const values = parameters.flatMap(({ value }) => (value === undefined ? [int(-1)] : [int(value.length), value]));
  const formats = shorts(parameters.length, ...parameters.map(({ binary }) => (binary ? 1 : 0)));
  const bind = message(Frontend.bind, NAME, NAME, formats, shorts(parameters.length), ...values, shorts(0));
  return Buffer.concat([CLOSE, parse, bind, EXECUTE, CLOSE, SYNC]);
}

/** For the few texts that never change. */
export function fixedStatement(style: Style, sql: string): Buffer {
  const key = `${style} ${sql}`;
  const known = remembered.get(key);
  if (known !== undefined) return known;
  const bytes = statement(style, sql);
  remembered.set(key, bytes);
  return bytes;
}

/** Parse alone, without naming anything the client has: what a text that must not be run is checked with. */
export function parseOnly(sql: Buffer): Buffer {
  return Buffer.concat([CLOSE, message(Frontend.parse, NAME, ...terminated(sql), NO_PARAMETERS), CLOSE, SYNC]);
}

/**
 * Fails wherever it is run, without a snapshot and without any object: PostgreSQL logs it with this name. Puts a
 * transaction into the failed state.
 */
export const FAIL = 'ROLLBACK TO SAVEPOINT "refused by multimaster"';

/** What the first column of the answer says instead of the position: multimaster.unseen_change. */
export const LARGE_OBJECTS = 'large objects';
export const SHARED_OBJECTS = 'shared objects';
/** What it says where nothing was written so far, but a cursor's query may write at COMMIT. */
export const HOLDABLE_CURSOR = 'holdable cursor';

/** Savepoints end before the query of such a cursor runs, and give the transaction back the mode that it had before them. */
const HOLDS_CURSOR = `EXISTS (SELECT FROM pg_catalog.pg_cursors WHERE is_holdable AND creation_time >= pg_catalog.transaction_timestamp())`;

/** Behind the question for the mode that the transaction has had so far. */
const FROM_NOW_ON_READ_ONLY = `CASE WHEN pg_catalog.pg_current_xact_id_if_assigned() IS NULL THEN pg_catalog.set_config('transaction_read_only', 'on', true) END`;

/**
 * Asks whether the transaction wrote (facts: no transaction id means no), and if so leaves the gid in its WAL, since a prepared
 * transaction may otherwise decode to nothing. Then the commit level and the
 * isolation level. Where nothing was written nothing may be from here on: COMMIT runs the query of a cursor WITH HOLD that was not
 * fetched to its end. Built-ins only, whatever the search_path. `announced`: see Context.sharedRows; `savepoints`: there may be some.
 * `last`: an expression for one more column.
 */
export function probeSql(
  gid: string,
  options: { chain: boolean; announced: string | undefined; savepoints: boolean; last: string | undefined },
): string {
  const { chain, announced, savepoints, last } = options;
  const modes = ['transaction_read_only', 'transaction_deferrable'];
  const settings = ['synchronous_commit', 'transaction_isolation', ...(chain ? modes : [])];
  return `SELECT CASE WHEN pg_catalog.pg_current_xact_id_if_assigned() IS NOT NULL THEN coalesce(multimaster.unseen_change(${announced ?? 'NULL'}), pg_catalog.pg_logical_emit_message(true, 'pgmm:gid', ${literal(gid)})::pg_catalog.text) ${savepoints ? `WHEN ${HOLDS_CURSOR} THEN ${literal(HOLDABLE_CURSOR)} ` : ''}END, ${settings
    .map((name) => `pg_catalog.current_setting('${name}')`)
    .join(', ')}, ${FROM_NOW_ON_READ_ONLY}${last === undefined ? '' : `, ${last}`}`;
}
