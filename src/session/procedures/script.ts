import { PgError } from '../../runtime/errors.ts';
import { withoutCalls } from '../../sql/advisory.ts';
import type { Statement } from '../../sql/classify.ts';
import { changesReads, locksTables, takesSnapshot } from '../../sql/kinds.ts';
import type { LockStatement, StatementKind } from '../../sql/kinds.ts';
import { errorResponse, noticeResponse, textRow } from '../../wire/backend-messages.ts';
import { refused, settled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { askForKeys, settleLocks, takeLocks } from '../advisory/taking.ts';
import { queryMessage } from '../injected.ts';
import { namesReadSetting } from '../judge.ts';
import type { ClientSegment } from '../segments.ts';
import { askWhetherWritten, commitTransaction, rollBack } from './commit.ts';
import { announceDdl, endDdl } from './ddl.ts';
import { exclusive } from './exclusive.ts';
import { failTransaction } from './fail.ts';
import { attendReads } from './reads.ts';
import { beginChained, commitExplicit, endDoomed, keepWritable } from './explicit.ts';
import { withCopyData } from './wrapped.ts';

export const NO_TRANSACTION = new PgError('25P01', 'there is no transaction in progress', { severity: 'WARNING' });
export const ALREADY_IN_TRANSACTION = new PgError('25001', 'there is already a transaction in progress', {
  severity: 'WARNING',
});
/** PostgreSQL refuses some commands in an implicit block; in the session's real one it would not. */
export const onlyInBlock = (command: string): PgError =>
  new PgError('25P01', `${command} can only be used in transaction blocks`);
/** Raised by BEGIN inside a block, also inside one of the session's making. */
export const IN_TRANSACTION = '25001';

const IN_FAILED_TRANSACTION = new PgError(
  '25P02',
  'current transaction is aborted, commands ignored until end of transaction block',
);

/** A run of statements that go to the server as one Query. */
interface Part {
  readonly kind: StatementKind;
  readonly start: number;
  end: number;
  locks: boolean;
}

/**
 * A Query whose statements must be taken one by one: it holds transaction control, schema statements or something the
 * session answers itself. Follows PostgreSQL's rules for several statements in one Query ("Multiple Statements in a Simple
 * Query"): statements outside a block form an implicit one; BEGIN turns that into a real block; COMMIT and ROLLBACK end either;
 * after an error the rest is skipped.
 */
export class Script {
  readonly #context: Context;
  readonly #text: string;
  readonly #parts: Part[];
  #block: 'none' | 'implicit' | 'explicit' = 'none';
  /** The statement whose completion the client has not been told. */
  #last: ClientSegment | undefined;
  #failed = false;

  constructor(context: Context, text: string, statements: readonly Statement[]) {
    this.#context = context;
    this.#text = text;
    const mustPart = ({ kind, start, end }: Part): boolean =>
      changesReads(kind) || namesReadSetting(text.slice(start, end));
    this.#parts = joinPlain(statements, mustPart);
  }

  *run(): Procedure {
    const context = this.#context;
    yield* settled(context);
    this.#blockFromStatus();
    if (this.#isExclusive) {
      const [{ kind, start, end, locks }] = this.#parts;
      const offset = characters(this.#text, start);
      yield* exclusive(context, { text: this.#text.slice(start, end), offset, isDdl: kind.type === 'ddl', locks });
    } else {
      yield* this.#each();
    }
    context.sendReady();
  }

  /** One statement that locks whole tables, and nothing else. In a read-only session PostgreSQL's own error is the answer. */
  get #isExclusive(): boolean {
    return (
      this.#block === 'none' &&
      this.#parts.length === 1 &&
      locksTables(this.#parts[0].kind) &&
      !this.#context.link.clientReadOnly
    );
  }

  *#each(): Procedure {
    for (const part of this.#parts) {
      this.#last?.release();
      this.#last = undefined;
      yield* this.#part(part);
      if (this.#failed) break;
    }
    yield* this.#end();
  }

  *#end(): Procedure {
    const context = this.#context;
    if (this.#block !== 'implicit') {
      yield* settleLocks(context, 'simple');
      this.#last?.release();
      return;
    }
    if (this.#failed) {
      yield* rollBack(context, 'simple');
      yield* settleLocks(context, 'simple');
      return;
    }
    const error = yield* commitTransaction(context, 'simple', askWhetherWritten(context, 'simple'));
    yield* settleLocks(context, 'simple');
    if (error === undefined) this.#last?.release();
    else context.client.push(error);
  }

  *#part(part: Part): Procedure {
    const { kind } = part;
    const { reads } = this.#context;
    // Behind a statement of this Query that changed how new the session's reads must be.
    if (reads.changed && takesSnapshot(kind)) {
      const error = yield* attendReads(this.#context, 'simple');
      if (error !== undefined) {
        yield* failTransaction(this.#context, 'simple');
        this.#fail(error);
        return;
      }
    }
    if (changesReads(kind) || namesReadSetting(this.#text.slice(part.start, part.end))) reads.touch();
    else if (!isPlain(kind)) reads.control();
    switch (kind.type) {
      case 'begin':
        return yield* this.#begin(kind.readWrite, kind.unchanged);
      case 'commit':
        return yield* this.#commit(kind.chain, part);
      case 'rollback':
        return yield* this.#rollback(kind.chain, part);
      case 'ddl':
        return yield* this.#ddl(part);
      case 'unsupported':
        return yield* this.#refuse(refused(kind.reason, kind.hint, kind.sqlstate));
      case 'set-read-only':
        return yield* this.#setReadOnly(kind);
      case 'show-read-only':
        if (kind.name === 'transaction_read_only' && this.#block !== 'none') return yield* this.#plain(part);
        {
          this.#show(kind.name);
          return;
        }
      case 'savepoint':
        if (this.#block !== 'explicit') {
          this.#ensureBlock();
          this.#fail(onlyInBlock(kind.command));
          return;
        }
        this.#context.savepoint();
        return yield* this.#plain(part);
      case 'lock':
        return yield* this.#lock(part, kind.locks);
      case 'read':
      case 'write':
      case 'local':
        return yield* this.#plain(part);
    }
  }

  /** Sends a part as it is, in a block. */
  *#plain(part: Part): Procedure {
    this.#ensureBlock();
    this.#context.mayLock(part.locks);
    if (locksTables(part.kind) && this.#context.link.status !== 'E') this.#context.stand();
    const segment = this.#context.clientSegment({ offset: characters(this.#text, part.start) });
    yield* this.#send(segment, this.#context.encode(this.#text.slice(part.start, part.end)));
    if (part.kind.type !== 'local') return;
    this.#context.statements.forget(part.kind.forgets);
    if (part.kind.forgets.what === 'everything') this.#context.advisory.discarded();
  }

  *#lock(part: Part, statement: LockStatement): Procedure {
    const context = this.#context;
    const { advisory } = context;
    // PostgreSQL's own error is the answer.
    if (context.link.status === 'E') return yield* this.#plain(part);
    this.#ensureBlock();
    context.mayLock(part.locks);
    const wasDirty = advisory.dirty;
    const taken = yield* takeLocks(context, statement, askForKeys(context, 'simple', statement));
    if ('error' in taken) {
      yield* failTransaction(context, 'simple');
      context.client.push(taken.error);
      this.#failed = true;
      return;
    }
    const sql = withoutCalls(this.#text.slice(part.start, part.end), statement, taken.denied);
    advisory.dirty = true;
    yield* this.#send(context.clientSegment({ offset: characters(this.#text, part.start) }), context.encode(sql));
    if (!this.#hasFailed) advisory.dirty = wasDirty || !statement.onlyTakes;
  }

  /** Asked anew after each step: the compiler takes the property for what it was before. */
  get #hasFailed(): boolean {
    return this.#failed;
  }

  *#send(segment: ClientSegment, sql: Buffer | string): Procedure {
    segment.closed = true;
    this.#context.link.add(segment, queryMessage(sql));
    yield* withCopyData(this.#context, segment);
    if (segment.failed !== undefined) this.#failed = true;
    else this.#last = segment;
  }

  #ensureBlock(): void {
    if (this.#block !== 'none') return;
    this.#context.injectBegin('simple');
    this.#block = 'implicit';
  }

  *#begin(readWrite: string, unchanged: string): Procedure {
    const segment = this.#context.clientSegment();
    if (this.#block === 'implicit') segment.suppressed = IN_TRANSACTION;
    // Inside a block READ WRITE would be an error once a query has run.
    yield* this.#send(segment, this.#context.link.clientReadOnly || this.#block !== 'none' ? unchanged : readWrite);
    if (!this.#failed || this.#block === 'none') this.#block = 'explicit';
  }

  *#commit(chain: boolean, part: Part): Procedure {
    const context = this.#context;
    const { doomed, link } = context;
    if (doomed?.told === false && link.status === 'E') {
      context.client.push(yield* endDoomed(context, 'simple', doomed.error));
      this.#failed = true;
      return;
    }
    if (this.#block === 'none' || link.status !== 'T') return yield* this.#natural(part);
    if (this.#block === 'implicit') {
      if (chain) {
        this.#fail(onlyInBlock('COMMIT AND CHAIN'));
        return;
      }
      context.client.push(noticeResponse(NO_TRANSACTION));
    }
    const { error, modes } = yield* commitExplicit(context, 'simple', chain);
    if (error !== undefined) {
      context.client.push(error);
      this.#failed = true;
    } else {
      if (chain) yield* beginChained(context, 'simple', modes);
      context.sendComplete('COMMIT');
    }
    this.#blockFromStatus();
  }

  *#rollback(chain: boolean, part: Part): Procedure {
    const context = this.#context;
    if (this.#block === 'implicit') {
      if (chain) {
        this.#fail(onlyInBlock('ROLLBACK AND CHAIN'));
        return;
      }
      context.client.push(noticeResponse(NO_TRANSACTION));
      yield* rollBack(context, 'simple');
      context.sendComplete('ROLLBACK');
      this.#blockFromStatus();
    } else {
      yield* this.#natural(part);
    }
  }

  /** Lets the server run transaction control, and looks where that leaves it. */
  *#natural(part: Part): Procedure {
    const context = this.#context;
    const before = context.link.status;
    yield* this.#send(context.clientSegment(), this.#text.slice(part.start, part.end));
    yield* keepWritable(context, 'simple', before);
    context.forgetTransaction();
    this.#blockFromStatus();
  }

  *#ddl(part: Part): Procedure {
    const context = this.#context;
    // In a failed transaction PostgreSQL's own error is the answer.
    if (context.link.status === 'E') return yield* this.#plain(part);
    this.#ensureBlock();
    context.mayLock(part.locks);
    const sql = this.#text.slice(part.start, part.end);
    const error = yield* announceDdl(context, 'simple', context.clientText(sql));
    if (error !== undefined) {
      yield* failTransaction(context, 'simple');
      context.client.push(error);
      this.#failed = true;
      return;
    }
    const segment = context.clientSegment({ offset: characters(this.#text, part.start) });
    yield* this.#send(segment, context.encode(sql));
    yield* endDdl(context, 'simple');
  }

  *#refuse(error: PgError): Procedure {
    this.#context.hooks.count('refused');
    yield* failTransaction(this.#context, 'simple');
    this.#fail(error);
  }

  *#setReadOnly(kind: Extract<StatementKind, { type: 'set-read-only' }>): Procedure {
    const { link } = this.#context;
    if (link.status === 'E') {
      this.#fail(IN_FAILED_TRANSACTION);
      return;
    }
    if (this.#parts.length > 1) this.#ensureBlock();
    if (kind.sql !== undefined) {
      const segment = this.#context.clientSegment();
      yield* this.#send(segment, kind.sql);
      if (this.#failed) return;
      segment.release();
      this.#last = undefined;
    } else {
      this.#context.sendComplete(kind.tag);
    }
    link.setReadOnly(kind.value, this.#block !== 'none');
  }

  #blockFromStatus(): void {
    this.#block = this.#context.link.status === 'I' ? 'none' : 'explicit';
  }

  #show(name: string): void {
    const { description, row } = textRow(name, this.#context.link.clientReadOnly ? 'on' : 'off');
    this.#context.client.push(description, row);
    this.#context.sendComplete('SHOW');
  }

  #fail(error: PgError): void {
    this.#context.client.push(errorResponse(error));
    this.#failed = true;
  }
}

/** Neighbours that need no attention stay one Query, with whatever stands between them. */
function joinPlain(statements: readonly Statement[], mustPart: (part: Part) => boolean): Part[] {
  const parts: Part[] = [];
  for (const { kind, start, end, locks } of statements) {
    const last = parts.at(-1);
    if (last !== undefined && isPlain(kind) && isPlain(last.kind) && !mustPart(last)) {
      last.end = end;
      last.locks ||= locks;
    } else parts.push({ kind, start, end, locks });
  }
  return parts;
}

function isPlain(kind: StatementKind): boolean {
  return (
    kind.type === 'read' ||
    (kind.type === 'write' && !locksTables(kind)) ||
    (kind.type === 'local' && kind.forgets.what === 'nothing')
  );
}

/** How many characters, as PostgreSQL counts them, come before an offset in UTF-16 units. */
function characters(text: string, end: number): number {
  let count = 0;
  for (let i = 0; i < end; i++) if ((text.charCodeAt(i) & 0xfc00) !== 0xdc00) count++;
  return count;
}
