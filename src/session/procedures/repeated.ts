import { PgError } from '../../runtime/errors.ts';
import { Frontend } from '../../wire/codes.ts';
import { settled, uncancelled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';

/**
 * Errors after which a transaction may succeed as it is, whether another node's transaction overruled it or PostgreSQL rolled it back. 08007, an
 * unknown outcome, is not among them: it may have been committed.
 */
const MAY_SUCCEED = new Set(['40001', '40P01']);

/**
 * Runs a statement that is the whole of an implicit transaction, and runs it again where it loses a conflict: what the client would be told
 * is held back until it is known. An error means that nothing of the statement is left in the database, here or elsewhere, and the client has not
 * learned of it either. `attempt` ends the transaction and tells everything up to ReadyForQuery. It may let go of what is held:
 * then it was the last. So does an answer that is too long to be held.
 */
export function* repeated(context: Context, attempt: (again: boolean) => Procedure): Procedure {
  const { client } = context;
  yield* settled(context);
  context.cancelled = false;
  for (let left = context.statementRetries; ; left--) {
    client.hold(context.retryBytes);
    yield* attempt(left < context.statementRetries);
    const { sqlstate = '', reports } = client.heldAnswer;
    // PREPARE TRANSACTION makes settings of the session final: a second run would start from others than the first.
    if (left === 0 || !MAY_SUCCEED.has(sqlstate) || reports) break;
    yield* itsTurn(context);
    endIfCancelled(context);
    if (!mayGoOn(context)) break;
    client.discard();
    context.hooks.count('repeated');
  }
  client.release();
}

/** As PostgreSQL would while a statement waits. */
function endIfCancelled(context: Context): void {
  if (!context.cancelled) return;
  context.client.discard();
  context.sendError(new PgError('57014', 'canceling statement due to user request'));
  context.sendReady();
}

/** Until the next attempt may begin, or nobody wants it any more. */
function* itsTurn(context: Context): Procedure {
  yield* uncancelled(context);
  const turn = context.takeTurn();
  context.waitsToRepeat = true;
  while (turn?.granted === false && mayGoOn(context)) yield;
  context.waitsToRepeat = false;
  // Nothing was under way that could have lost another conflict.
  context.aborted = undefined;
}

function mayGoOn(context: Context): boolean {
  const { commits, link, stream } = context;
  if (context.cancelled || context.terminated || stream.peek() === Frontend.terminate) return false;
  if (context.serverLost || link.fatal || link.status !== 'I') return false;
  return commits.refusal() === undefined && commits.readRefusal() === undefined;
}
