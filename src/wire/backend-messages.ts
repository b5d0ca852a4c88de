import { PgError } from '../runtime/errors.ts';
import { Backend } from './codes.ts';
import type { TransactionStatus } from './codes.ts';

/** Reads the zero-terminated string at `at`; undefined when it does not end before `limit`. */
export function cstringEnd(bytes: Buffer, at: number, limit: number): number | undefined {
  const end = bytes.indexOf(0, at);
  return end < 0 || end >= limit ? undefined : end;
}

/** The fields of an ErrorResponse or NoticeResponse by their one-letter codes. */
export function readErrorFields(message: Buffer): Partial<Record<string, string>> {
  const fields: Partial<Record<string, string>> = {};
  let at = 5;
  while (at < message.length && message[at] !== 0) {
    const end = cstringEnd(message, at + 1, message.length);
    if (end === undefined) break;
    fields[String.fromCharCode(message[at])] = message.toString('utf8', at + 1, end);
    at = end + 1;
  }
  return fields;
}

/** Only the SQLSTATE, without making strings of the rest. */
export function readSqlState(message: Buffer): string {
  let at = 5;
  while (at < message.length && message[at] !== 0) {
    const end = cstringEnd(message, at + 1, message.length);
    if (end === undefined) break;
    if (message[at] === 0x43) return message.toString('latin1', at + 1, end);
    at = end + 1;
  }
  return '';
}

/** S is localised, V (since 9.6) is not: FATAL and PANIC end the connection. */
export function isFatal(fields: Readonly<Partial<Record<string, string>>>): boolean {
  const severity = fields['V'] ?? fields['S'] ?? '';
  return severity === 'FATAL' || severity === 'PANIC';
}

export function readError(message: Buffer): PgError {
  const { S, V, C, M, D, H, P, ...fields } = readErrorFields(message);
  return new PgError(C ?? 'XX000', M ?? '', {
    severity: V ?? S ?? 'ERROR',
    detail: D,
    hint: H,
    position: P === undefined ? undefined : Number(P),
    fields: fields as Record<string, string>,
  });
}

function errorLike(type: number, fields: readonly (readonly [string, string | undefined])[]): Buffer {
  const body = fields.filter(([, value]) => value !== undefined).map(([code, value]) => `${code}${value ?? ''}\0`);
  return message(type, Buffer.from(`${body.join('')}\0`, 'utf8'));
}

/** "ErrorResponse". Text is UTF-8: what this program says itself is ASCII. */
export function errorResponse(error: PgError): Buffer {
  return errorLike(Backend.error, errorFields(error));
}

/** "NoticeResponse" with a severity of its own. */
export function noticeResponse(notice: PgError): Buffer {
  return errorLike(Backend.notice, errorFields(notice));
}

function errorFields(error: PgError): [string, string | undefined][] {
  return [
    ['S', error.severity],
    ['V', error.severity],
    ['C', error.sqlstate],
    ['M', error.message],
    ['D', error.detail],
    ['H', error.hint],
    ['P', error.position === undefined ? undefined : String(error.position)],
    ...Object.entries(error.fields),
  ];
}

/**
 * Changes some fields of an ErrorResponse and leaves the bytes of all others alone: their encoding is the client's. An
 * undefined result of `change` keeps the field; fields in `add` come last unless they are there already.
 */
export function editError(
  original: Buffer,
  change: (code: string, value: string) => string | undefined,
  add: Readonly<Record<string, string>> = {},
): Buffer {
  const parts: Buffer[] = [];
  const seen = new Set<string>();
  let at = 5;
  while (at < original.length && original[at] !== 0) {
    const end = cstringEnd(original, at + 1, original.length);
    if (end === undefined) break;
    const code = String.fromCharCode(original[at]);
    seen.add(code);
    const value = change(code, original.toString('latin1', at + 1, end));
    parts.push(value === undefined ? original.subarray(at, end + 1) : Buffer.from(`${code}${value}\0`, 'latin1'));
    at = end + 1;
  }
  for (const [code, value] of Object.entries(add)) if (!seen.has(code)) parts.push(Buffer.from(`${code}${value}\0`));
  return message(Backend.error, Buffer.concat([...parts, Buffer.from([0])]));
}

export function readParameterStatus(message: Buffer): { name: string; value: string } {
  const [name = '', value = ''] = message.toString('latin1', 5, message.length - 1).split('\0');
  return { name, value };
}

export function parameterStatus(name: string, value: string): Buffer {
  return message(Backend.parameterStatus, Buffer.from(`${name}\0${value}\0`, 'latin1'));
}

export function readReady(message: Buffer): TransactionStatus {
  return String.fromCharCode(message[5]) as TransactionStatus;
}

const READY = {
  I: message(Backend.ready, Buffer.from('I')),
  T: message(Backend.ready, Buffer.from('T')),
  E: message(Backend.ready, Buffer.from('E')),
};

export function readyForQuery(status: TransactionStatus): Buffer {
  return READY[status];
}

export function commandComplete(tag: string): Buffer {
  return message(Backend.commandComplete, Buffer.from(`${tag}\0`, 'latin1'));
}

/** "BackendKeyData": the process id and the cancel key, 4 bytes in protocol 3.0, up to 256 in 3.2. */
export function readBackendKey(message: Buffer): { pid: number; key: Buffer } {
  return { pid: message.readInt32BE(5), key: Buffer.from(message.subarray(9)) };
}

const TEXT_OID = 25;

/** "RowDescription" of one text column and "DataRow" of its value: what SHOW answers. */
export function textRow(column: string, value: string): { description: Buffer; row: Buffer } {
  const tail = Buffer.alloc(18);
  tail.writeInt32BE(TEXT_OID, 6);
  tail.writeInt16BE(-1, 10);
  tail.writeInt32BE(-1, 12);
  const description = message(
    Backend.rowDescription,
    Buffer.concat([Buffer.from([0, 1]), Buffer.from(`${column}\0`), tail]),
  );
  const text = Buffer.from(value);
  const head = Buffer.alloc(6);
  head.writeInt16BE(1, 0);
  head.writeInt32BE(text.length, 2);
  return { description, row: message(Backend.dataRow, Buffer.concat([head, text])) };
}

/** The values of a DataRow in text format; null for SQL NULL. */
export function readDataRow(message: Buffer): (string | null)[] {
  return dataRow(message, (start, end) => message.toString('utf8', start, end));
}

/** The same for text that need not be UTF-8; copies. */
export function readDataRowBytes(message: Buffer): (Buffer | null)[] {
  return dataRow(message, (start, end) => Buffer.from(message.subarray(start, end)));
}

function dataRow<Value>(message: Buffer, read: (start: number, end: number) => Value): (Value | null)[] {
  const values: (Value | null)[] = [];
  const count = message.readInt16BE(5);
  let at = 7;
  for (let i = 0; i < count; i++) {
    const length = message.readInt32BE(at);
    at += 4;
    values.push(length < 0 ? null : read(at, at + length));
    at += Math.max(length, 0);
  }
  return values;
}

function message(type: number, body: Buffer): Buffer {
  const bytes = Buffer.allocUnsafe(5 + body.length);
  bytes[0] = type;
  bytes.writeUInt32BE(4 + body.length, 1);
  body.copy(bytes, 5);
  return bytes;
}
