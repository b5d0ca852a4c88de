import type { AcquireOptions } from '../ports.ts';
import type { LockCall, LockStatement } from '../../sql/kinds.ts';
import { DENIED_SETTING, keysSql } from '../../sql/advisory.ts';
import { PgError } from '../../runtime/errors.ts';
import { errorResponse, noticeResponse } from '../../wire/backend-messages.ts';
import { answered, settled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { literal } from '../../runtime/sql-text.ts';
import { statementWith } from '../injected.ts';
import type { Style } from '../injected.ts';
import { readParameterTypes, readParameters } from '../../wire/frontend-fields.ts';
import { InjectedSegment } from '../segments.ts';
import { failureOf } from '../procedures/commit.ts';
import { heldLocks, HELD_SQL } from './held.ts';

/** Numbers of try_ calls that the cluster denies, or the ErrorResponse. */
export type Taken = { readonly denied: ReadonlySet<number> } | { readonly error: Buffer };

/** Asks PostgreSQL what keys a statement names; see keysSql. With parameters, `bind` is the client's Bind, `types` what its Parse says of their types. */
export function askForKeys(
  context: Context,
  style: Style,
  locks: LockStatement,
  client?: { readonly bind: Buffer; readonly types: Buffer },
): InjectedSegment {
  const sql = keysSql(locks);
  if (client === undefined || locks.parameters.length === 0) return context.inject(style, sql);
  const types = readParameterTypes(client.types);
  const values = readParameters(client.bind);
  const numbers = locks.parameters.map((number) => number - 1);
  const message = statementWith(
    context.encode(sql),
    numbers.map((number) => types[number] ?? 0),
    numbers.map((number) => values[number] ?? { binary: false, value: undefined }),
  );
  return context.link.add(new InjectedSegment(), message);
}

/**
 * Before a statement that locks: takes from the cluster what it is about to take from PostgreSQL, call after call. Where the wait ends with an
 * error, nothing of the statement is run.
 */
export function* takeLocks(context: Context, locks: LockStatement, asked: InjectedSegment): Procedure<Taken> {
  yield* answered(asked);
  const row = asked.rows.at(0);
  // Most often a key that is out of range, which the statement itself would have failed with.
  if (row === undefined)
    return { error: failureOf(context, asked.failed ?? errorResponse(new PgError('XX000', 'no keys to lock'))) };
  const refusal = locks.calls.some(isTaking) ? context.commits.refusal() : undefined;
  if (refusal !== undefined) return { error: errorResponse(notMember(refusal)) };
  const [lockTimeout, statementTimeout, deadlockTimeout, backend] = row.slice(-4).map(Number);
  const limits = { lockTimeout, statementTimeout, deadlockTimeout, backend };
  const denied = new Set<number>();
  let column = 0;
  for (const [number, call] of locks.calls.entries()) {
    const values = row.slice(column, (column += call.key.length));
    // NULL: a strict function, which does nothing.
    if (!isTaking(call) || values.includes(null)) continue;
    if (call.transaction) context.advisory.endWithTransaction();
    const outcome = yield* take(context, { key: values.join(), shared: call.shared }, call, limits);
    if (outcome === 'denied') denied.add(number);
    else if (outcome !== undefined) return { error: errorResponse(outcome) };
  }
  return { denied };
}

const isTaking = ({ effect }: LockCall): boolean => effect === 'lock' || effect === 'try';

function* take(
  context: Context,
  lock: { readonly key: string; readonly shared: boolean },
  { effect }: LockCall,
  limits: Omit<AcquireOptions, 'wait'>,
): Procedure<'denied' | PgError | undefined> {
  const { advisory } = context;
  if (advisory.has(lock)) return undefined;
  const wait = advisory.acquire(lock, { wait: effect === 'lock', ...limits }, context.wake);
  // Another node's transaction may overrule this one meanwhile.
  while (wait.result === undefined && context.aborted === undefined) yield;
  const { aborted } = context;
  if (aborted !== undefined) {
    aborted.told = true;
    if (wait.result === 'granted') advisory.granted(lock);
    else wait.cancel(aborted.error);
    advisory.dirty = true;
    return aborted.error;
  }
  if (wait.result === 'granted') {
    advisory.granted(lock);
    // Until the statement has run PostgreSQL does not hold it.
    advisory.dirty = true;
    return undefined;
  }
  return wait.result === 'denied' || wait.result instanceof PgError ? wait.result : undefined;
}

function notMember({ detail, hint }: PgError): PgError {
  return new PgError('57P03', 'cannot take an advisory lock: this node is not a member of the cluster now', {
    detail,
    hint: hint ?? 'Connect to another node.',
  });
}

/** Tells the statement which of its calls answer false; to be undone when it has run. */
export function* setDenied(context: Context, denied: ReadonlySet<number>): Procedure {
  const value = denied.size === 0 ? '' : `,${[...denied].join()},`;
  const sql = `SELECT pg_catalog.set_config('${DENIED_SETTING}', ${literal(value)}, false)`;
  yield* answered(context.inject('extended', sql));
}

/**
 * Gives back to the cluster what PostgreSQL does not hold any more, and waits until that stands in the log: whoever hears of it can have the
 * lock. Puts it off while the transaction is a failed one, which can't be asked.
 */
export function* settleLocks(context: Context, style: Style): Procedure {
  const { advisory } = context;
  if (!advisory.dirty) return;
  yield* settled(context);
  if (context.link.status === 'E') return;
  const asked = context.injectFixed(style, HELD_SQL);
  yield* answered(asked);
  advisory.dirty = false;
  // By statement_timeout, for one.
  if (asked.failed !== undefined) {
    advisory.postpone();
    return;
  }
  const held = heldLocks(asked.rows.at(0)?.[0] ?? null);
  const isHeld = (lock: { key: string; shared: boolean }): boolean =>
    held.some(({ key, shared }) => key === lock.key && shared === lock.shared);
  for (const lock of held) if (!advisory.has(lock)) context.client.push(noticeResponse(onlyHere(lock.key)));
  const release = advisory.release(
    advisory.held.filter((lock) => !isHeld(lock)),
    context.wake,
  );
  while (release !== undefined && release.result === undefined) yield;
}

const onlyHere = (key: string): PgError =>
  new PgError('01000', `advisory lock ${key} is held on this node only`, {
    severity: 'WARNING',
    hint: 'It was taken where the proxy could not see it. Take it by SELECT pg_advisory_lock(…).',
  });
