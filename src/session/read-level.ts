import { PgError } from '../runtime/errors.ts';
import type { LogIndex } from '../runtime/ids.ts';
import { noticeResponse, parameterStatus } from '../wire/backend-messages.ts';
import { answered, settled } from './context.ts';
import type { Context, Procedure } from './context.ts';
import { literal } from './injected.ts';
import type { InjectedSegment } from './segments.ts';
import type { Style } from './injected.ts';
import { READ_LEVELS } from './ports.ts';
import type { ReadLevel, ReadWait } from './ports.ts';

const LEVEL = 'multimaster.read_level';
const AFTER = 'multimaster.read_after';
/** Reported to clients at level `session`, as PostgreSQL reports its own. */
const TOKEN = 'multimaster.token';

/** In a block: unlike SELECT, SHOW takes no snapshot, which under REPEATABLE READ would be the one of the whole transaction. */
const SHOW = [`SHOW ${LEVEL}`, `SHOW ${AFTER}`];
const SHOW_ISOLATION = 'SHOW transaction_isolation';

/**
 * How new the reads of one session must be, and the waiting for it. PostgreSQL knows the settings, with all that ALTER ROLE, SET LOCAL and
 * savepoints do to them, and reports no change of them. So it is asked: at first, and again before the next read once a
 * statement has been run that may have changed them; in a block that holds such a statement before each read, and once
 * after its end. A session that asks for nothing pays one question when it connects.
 */
export class SessionReads {
  /** Something is to be asked or waited for before the next read. */
  active = true;
  /** A statement that may have changed the settings was run, and PostgreSQL has not been asked since. */
  changed = true;
  /** The same, and the transaction may undo it yet. */
  #unsettled = true;
  #level: ReadLevel;
  #after: LogIndex | undefined;
  /** The highest index that was waited for. */
  #reached = 0;
  /** What PostgreSQL said last, for putting it back. */
  #texts: readonly string[];
  /** The transaction in progress keeps the snapshot that it has taken. */
  #keepsSnapshot = false;
  #knowsIsolation = false;
  #wait: ReadWait | undefined;

  constructor(level: ReadLevel) {
    this.#level = level;
    this.#texts = [level, ''];
  }

  /** A statement that may change the settings is about to run. */
  touch(): void {
    this.changed = true;
    this.#unsettled = true;
    this.active = true;
  }

  /** Transaction control, savepoints included, is about to run: it may undo such a change. */
  control(): void {
    if (this.#unsettled) this.changed = true;
  }

  transactionEnded(): void {
    this.#keepsSnapshot = false;
    this.#knowsIsolation = false;
  }

  /** A transaction of this session was committed. */
  committed(context: Context, index: LogIndex): void {
    if (this.#level === 'session') context.client.push(parameterStatus(TOKEN, context.commits.reads.token(index)));
  }

  /** Ends a wait because the client wants it; false where there is none. */
  cancel(): boolean {
    if (this.#wait === undefined) return false;
    this.#wait.cancel();
    return true;
  }

  /** When the client has logged in: ALTER ROLE, ALTER DATABASE and the connection's options may have set them. */
  *begin(context: Context): Procedure {
    const error = yield* this.#ask(context, 'simple');
    if (error === undefined) return;
    const { message, sqlstate, detail, hint } = error;
    context.client.push(noticeResponse(new PgError(sqlstate, message, { severity: 'WARNING', detail, hint })));
  }

  /** Before something that takes a snapshot, so that it shows what it must. Answers why it can't. */
  *attend(context: Context, style: Style): Procedure<PgError | undefined> {
    yield* settled(context);
    const { status } = context.link;
    if (status === 'E') return undefined;
    if (status === 'I') this.transactionEnded();
    if (this.changed || this.#unsettled) {
      const error = yield* this.#ask(context, style);
      if (error !== undefined) return error;
    }
    const strict = this.#level === 'strict';
    if (this.#keepsSnapshot || (!strict && this.#after === undefined)) return undefined;
    return yield* this.#await(context, style, strict);
  }

  *#await(context: Context, style: Style, strict: boolean): Procedure<PgError | undefined> {
    const wait = context.commits.reads.wait({ strict, after: this.#after }, context.wake);
    this.#wait = wait;
    const asks = context.link.status === 'T' && !this.#knowsIsolation;
    const isolation = asks ? context.injectFixed(style, SHOW_ISOLATION) : undefined;
    if (isolation !== undefined) yield* answered(isolation);
    // Another node's transaction may overrule this one meanwhile.
    while (wait.result === undefined && context.aborted === undefined) yield;
    this.#wait = undefined;
    if (wait.result === undefined) wait.cancel();
    else if (wait.result !== 'ready') return wait.result;
    else {
      this.#reached = Math.max(this.#reached, this.#after ?? 0);
      this.#after = undefined;
      this.#update();
    }
    if (isolation !== undefined) {
      this.#knowsIsolation = true;
      this.#keepsSnapshot = isolation.rows[0]?.[0] !== 'read committed';
    }
    return undefined;
  }

  *#ask(context: Context, style: Style): Procedure<PgError | undefined> {
    yield* settled(context);
    const { status } = context.link;
    const steps =
      status === 'I'
        ? [context.injectFixed(style, setSql(context.commits.reads.level, true))]
        : SHOW.map((sql) => context.injectFixed(style, sql));
    yield* answered(...steps);
    const failed = steps.find((step) => step.failed !== undefined)?.error;
    if (failed !== undefined) return failed;
    const texts = valuesOf(steps);
    const error = this.#take(context, texts);
    if (error !== undefined) {
      // In a block the failure undoes it.
      if (status === 'I') yield* answered(context.inject(style, setSql(this.#texts[0], false, this.#texts[1])));
      return error;
    }
    this.#texts = texts;
    this.changed = false;
    if (status === 'I') this.#unsettled = false;
    this.#update();
    return undefined;
  }

  /** Answers why not. */
  #take(context: Context, [level, after]: readonly string[]): PgError | undefined {
    const { reads } = context.commits;
    const known = level === '' ? reads.level : READ_LEVELS.find((one) => one === level.toLowerCase());
    if (known === undefined)
      return invalid(LEVEL, level, { hint: `Available values: ${READ_LEVELS.join(', ')}.` });
    const index = after === '' ? undefined : reads.parseToken(after);
    if (after !== '' && index === undefined)
      return invalid(AFTER, after, { hint: 'Set it to what multimaster.token() answers on another node of this cluster.' });
    this.#after = index !== undefined && index > this.#reached ? index : undefined;
    this.#level = known;
    return undefined;
  }

  #update(): void {
    this.active = this.#unsettled || this.#level === 'strict' || this.#after !== undefined;
  }
}

function invalid(name: string, value: string, more: { hint: string }): PgError {
  return new PgError('22023', `invalid value for parameter "${name}": "${value}"`, more);
}

/** Gives the settings these values, or with `keep` only where they have none, and answers what they are: from then on SHOW knows them. */
function setSql(level: string, keep: boolean, after = ''): string {
  const set = (name: string, value: string): string => {
    const kept = `coalesce(nullif(pg_catalog.current_setting('${name}', true), ''), ${literal(value)})`;
    return `pg_catalog.set_config('${name}', ${keep ? kept : literal(value)}, false)`;
  };
  return `SELECT ${set(LEVEL, level)}, ${set(AFTER, after)}`;
}

/** One row of two columns, or two of one. */
function valuesOf(steps: readonly InjectedSegment[]): string[] {
  return steps.flatMap(({ rows }) => rows[0] ?? []).map((value) => value ?? '');
}
