import { Frontend } from '../../wire/codes.ts';
import { answered, refused, settled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import type { Style } from '../injected.ts';
import { InjectedSegment } from '../segments.ts';
import type { ClientSegment, Skip } from '../segments.ts';
import { askWhetherWritten, commitTransaction, failureOf, rollBack } from './commit.ts';

export interface WrappedMessage {
  /** A Query or a FunctionCall, unchanged. */
  readonly message: Buffer;
  readonly style: Style;
  /** It changes data if it runs: refused before it runs when writes can't be coordinated now. */
  readonly certain: boolean;
  /** The client will send CopyData. */
  readonly copyIn: boolean;
  /** It may lock rows or tables. */
  readonly locks: boolean;
  readonly skip?: Skip;
}

/**
 * An implicit transaction of the client's that may write, as one transaction of the session's: BEGIN, the client's message as it
 * is, and the question whether it wrote go out in one piece. The last CommandComplete waits for the outcome.
 */
export function* wrapped(context: Context, parts: WrappedMessage): Procedure {
  const { message, style, certain, copyIn, skip } = parts;
  yield* settled(context);
  const refusal = certain ? context.commits.refusal() : undefined;
  if (refusal !== undefined) {
    context.hooks.count('refused');
    context.sendError(refusal);
    context.sendReady();
    return;
  }
  context.hooks.count('wrapped');
  const begin = context.injectBegin(style);
  context.mayLock(parts.locks);
  const statement = context.clientSegment({ after: begin, skip });
  statement.closed = true;
  context.link.add(statement, message);
  // While it waits for CopyData the server would take the question for a protocol violation.
  const asked = copyIn ? undefined : askWhetherWritten(context, style);
  yield* withCopyData(context, statement);
  yield* concludeImplicit(context, style, { begin, statement, asked });
  context.sendReady();
}

/** Ends the transaction that `statement` ran in, and tells the client everything but ReadyForQuery. */
function* concludeImplicit(
  context: Context,
  style: Style,
  parts: { begin?: InjectedSegment; statement: ClientSegment | undefined; asked: InjectedSegment | undefined },
): Procedure {
  const { begin, statement, asked } = parts;
  if (asked !== undefined) yield* answered(asked);
  const failed = begin?.failed ?? statement?.failed;
  if (failed !== undefined) {
    if (begin?.failed !== undefined) context.client.push(failureOf(context, begin.failed));
    yield* rollBack(context, style);
    return;
  }
  if (context.link.status === 'I') {
    // Nothing that is wrapped can end a transaction block; if something does, it must not go unnoticed.
    context.hooks.log.error({ database: context.database }, 'a statement ended the transaction it was wrapped in');
  }
  const error = yield* commitTransaction(context, style, asked ?? askWhetherWritten(context, style));
  if (error === undefined) statement?.release();
  else context.client.push(error);
}

/** Lets the client's CopyData through until the statement is done. */
export function* withCopyData(context: Context, statement: ClientSegment): Procedure {
  const { stream, link } = context;
  while (!statement.done) {
    while (statement.copying && isCopyMessage(stream.peek()) && stream.next()) {
      link.toServer.range(stream.bytes, stream.start, stream.end);
      if (stream.type !== Frontend.copyData) statement.copying = false;
    }
    yield;
  }
}

function isCopyMessage(type: number | undefined): boolean {
  return type === Frontend.copyData || type === Frontend.copyDone || type === Frontend.copyFail;
}

/**
 * For several statements in one Query that the parser here does not understand: PostgreSQL may, in a later version, and one of them may be COMMIT. As
 * a Parse the text is checked and never run: a syntax error is reported as it would have been.
 */
export function* checkOnly(context: Context, check: Buffer): Procedure {
  yield* settled(context);
  const segment = context.link.add(new InjectedSegment(), check);
  yield* answered(segment);
  if (segment.failed === undefined)
    context.sendError(refused('the query is not understood', 'Send its statements one by one.'));
  else context.client.push(failureOf(context, segment.failed));
  context.sendReady();
}
