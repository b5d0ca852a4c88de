import { cstringEnd } from './backend-messages.ts';

/** Reads the names that lead the extended-protocol messages. Undefined where a message is malformed: the server will say so. */

/** Parse: statement name, query text (as a range), and what follows it. */
export function readParse(
  bytes: Buffer,
  start: number,
  end: number,
): { name: string; nameEnd: number; textStart: number; textEnd: number } | undefined {
  const nameEnd = cstringEnd(bytes, start + 5, end);
  if (nameEnd === undefined) return undefined;
  const textEnd = cstringEnd(bytes, nameEnd + 1, end);
  if (textEnd === undefined) return undefined;
  return { name: latin1(bytes, start + 5, nameEnd), nameEnd, textStart: nameEnd + 1, textEnd };
}

/** Bind: portal and statement. */
export function readBind(bytes: Buffer, start: number, end: number): { portal: string; statement: string } | undefined {
  const portalEnd = cstringEnd(bytes, start + 5, end);
  if (portalEnd === undefined) return undefined;
  const statementEnd = cstringEnd(bytes, portalEnd + 1, end);
  if (statementEnd === undefined) return undefined;
  return { portal: latin1(bytes, start + 5, portalEnd), statement: latin1(bytes, portalEnd + 1, statementEnd) };
}

/** What follows the text in a Parse: the types that the client gives its parameters, 0 for none. */
export function readParameterTypes(bytes: Buffer): number[] {
  if (bytes.length < 2) return [];
  const count = Math.min(bytes.readUInt16BE(0), (bytes.length - 2) >> 2);
  return Array.from({ length: count }, (_, i) => bytes.readUInt32BE(2 + 4 * i));
}

/** The parameters of a whole Bind message; undefined for NULL. */
export function readParameters(bind: Buffer): { binary: boolean; value: Buffer | undefined }[] {
  const portalEnd = cstringEnd(bind, 5, bind.length) ?? bind.length;
  let at = (cstringEnd(bind, portalEnd + 1, bind.length) ?? bind.length) + 1;
  const formats = Array.from({ length: bind.readUInt16BE(at) }, (_, i) => bind.readUInt16BE(at + 2 + 2 * i));
  at += 2 + 2 * formats.length;
  const count = bind.readUInt16BE(at);
  at += 2;
  return Array.from({ length: count }, (_, i) => {
    const length = bind.readInt32BE(at);
    const value = length < 0 ? undefined : bind.subarray(at + 4, at + 4 + length);
    at += 4 + Math.max(length, 0);
    return { binary: (formats.length === 1 ? formats[0] : (formats[i] ?? 0)) === 1, value };
  });
}

/** Execute: portal. */
export function readExecute(bytes: Buffer, start: number, end: number): string {
  const portalEnd = cstringEnd(bytes, start + 5, end) ?? end;
  return latin1(bytes, start + 5, portalEnd);
}

/** Close and Describe: the statement's name; undefined for a portal. */
export function readStatementName(bytes: Buffer, start: number, end: number): string | undefined {
  if (bytes[start + 5] !== 0x53) return undefined;
  return latin1(bytes, start + 6, cstringEnd(bytes, start + 6, end) ?? end);
}

/** Most names are empty. */
function latin1(bytes: Buffer, start: number, end: number): string {
  return start === end ? '' : bytes.toString('latin1', start, end);
}
