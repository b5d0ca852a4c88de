import { PgError } from '../runtime/errors.ts';
import { Frontend } from '../wire/codes.ts';
import { readBind } from '../wire/frontend-fields.ts';
import { answered, settled } from './context.ts';
import type { Context, Procedure } from './context.ts';
import { literal } from '../runtime/sql-text.ts';

/** What the SQL functions read their answers from; see catalog/sql/outcome.ts. */
const SETTING = 'multimaster.answers';
const MARK = Buffer.from('multimaster');
const FUNCTION = /\bmultimaster"?\s*\.\s*"?(outcome|current_gid|in_doubt|token)\b/;
const NAME = /pgmm:[a-z0-9_-]+:\d+:[0-9a-z]+:[0-9a-z]+:[0-9a-z]+/g;
/** Bytes of one message that are searched for names: nobody asks about a transaction in a megabyte of data. */
const SEARCHED = 64 * 1024;

interface Answers {
  readonly current: string | null;
  readonly token: string;
  readonly outcomes: Record<string, string>;
  readonly inDoubt: readonly object[];
  readonly error?: Pick<PgError, 'sqlstate' | 'message' | 'detail' | 'hint'>;
}

/**
 * multimaster.outcome(), current_gid(), in_doubt() and token() are answered by the proxy: before a statement that calls one of them, what it
 * may ask for is looked up and handed to PostgreSQL in a setting of the session. For everybody else this costs a search for one
 * word in the text of a statement.
 */
export class Questions {
  /** The messages at the head of the stream have been seen to. */
  #done = false;

  /** To be asked before a statement. What has to be done before the client's next messages; 'wait' until they have all arrived; undefined: nothing. */
  next(context: Context): Procedure | 'wait' | undefined {
    if (this.#done) {
      this.#done = false;
      return undefined;
    }
    if (context.link.status === 'E') return undefined;
    const found = this.#search(context);
    if (found.names === undefined) return undefined;
    if (!found.whole && context.stream.buffered < SEARCHED) return 'wait';
    return this.#answer(context, found.names, found.extended);
  }

  /** Names of transactions in the client's messages up to the end of a batch; undefined if they ask nothing. */
  #search({ stream, statements }: Context): { names: Set<string> | undefined; whole: boolean; extended: boolean } {
    let names: Set<string> | undefined;
    let extended = true;
    const look = (bytes: Buffer, start: number, end: number) => {
      names ??= new Set();
      const text = bytes.toString('latin1', start, Math.min(end, start + SEARCHED));
      for (const [name] of text.matchAll(NAME)) names.add(name);
    };
    const whole = stream.lookAhead((type, bytes, start, end) => {
      switch (type) {
        case Frontend.query:
          extended = false;
          if (asks(bytes, start, end)) look(bytes, start, end);
          return true;
        case Frontend.parse:
          if (asks(bytes, start, end)) look(bytes, start, end);
          return false;
        case Frontend.bind:
          // Of a statement prepared just now, or long ago.
          if (names !== undefined || statements.find(readBind(bytes, start, end)?.statement ?? '').asks)
            look(bytes, start, end);
          return false;
        case Frontend.describe:
        case Frontend.execute:
        case Frontend.close:
          return false;
        default:
          return true;
      }
    });
    return { names, whole, extended };
  }

  *#answer(context: Context, names: ReadonlySet<string>, extended: boolean): Procedure {
    yield* settled(context);
    let answers: Answers | undefined;
    void this.#ask(context, names).then((found) => {
      answers = found;
      context.wake();
    });
    while (answers === undefined) yield;
    this.#done = true;
    const value = literal(JSON.stringify(answers));
    const sql = `SELECT pg_catalog.set_config('${SETTING}', ${value}, false)`;
    yield* answered(context.inject(extended ? 'extended' : 'simple', sql));
  }

  async #ask(context: Context, names: ReadonlySet<string>): Promise<Answers> {
    const current = context.link.status === 'T' ? reveal(context) : null;
    const token = context.commits.reads.token();
    const outcomes: Record<string, string> = {};
    const inDoubt = context.commits.inDoubt();
    try {
      for (const name of names) outcomes[name] = await context.commits.outcome(name);
      return { current, token, outcomes, inDoubt };
    } catch (failure) {
      const error = failure instanceof PgError ? failure : new PgError('XX000', (failure as Error).message);
      const { sqlstate, message, detail, hint } = error;
      return { current, token, outcomes, inDoubt, error: { sqlstate, message, detail, hint } };
    }
  }
}

function reveal(context: Context): string {
  const gid = context.transactionName();
  context.commits.reveal(gid);
  context.revealed = true;
  return gid;
}

/** Whether a statement's text calls one of the functions. */
export function asks(bytes: Buffer, start: number, end: number): boolean {
  const at = bytes.subarray(start, end).indexOf(MARK);
  return at >= 0 && FUNCTION.test(bytes.toString('latin1', start + at, Math.min(end, start + SEARCHED)));
}
