import { PgError } from '../../runtime/errors.ts';
import { literal } from '../../runtime/sql-text.ts';
import { editError, errorResponse, readSqlState } from '../../wire/backend-messages.ts';
import { answered, refused, settled, uncancelled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { HOLDABLE_CURSOR, LARGE_OBJECTS, probeSql, SHARED_OBJECTS } from '../injected.ts';
import type { Style } from '../injected.ts';
import type { CommitOutcome } from '../ports.ts';
import type { InjectedSegment } from '../segments.ts';
import { heldExpression, heldLocks } from '../advisory/held.ts';
import { reportToken } from './reads.ts';

/** Sends the question whether the open transaction wrote; to be given to `commitTransaction`. */
export function askWhetherWritten(context: Context, style: Style, chain = false): InjectedSegment {
  const hidden = context.classifier.hidesAdvisoryLocks
    ? `pg_catalog.concat(${literal(HELD_MARK)}, ${heldExpression()})`
    : undefined;
  const { sharedRows: announced, savepoints } = context;
  return context.inject(style, probeSql(context.transactionName(), { chain, announced, savepoints, last: hidden }));
}

/**
 * PostgreSQL finds dangerous structures among the transactions of its own server only: two that ran on two nodes would both commit. Never
 * weakened silently, so refused.
 */
const SERIALIZABLE = refused(
  'SERIALIZABLE transactions that write are not supported in a coordinated database',
  'Use REPEATABLE READ, which works across all nodes, or READ COMMITTED with explicit locks.',
);

/** Called in a function or a DO block, where the session can't see it coming. */
const WITH_LARGE_OBJECTS = refused(
  'transactions that change large objects are not supported in a coordinated database',
  'Large objects are not replicated. Store the value in a bytea column.',
);

/** The other nodes would not see it: no event trigger tells of it either. */
export const WITH_SHARED_OBJECTS = refused(
  'roles, databases and other objects of the whole server cannot be changed inside a function, a DO block or another statement',
  'Send CREATE ROLE, GRANT, ALTER DATABASE and the like as statements of their own.',
);

const WITH_HOLDABLE_CURSOR = refused(
  'a cursor WITH HOLD is not supported in a transaction with savepoints in a coordinated database',
  'Declare the cursor in a transaction without savepoints.',
);

/** Tells that column from the others. */
const HELD_MARK = 'advisory locks: ';

const WITH_HIDDEN_LOCK = refused(
  'a function that the transaction ran took an advisory lock, which holds on this node only',
  'Take the lock in the client, by SELECT pg_advisory_xact_lock(…), or set advisory_locks to local in the configuration of the nodes.',
);

/** What the transaction did that can't be coordinated, by the answer to the probe. */
function refusalOf(row: readonly (string | null)[]): PgError | undefined {
  if (row[0] === LARGE_OBJECTS) return WITH_LARGE_OBJECTS;
  if (row[0] === SHARED_OBJECTS) return WITH_SHARED_OBJECTS;
  if (row[0] === HOLDABLE_CURSOR) return WITH_HOLDABLE_CURSOR;
  return row[2] === 'serializable' ? SERIALIZABLE : undefined;
}

/** Where functions take advisory locks unseen, such as those of triggers, the last column of the answer tells what the transaction has. */
function hiddenLock({ advisory }: Context, row: readonly (string | null)[]): PgError | undefined {
  const last = row.at(-1) ?? '';
  if (!last.startsWith(HELD_MARK)) return undefined;
  return heldLocks(last.slice(HELD_MARK.length)).some((lock) => !advisory.has(lock)) ? WITH_HIDDEN_LOCK : undefined;
}

/** How a transaction ended: undefined when it is committed, else the ErrorResponse for the client. */
export type CommitError = Buffer | undefined;

const PREPARE_HINT =
  'The transaction did something that PREPARE TRANSACTION refuses, such as using a temporary object, LISTEN, NOTIFY or WITH HOLD. Do that in a transaction of its own that changes no data.';

/**
 * Ends the open transaction: plainly when it wrote nothing, else by PREPARE TRANSACTION and the coordinator's decision. The
 * server's session is idle afterwards, whatever the end.
 */
export function* commitTransaction(context: Context, style: Style, asked: InjectedSegment): Procedure<CommitError> {
  yield* answered(asked);
  const row = asked.rows.at(0);
  if (context.aborted !== undefined) return yield* giveUp(context, style, takeAbort(context));
  if (asked.failed !== undefined || row === undefined) return yield* giveUp(context, style, asked.failed);
  const refusal =
    hiddenLock(context, row) ?? (row[0] === null ? undefined : (refusalOf(row) ?? context.commits.refusal()));
  if (refusal !== undefined) {
    context.hooks.count('refused');
    return yield* giveUp(context, style, errorResponse(refusal));
  }
  if (row[0] === null) return yield* commitRead(context, style);
  return yield* commitWrite(context, style, row[1] === 'remote_apply');
}

function* commitRead(context: Context, style: Style): Procedure<CommitError> {
  const commit = context.injectFixed(style, 'COMMIT');
  yield* answered(commit);
  if (commit.failed === undefined) context.link.keepReadOnly();
  context.forgetTransaction();
  context.hooks.count('read_only');
  return commit.failed === undefined ? undefined : failureOf(context, commit.failed);
}

function* commitWrite(context: Context, style: Style, everywhere: boolean): Procedure<CommitError> {
  const gid = context.transactionName();
  const { link, hooks } = context;
  context.committing = true;
  const { locksSince } = context;
  if (locksSince !== undefined) context.locks.carry(gid, locksSince);
  const prepare = context.inject(style, `PREPARE TRANSACTION ${literal(gid)}`);
  const pending = context.commits.begin(gid, context.database, everywhere ? 'remote_apply' : 'on');
  let outcome: CommitOutcome | undefined;
  void pending.outcome.then((value) => {
    outcome = value;
    context.wake();
  });
  while (!prepare.done && !context.serverLost) yield;
  const error = prepareError(context, prepare);
  pending.prepared(error);
  if (error !== undefined && !context.serverLost) {
    context.committing = false;
    context.forgetTransaction();
    hooks.count('aborted');
    if (link.status !== 'I') return yield* giveUp(context, style, prepare.failed);
    return explained(prepare.failed ?? errorResponse(error));
  }
  while (outcome === undefined) yield;
  context.committing = false;
  if (outcome.type === 'committed') {
    context.noteCommit();
    link.keepReadOnly();
    reportToken(context, outcome.index);
  } else if (outcome.error.sqlstate === '40001') context.noteLoss();
  context.forgetTransaction();
  hooks.count(outcome.type);
  return outcome.type === 'committed' ? undefined : errorResponse(outcome.error);
}

/**
 * A connection that breaks before the answer leaves open whether the transaction is prepared: class 08 says so to the
 * coordinator.
 */
function prepareError(context: Context, prepare: InjectedSegment): PgError | undefined {
  if (prepare.done && prepare.error === undefined && prepare.tag !== 'PREPARE TRANSACTION') {
    return new PgError('40000', `PREPARE TRANSACTION was answered by ${prepare.tag}`);
  }
  if (prepare.done) return prepare.error;
  return context.serverLost
    ? new PgError('08006', 'connection to the server was lost during PREPARE TRANSACTION')
    : undefined;
}

function explained(failed: Buffer): Buffer {
  return readSqlState(failed) === '0A000' ? editError(failed, () => undefined, { H: PREPARE_HINT }) : failed;
}

/** Rolls back what is open and hands the error on. */
function* giveUp(context: Context, style: Style, error: CommitError): Procedure<CommitError> {
  yield* rollBack(context, style);
  return error ?? errorResponse(new PgError('XX000', 'the server did not tell whether the transaction wrote'));
}

export function* rollBack(context: Context, style: Style): Procedure {
  const lost = context.aborted?.told === true;
  if (lost) {
    context.noteLoss();
    context.hooks.count('victim');
  }
  yield* uncancelled(context);
  yield* settled(context);
  while (context.link.status !== 'I' && !context.serverLost) {
    yield* answered(context.injectFixed(style, 'ROLLBACK'));
    // Who is in another's way may be told so at any time: a cancel request can hit even this.
    yield* uncancelled(context);
  }
  // Not before: until it is rolled back it is in the way, and would be aborted once more.
  if (lost) context.aborted = undefined;
  context.forgetTransaction();
}

/** The error of a lost conflict, for the client, before the transaction is rolled back; undefined where none was lost. */
export function takeAbort(context: Context): Buffer | undefined {
  const { aborted } = context;
  if (aborted === undefined) return undefined;
  aborted.told = true;
  return errorResponse(aborted.error);
}

/** What the client is told where a statement of the session's own has failed, which a lost conflict may be behind. */
export function failureOf(context: Context, failed: Buffer): Buffer {
  return takeAbort(context) ?? failed;
}
