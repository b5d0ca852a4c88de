import type { PgError } from '../../runtime/errors.ts';
import { errorResponse } from '../../wire/backend-messages.ts';
import type { TransactionStatus } from '../../wire/codes.ts';
import { answered, settled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { queryMessage } from '../injected.ts';
import type { Style } from '../injected.ts';
import { PassSegment } from '../segments.ts';
import { settleLocks } from '../advisory/taking.ts';
import { askWhetherWritten, commitTransaction } from './commit.ts';
import type { CommitError } from './commit.ts';

/** Isolation level, read only, deferrable of a transaction that ended AND CHAIN. */
export type Modes = readonly (string | null)[];

/** Ends the client's own transaction block. With `chain`, also tells the modes the next one must have. */
export function* commitExplicit(
  context: Context,
  style: Style,
  chain: boolean,
): Procedure<{ error: CommitError; modes: Modes }> {
  const asked = askWhetherWritten(context, style, chain);
  const error = yield* commitTransaction(context, style, asked);
  return { error, modes: asked.rows[0]?.slice(2) ?? [] };
}

/** The new transaction of COMMIT AND CHAIN. */
export function* beginChained(context: Context, style: Style, modes: Modes): Procedure {
  const [isolation, readOnly, deferrable] = modes;
  const begin = context.inject(
    style,
    `BEGIN ISOLATION LEVEL ${isolation ?? 'READ COMMITTED'}, ${readOnly === 'on' ? 'READ ONLY' : 'READ WRITE'}, ${deferrable === 'on' ? 'DEFERRABLE' : 'NOT DEFERRABLE'}`,
  );
  yield* answered(begin);
}

/**
 * AND CHAIN after a failed transaction begins one with the default modes, since the failure has undone those of the old one: and
 * the server's default is read-only. `before`: the status when the statement was sent.
 */
export function* keepWritable(context: Context, style: Style, before: TransactionStatus): Procedure {
  const { link } = context;
  if (before !== 'E' || link.status !== 'T' || link.clientReadOnly) return;
  yield* answered(context.injectFixed(style, 'SET TRANSACTION READ WRITE'));
}

/** A Query that is COMMIT without AND CHAIN alone, in a transaction block. */
export function* commitQuery(context: Context, sql: Buffer): Procedure {
  yield* settled(context);
  const { link } = context;
  if (context.doomed?.told === false && link.status === 'E') {
    context.client.push(yield* endDoomed(context, 'simple', context.doomed.error));
    context.sendReady();
    return;
  }
  // Failed meanwhile: PostgreSQL answers ROLLBACK.
  if (link.status !== 'T') {
    const segment = new PassSegment(false);
    segment.closed = true;
    segment.control = true;
    link.add(segment, queryMessage(sql));
    return;
  }
  context.hooks.count('explicit');
  const { error } = yield* commitExplicit(context, 'simple', false);
  yield* settleLocks(context, 'simple');
  if (error === undefined) context.sendComplete('COMMIT');
  else context.client.push(error);
  context.sendReady();
}

/** COMMIT of a transaction that was rolled back under the client: it must not look like a COMMIT that did nothing. */
export function* endDoomed(context: Context, style: Style, error: PgError): Procedure<Buffer> {
  yield* answered(context.injectFixed(style, 'ROLLBACK'));
  return errorResponse(error);
}
