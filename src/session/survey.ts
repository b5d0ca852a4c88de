import { Frontend } from '../wire/codes.ts';
import { readBind, readExecute, readParse, readStatementName } from '../wire/frontend-fields.ts';
import type { Context } from './context.ts';
import { announceParse } from './parse-message.ts';
import { PassSegment } from './segments.ts';
import type { Prepared } from './statements.ts';

/** A batch that can be passed on whole: a range of the client's stream, and the segment it makes. */
interface Whole {
  readonly segment: PassSegment;
  readonly bytes: Buffer;
  readonly start: number;
  readonly end: number;
}

/**
 * Looks at an extended-protocol batch outside a block before anything of it is sent. It can be passed on when it is there up to its Sync
 * and runs nothing but reads and statements that concern this session only. Without a Sync it may still come, up to
 * `limit` bytes; a Flush means that the client waits.
 */
function batch(context: Context, limit: number): Whole | 'wait' | 'attend' {
  const { stream, link } = context;
  const segment = new PassSegment(true);
  let from = -1;
  const found: { whole?: Whole; harm?: true } = {};
  stream.lookAhead((type, bytes, start, end) => {
    if (from < 0) from = start;
    if (type === Frontend.sync) {
      const keep = !link.clientReadOnly && end - from <= limit;
      segment.retained = keep ? bytes.subarray(from, end) : undefined;
      segment.closed = true;
      found.whole = { segment, bytes, start: from, end };
      return true;
    }
    if (!isHarmless(context, segment, type, bytes, start, end)) found.harm = true;
    return found.harm === true;
  });
  if (found.whole !== undefined) return found.whole;
  // What was announced on the way is announced again by whoever takes the batch message by message.
  for (const prepared of segment.parses) context.statements.withdraw(prepared);
  return found.harm === undefined && stream.buffered < limit ? 'wait' : 'attend';
}

function isHarmless(
  context: Context,
  segment: PassSegment,
  type: number,
  bytes: Buffer,
  start: number,
  end: number,
): boolean {
  const { statements } = context;
  // What comes behind such a statement is read at the new level.
  if (segment.setsReads && type !== Frontend.close) return false;
  switch (type) {
    case Frontend.parse: {
      const { prepared, replacement } = announceParse(context, bytes, start, end);
      segment.parses.push(prepared);
      return replacement === undefined;
    }
    case Frontend.bind: {
      const names = readBind(bytes, start, end);
      statements.bind(names?.portal ?? '', statements.find(names?.statement ?? ''), bytes, start, end);
      return true;
    }
    case Frontend.execute: {
      const prepared = statements.portal(readExecute(bytes, start, end));
      segment.executes.push(prepared);
      segment.setsReads = prepared.setsReads;
      return isPassable(prepared);
    }
    case Frontend.close:
      segment.closes.push(readStatementName(bytes, start, end));
      return true;
    case Frontend.describe:
      return true;
    default:
      return false;
  }
}

function isPassable({ kind }: Prepared): boolean {
  switch (kind.type) {
    case 'read':
      return true;
    case 'local':
      return kind.forgets.what === 'nothing';
    default:
      return false;
  }
}

/** Remembers the texts of a batch, or of a Query, that was refused by read-only mode. */
function learn(context: Context, retained: Buffer): void {
  if (retained[0] === Frontend.query) {
    context.classifier.learnWriting(retained, 5, retained.length - 1);
    return;
  }
  for (let at = 0; at + 5 <= retained.length; at += 1 + retained.readUInt32BE(at + 1)) {
    if (retained[at] !== Frontend.parse) continue;
    const fields = readParse(retained, at, retained.length);
    if (fields !== undefined) context.classifier.learnWriting(retained, fields.textStart, fields.textEnd);
  }
}

export const survey = { batch, learn };
