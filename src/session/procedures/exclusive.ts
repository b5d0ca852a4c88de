import type { PgError } from '../../runtime/errors.ts';
import { errorResponse, readSqlState } from '../../wire/backend-messages.ts';
import { answered } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { queryMessage } from '../injected.ts';
import type { ClientSegment } from '../segments.ts';
import { askWhetherWritten, commitTransaction, rollBack, takeAbort } from './commit.ts';
import type { CommitError } from './commit.ts';
import { announceDdl, endDdl } from './ddl.ts';

/** A statement that locks whole tables, alone in its Query. */
export interface ExclusiveStatement {
  readonly text: string;
  /** Characters of the Query before it. */
  readonly offset: number;
  /** Replayed as a statement; TRUNCATE is not. */
  readonly isDdl: boolean;
  /** It may lock rows or other tables as well. */
  readonly locks: boolean;
}

/** Tries, the first one included. Who lost keeps its priority, so each further try has fewer transactions to lose to. */
const TRIES = 10;

const LOCK_TIMEOUT = `SELECT 1000 * pg_catalog.date_part('epoch', pg_catalog.current_setting('lock_timeout')::pg_catalog.interval)`;

type Attempt = { readonly done: true } | { readonly done: false; readonly lost: Buffer };

/**
 * A statement that locks whole tables, as an implicit transaction. On one server it would wait until nobody writes there any more. Here it
 * loses to older transactions of other nodes that have yet to be replayed; as its client has heard nothing by then, it is run
 * again, with the priority that it had, for as long as its lock_timeout would have let it wait. Everything but ReadyForQuery is sent.
 */
export function* exclusive(context: Context, statement: ExclusiveStatement): Procedure {
  const began = performance.now();
  let patience = Infinity;
  for (let tries = 1; ; tries++) {
    const attempt = yield* attemptOnce(context, statement);
    if (attempt.done) return;
    if (tries === 1) patience = yield* lockTimeout(context);
    if (tries === TRIES || context.serverLost || performance.now() - began > patience) {
      context.client.push(attempt.lost);
      return;
    }
    context.hooks.count('repeated');
  }
}

/** Milliseconds. */
function* lockTimeout(context: Context): Procedure<number> {
  const asked = context.injectFixed('simple', LOCK_TIMEOUT);
  yield* answered(asked);
  return Number(asked.rows.at(0)?.at(0) ?? 0) || Infinity;
}

function* attemptOnce(context: Context, statement: ExclusiveStatement): Procedure<Attempt> {
  context.injectBegin('simple');
  context.mayLock(statement.locks);
  const error = yield* begin(context, statement);
  if (context.aborted !== undefined) return yield* lose(context);
  if (error !== undefined) {
    yield* rollBack(context, 'simple');
    context.client.push(error);
    return { done: true };
  }
  const segment = context.clientSegment({ offset: statement.offset, repeatable: true });
  segment.closed = true;
  context.link.add(segment, queryMessage(context.encode(statement.text)));
  yield* answered(segment);
  if (segment.failed === undefined && statement.isDdl) yield* endDdl(context, 'simple');
  // The commit sees to a loss that did not hit the statement itself.
  if (segment.failed === undefined) return yield* commit(context, segment);
  if (segment.withheld) return yield* lose(context);
  // An error of its own, which the client has been told, whatever it lost besides.
  yield* rollBack(context, 'simple');
  return { done: true };
}

function* begin(context: Context, { text, isDdl }: ExclusiveStatement): Procedure<CommitError> {
  if (isDdl) return yield* announceDdl(context, 'simple', context.clientText(text));
  const refusal: PgError | undefined = context.commits.refusal();
  if (refusal === undefined) {
    context.stand();
    return undefined;
  }
  context.hooks.count('refused');
  return errorResponse(refusal);
}

function* commit(context: Context, segment: ClientSegment): Procedure<Attempt> {
  const error = yield* commitTransaction(context, 'simple', askWhetherWritten(context, 'simple'));
  if (error !== undefined && readSqlState(error) === '40001') return { done: false, lost: error };
  if (error === undefined) segment.release();
  else context.client.push(error);
  return { done: true };
}

function* lose(context: Context): Procedure<Attempt> {
  const lost = takeAbort(context);
  yield* rollBack(context, 'simple');
  if (lost === undefined) throw new Error('a conflict was lost without an error');
  return { done: false, lost };
}
