import type { Context } from './context.ts';
import { judgeParse } from './judge.ts';
import { parseMessage } from './injected.ts';
import { isRepeatable } from './repeatable.ts';
import { asks } from './questions.ts';
import { UNKNOWN, type Prepared } from './statements.ts';
import { readParse } from '../wire/frontend-fields.ts';
import { withDenials } from '../sql/advisory.ts';
import { changesReads } from '../sql/kinds.ts';

/**
 * Judges a Parse and remembers the statement under its name. BEGIN is prepared as READ WRITE, since the server's default is
 * the other way round; SHOW of the hidden setting as a query for the client's value. `replacement` is then sent instead.
 */
export function announceParse(
  context: Context,
  bytes: Buffer,
  start: number,
  end: number,
): { prepared: Prepared; replacement: Buffer | undefined } {
  const fields = readParse(bytes, start, end);
  if (fields === undefined) return { prepared: UNKNOWN, replacement: undefined };
  const { name, nameEnd, textStart, textEnd } = fields;
  const { kind, text, locks, query, setsReads } = judgeParse(context, bytes, textStart, textEnd);
  const prepared: Prepared = {
    ...{ name, kind, text: kind.type === 'ddl' ? context.clientText(text ?? '') : undefined },
    locks,
    asks: asks(bytes, textStart, textEnd),
    setsReads: setsReads === true || changesReads(kind),
    ...(kind.type === 'lock' && { parameterTypes: Buffer.from(bytes.subarray(textEnd + 1, end)) }),
    repeatable: query && setsReads !== true && isRepeatable(context, bytes, textStart, textEnd),
  };
  context.statements.announce(prepared);
  const instead = replacementText(context, prepared, text);
  if (instead === undefined) return { prepared, replacement: undefined };
  const replacement = parseMessage(
    bytes.subarray(start + 5, nameEnd),
    context.encode(instead),
    bytes.subarray(textEnd + 1, end),
  );
  return { prepared, replacement };
}

function replacementText(context: Context, { kind }: Prepared, text: string | undefined): string | undefined {
  if (kind.type === 'lock')
    return kind.locks.calls.some(({ effect }) => effect === 'try') ? withDenials(text ?? '', kind.locks) : undefined;
  if (kind.type === 'begin') return kind.readWrite;
  if (kind.type !== 'show-read-only' || kind.name !== 'default_transaction_read_only') return undefined;
  return `SELECT '${context.link.clientReadOnly ? 'on' : 'off'}'::pg_catalog.text AS ${kind.name}`;
}
