import type { PgError } from '../../runtime/errors.ts';
import { Frontend } from '../../wire/codes.ts';
import { answered, settled, uncancelled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { FAIL } from '../injected.ts';
import type { Style } from '../injected.ts';

/** Answers a Query with an error of the session's own, with the effect an error has: an open transaction fails. */
export function* refuseQuery(context: Context, error: PgError): Procedure {
  yield* settled(context);
  context.hooks.count('refused');
  yield* failTransaction(context, 'simple');
  context.sendError(error);
  context.sendReady();
}

/** Answers the client's next Query, or all its messages up to the next Sync, with an error. */
export function* refuseNext(context: Context, error: PgError): Procedure {
  const { stream } = context;
  yield* settled(context);
  while (!stream.next()) yield;
  if (stream.type === Frontend.query || stream.type === Frontend.functionCall)
    return yield* refuseQuery(context, error);
  yield* failTransaction(context, 'extended');
  context.sendError(error);
  while (stream.type !== Frontend.sync) {
    stream.dropRest();
    while (!stream.next()) yield;
    if (stream.type === Frontend.terminate) context.terminated = true;
    if (context.terminated) return;
  }
  context.sendReady();
}

/** Puts an open transaction into the failed state. */
export function* failTransaction(context: Context, style: Style): Procedure {
  yield* settled(context);
  if (context.link.status === 'T') yield* answered(context.injectFixed(style, FAIL));
}

/**
 * Rolls back the transaction that lost a conflict, and leaves the server in a failed block of a new one: its locks are gone, savepoints or not,
 * and the client finds the block it believes to be in.
 */
export function* poison(context: Context): Procedure {
  yield* replaceBlock(context);
  yield* failDoomed(context);
}

/** Lets the block fail that stands in the place of a transaction that lost a conflict. */
export function* failDoomed(context: Context): Procedure {
  const { doomed } = context;
  if (doomed === undefined || doomed.failed) return;
  doomed.failed = true;
  yield* answered(context.injectFixed('extended', FAIL));
}

function* replaceBlock(context: Context): Procedure {
  yield* uncancelled(context);
  yield* settled(context);
  const { aborted } = context;
  context.aborted = undefined;
  if (context.link.status === 'I' || aborted === undefined) return;
  context.noteLoss();
  context.hooks.count('victim');
  const steps = ['ROLLBACK', 'BEGIN'].map((sql) => context.injectFixed('extended', sql));
  yield* answered(...steps);
  context.forgetTransaction();
  context.doomed = { ...aborted, failed: false };
}

/** A client's own transaction that lost a conflict while no procedure was at work. */
export function* loseConflict(context: Context): Procedure {
  yield* settled(context);
  yield* replaceBlock(context);
}

/** Switches default_transaction_read_only on again after the client's side switched it off. Tried again where it fails, by statement_timeout for one. */
export function* rearm(context: Context): Procedure {
  const step = context.injectFixed('extended', 'SET default_transaction_read_only = on');
  yield* answered(step);
  if (step.failed === undefined) context.link.netArmed = true;
}
