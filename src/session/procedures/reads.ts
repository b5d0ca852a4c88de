import { PgError } from '../../runtime/errors.ts';
import type { LogIndex } from '../../runtime/ids.ts';
import { noticeResponse, parameterStatus } from '../../wire/backend-messages.ts';
import { answered, settled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { literal } from '../../runtime/sql-text.ts';
import type { Style } from '../injected.ts';
import { AFTER_SETTING, LEVEL_SETTING } from '../read-state.ts';

/** Reported to clients at level `session`, as PostgreSQL reports its own settings. */
const TOKEN = 'multimaster.token';

/** In a block, as unlike SELECT, SHOW takes no snapshot, which under REPEATABLE READ would be the one of the whole transaction. */
const SHOW = [`SHOW ${LEVEL_SETTING}`, `SHOW ${AFTER_SETTING}`];
const CURRENT = `SELECT ${[LEVEL_SETTING, AFTER_SETTING].map((name) => `pg_catalog.current_setting('${name}', true)`).join(', ')}`;
const SHOW_ISOLATION = 'SHOW transaction_isolation';

/** When the client has logged in: ALTER ROLE, ALTER DATABASE and the connection's options may have set something. */
export function* beginReads(context: Context): Procedure {
  const error = yield* ask(context, 'simple');
  if (error === undefined) return;
  const { message, sqlstate, detail, hint } = error;
  context.client.push(noticeResponse(new PgError(sqlstate, message, { severity: 'WARNING', detail, hint })));
}

/** Before something that takes a snapshot: waits until that will show what it must. Answers why it can't. */
export function* attendReads(context: Context, style: Style): Procedure<PgError | undefined> {
  yield* settled(context);
  const { reads, link } = context;
  if (link.status === 'E') return undefined;
  if (link.status === 'I') reads.transactionEnded();
  if (reads.unsettled) {
    const error = yield* ask(context, style);
    if (error !== undefined) return error;
  }
  const { needs } = reads;
  if (needs === undefined || reads.keepsSnapshot === true) return undefined;
  const wait = context.commits.reads.wait(needs, context.wake);
  reads.wait = wait;
  if (link.status === 'T') yield* learnIsolation(context, style);
  // Another node's transaction may overrule this one meanwhile.
  while (wait.result === undefined && context.aborted === undefined) yield;
  reads.wait = undefined;
  if (wait.result === undefined) wait.cancel();
  else if (wait.result !== 'ready') return wait.result;
  else reads.satisfied();
  return undefined;
}

function* learnIsolation(context: Context, style: Style): Procedure {
  const { reads } = context;
  if (reads.keepsSnapshot !== undefined) return;
  const shown = context.injectFixed(style, SHOW_ISOLATION);
  yield* answered(shown);
  reads.keepsSnapshot = shown.rows.at(0)?.[0] !== 'read committed';
}

/** A transaction of this session was committed. */
export function reportToken(context: Context, index: LogIndex): void {
  if (context.reads.level !== 'session') return;
  context.client.push(parameterStatus(TOKEN, context.commits.reads.token(index)));
}

/** Asks PostgreSQL for the settings. What they can't be is put back to what it was; in a block the failure does that. */
function* ask(context: Context, style: Style): Procedure<PgError | undefined> {
  yield* settled(context);
  const { reads, link } = context;
  const inBlock = link.status === 'T';
  const steps = (inBlock ? SHOW : [CURRENT]).map((sql) => context.injectFixed(style, sql));
  yield* answered(...steps);
  const failed = steps.find((step) => step.failed !== undefined)?.error;
  if (failed !== undefined) return failed;
  // One row of two columns, or two of one.
  const [level, after] = steps.flatMap(({ rows }) => rows[0]);
  const error = reads.told([level ?? '', after ?? ''], inBlock, context.commits.reads);
  if (inBlock) return error;
  const [soundLevel, soundAfter] = reads.texts;
  // Given a value where they have none, so that SHOW knows them.
  if (level !== soundLevel || level === '')
    set(context, style, LEVEL_SETTING, soundLevel || context.commits.reads.level);
  if (after !== soundAfter) set(context, style, AFTER_SETTING, soundAfter);
  yield* settled(context);
  return error;
}

/** By SET rather than set_config(), which may not be everyone's to call. */
function set(context: Context, style: Style, name: string, value: string): void {
  context.inject(style, `SET ${name} = ${literal(value)}`);
}
