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
