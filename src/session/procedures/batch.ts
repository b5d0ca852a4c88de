import type { PgError } from '../../runtime/errors.ts';
import { locksTables, needsTransaction } from '../../sql/kinds.ts';
import type { LockStatement, StatementKind } from '../../sql/kinds.ts';
import { errorResponse, noticeResponse } from '../../wire/backend-messages.ts';
import { Frontend } from '../../wire/codes.ts';
import { readBind, readExecute, readParse, readStatementName } from '../../wire/frontend-fields.ts';
import { answered, refused, settled, uncancelled } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { askForKeys, setDenied, settleLocks, takeLocks } from '../advisory/taking.ts';
import { announceParse } from '../parse-message.ts';
import { ClientSegment, PassSegment } from '../segments.ts';
import type { Segment } from '../segments.ts';
import { BatchSender } from './batch-sender.ts';
import type { Repetition } from './batch-sender.ts';
import type { Prepared } from '../statements.ts';
import { askWhetherWritten, commitTransaction, failureOf, rollBack } from './commit.ts';
import { announceDdl, endDdl } from './ddl.ts';
import { beginChained, commitExplicit, endDoomed, keepWritable } from './explicit.ts';
import { failTransaction, poison } from './fail.ts';
import { attendReads } from './reads.ts';
import { KeptBatch } from './kept-batch.ts';
import { repeated } from './repeated.ts';
import { ALREADY_IN_TRANSACTION, IN_TRANSACTION, NO_TRANSACTION, onlyInBlock } from './script.ts';

/**
 * Extended-protocol messages up to a Sync, taken one by one ("Extended Query", "Pipelining"). Outside a block they form one implicit
 * transaction: the session's BEGIN goes before the first that may need one, the question whether it wrote after the client's Sync.
 * Where something must be done between two messages, a Sync of the session's own cuts the batch there: inside a block that
 * ends nothing. After an error the rest is skipped here, as the server would.
 */
export class Batch {
  readonly #context: Context;
  readonly #repetition: Repetition | undefined;
  readonly #kept: KeptBatch | undefined;
  #block: 'none' | 'implicit' | 'explicit';
  readonly #sender: BatchSender;
  #over = false;

  /** `open`: messages of this batch that were passed on before it needed attention. `kept`: what is told of each. */
  constructor(context: Context, open: Segment | undefined, repetition?: Repetition, kept?: KeptBatch) {
    this.#context = context;
    this.#sender = new BatchSender(context, open, repetition?.skip);
    this.#repetition = repetition;
    this.#kept = kept;
    this.#block = context.link.status === 'I' ? 'none' : 'explicit';
  }

  /** `current`: the message that the stream exposes is the first. */
  *run(current: boolean): Procedure {
    const { stream } = this.#context;
    if (this.#sender.segment === undefined) yield* settled(this.#context);
    let have = current;
    while (!this.#over) {
      while (!have) {
        if (this.#context.aborted !== undefined && !this.#sender.failed) yield* this.#loseConflict();
        have = stream.next();
        if (!have) yield;
      }
      have = false;
      yield* this.#message(stream.type, stream.bytes, stream.start, stream.end);
    }
  }

  *#message(type: number, bytes: Buffer, start: number, end: number): Procedure {
    this.#sender.look();
    this.#kept?.take(type, bytes, start, end);
    switch (type) {
      case Frontend.sync:
        return yield* this.#sync();
      case Frontend.terminate:
        this.#context.terminated = true;
        this.#context.link.toServer.range(bytes, start, end);
        this.#over = true;
        return;
      case Frontend.query:
      case Frontend.functionCall:
        // Out of turn; PostgreSQL takes it as the end of the batch, or skips it after an error.
        if (this.#sender.failed) return;
        this.#context.stream.unshift(Buffer.from(bytes.subarray(start, end)));
        yield* this.#conclude();
        this.#over = true;
        return;
      default:
        if (this.#sender.failed) this.#context.stream.dropRest();
        else yield* this.#extended(type, bytes, start, end);
    }
  }

  *#extended(type: number, bytes: Buffer, start: number, end: number): Procedure {
    const { statements } = this.#context;
    yield* this.#attendReads();
    if (this.#hasFailed) return;
    switch (type) {
      case Frontend.parse:
        return yield* this.#parse(bytes, start, end);
      case Frontend.bind: {
        const names = readBind(bytes, start, end);
        const prepared = statements.find(names?.statement ?? '');
        yield* this.#ensureBlock(prepared.kind);
        if (this.#sender.failed) return;
        statements.bind(names?.portal ?? '', prepared, bytes, start, end);
        break;
      }
      case Frontend.execute:
        return yield* this.#execute(statements.portal(readExecute(bytes, start, end)), bytes, start, end);
      case Frontend.close: {
        const name = readStatementName(bytes, start, end);
        this.#sender.open().closes.push(name);
        if (name !== undefined) this.#repetition?.acknowledged.delete(name);
        break;
      }
      default:
        break;
    }
    this.#sender.forward(bytes, start, end);
    this.#sender.setFlushing(type === Frontend.flush);
  }

  /** Asked anew after each step: the compiler takes the property for what it was before. */
  get #hasFailed(): boolean {
    return this.#sender.failed;
  }

  /** Behind a statement of this batch that changed how new the session's reads must be. */
  *#attendReads(): Procedure {
    if (!this.#context.reads.changed || this.#block === 'none') return;
    yield* this.#sender.cut();
    const error = this.#sender.failed ? undefined : yield* attendReads(this.#context, 'extended');
    if (error !== undefined) yield* this.#refuse(error);
  }

  *#parse(bytes: Buffer, start: number, end: number): Procedure {
    const fields = readParse(bytes, start, end);
    const known = this.#repetition?.acknowledged;
    if (fields !== undefined && fields.name !== '' && known?.delete(fields.name) === true) {
      if (this.#repetition !== undefined) this.#repetition.skip.left--;
      return;
    }
    const { prepared, replacement } = announceParse(this.#context, bytes, start, end);
    yield* this.#ensureBlock(prepared.kind);
    if (this.#sender.failed) {
      this.#context.statements.withdraw(prepared);
      return;
    }
    this.#sender.open().parses.push(prepared);
    if (replacement === undefined) this.#sender.forward(bytes, start, end);
    else this.#context.link.toServer.push(replacement);
    this.#sender.setFlushing(false);
  }

  *#execute(prepared: Prepared, bytes: Buffer, start: number, end: number): Procedure {
    const { kind } = prepared;
    this.#sender.setFlushing(false);
    if (needsTransaction(kind)) yield* this.#ensureBlock(kind);
    this.#context.mayLock(prepared.locks);
    if (prepared.setsReads) this.#context.reads.touch();
    else if (!needsTransaction(kind)) this.#context.reads.control();
    switch (kind.type) {
      case 'commit':
        return yield* this.#commit(kind.chain, bytes, start, end);
      case 'rollback':
        return yield* this.#rollback(kind.chain, bytes, start, end);
      case 'begin':
        return yield* this.#beginBlock(kind, bytes, start, end);
      case 'ddl':
        return yield* this.#ddl(prepared, bytes, start, end);
      case 'lock':
        return yield* this.#lock(prepared, kind.locks, bytes, start, end);
      case 'unsupported':
        return yield* this.#refuse(refused(kind.reason, kind.hint, kind.sqlstate));
      case 'set-read-only':
        return yield* this.#setReadOnly(kind);
      case 'write':
        return yield* this.#write(kind, bytes, start, end);
      case 'local':
        this.#sender.open().forgets.push(kind.forgets);
        if (kind.forgets.what === 'everything') this.#context.advisory.discarded();
        break;
      case 'savepoint':
        if (this.#block === 'implicit') return yield* this.#refuse(onlyInBlock(kind.command));
        this.#context.savepoint();
        break;
      case 'read':
      case 'show-read-only':
        break;
    }
    this.#sender.forward(bytes, start, end);
  }

  /** Opens the implicit transaction before a message that may read or write. */
  *#ensureBlock(kind: StatementKind): Procedure {
    if (this.#block !== 'none' || !needsTransaction(kind)) return;
    const context = this.#context;
    if (this.#sender.segment !== undefined) yield* this.#sender.cut();
    if (this.#sender.failed) return;
    const refusal = kind.type === 'write' && kind.certain ? context.commits.refusal() : undefined;
    if (refusal !== undefined) return yield* this.#refuse(refusal);
    context.hooks.count('wrapped');
    this.#sender.begin = context.injectBegin('extended');
    this.#block = 'implicit';
    yield* this.#attendReads();
  }

  *#sync(): Procedure {
    yield* this.#conclude();
    yield* settleLocks(this.#context, 'extended');
    this.#context.sendReady();
    this.#over = true;
  }

  /** The end of the batch, except ReadyForQuery. */
  *#conclude(): Procedure {
    const context = this.#context;
    const segment = this.#sender.close();
    // Sent along with the client's Sync: answered by an error when the batch failed.
    const asked =
      this.#block === 'implicit' && !this.#sender.failed ? askWhetherWritten(context, 'extended') : undefined;
    if (segment !== undefined) {
      yield* answered(segment);
      this.#sender.finished(segment);
    }
    if (asked !== undefined) yield* answered(asked);
    if (this.#sender.failed) {
      if (this.#block === 'implicit') yield* rollBack(context, 'extended');
      return;
    }
    if (asked !== undefined) {
      const error = yield* commitTransaction(context, 'extended', asked);
      if (error !== undefined) this.#sender.held = [error];
    }
    this.#sender.releaseHeld();
  }

  *#commit(chain: boolean, bytes: Buffer, start: number, end: number): Procedure {
    const context = this.#context;
    const { link } = context;
    // A Sync outside a block would end the portal.
    if (this.#block === 'none') return yield* this.#natural(bytes, start, end);
    yield* this.#sender.cut();
    if (this.#sender.failed) return;
    this.#sender.releaseHeld();
    if (context.doomed?.told === false && link.status === 'E') {
      context.client.push(yield* endDoomed(context, 'extended', context.doomed.error));
      this.#fail();
      return;
    }
    if (link.status !== 'T') return yield* this.#natural(bytes, start, end);
    if (this.#block === 'implicit') {
      if (chain) return yield* this.#refuse(onlyInBlock('COMMIT AND CHAIN'));
      context.client.push(noticeResponse(NO_TRANSACTION));
    } else {
      context.hooks.count('explicit');
    }
    const { error, modes } = yield* commitExplicit(context, 'extended', chain);
    if (error !== undefined) {
      context.client.push(error);
      this.#fail();
      return;
    }
    if (chain) yield* beginChained(context, 'extended', modes);
    this.#sender.held = [];
    context.sendComplete('COMMIT');
    this.#blockFromStatus();
  }

  *#rollback(chain: boolean, bytes: Buffer, start: number, end: number): Procedure {
    if (this.#block !== 'implicit') {
      // What AND CHAIN begins depends on the status, which must be known.
      if (chain && this.#block === 'explicit') yield* this.#sender.cut();
      if (!this.#sender.failed) yield* this.#natural(bytes, start, end);
      return;
    }
    if (chain) return yield* this.#refuse(onlyInBlock('ROLLBACK AND CHAIN'));
    yield* this.#sender.cut();
    if (this.#sender.failed) return;
    this.#sender.releaseHeld();
    this.#context.client.push(noticeResponse(NO_TRANSACTION));
    yield* rollBack(this.#context, 'extended');
    this.#context.sendComplete('ROLLBACK');
    this.#blockFromStatus();
  }

  /** Lets the server run transaction control, and looks where that leaves it. */
  *#natural(bytes: Buffer, start: number, end: number): Procedure {
    const before = this.#context.link.status;
    this.#sender.forward(bytes, start, end);
    yield* this.#sender.cut();
    if (!this.#sender.failed) yield* keepWritable(this.#context, 'extended', before);
    this.#context.forgetTransaction();
    this.#blockFromStatus();
  }

  #blockFromStatus(): void {
    this.#sender.begin = undefined;
    this.#block = this.#context.link.status === 'I' ? 'none' : 'explicit';
  }

  *#beginBlock(kind: Extract<StatementKind, { type: 'begin' }>, bytes: Buffer, start: number, end: number): Procedure {
    const context = this.#context;
    const addsMode = kind.readWrite !== kind.unchanged;
    const bare = kind.unchanged === 'BEGIN' || kind.unchanged === 'START TRANSACTION';
    if (this.#block !== 'none' && bare) {
      yield* this.#sender.cut();
      if (this.#sender.failed) return;
      // It was prepared with READ WRITE, which would be an error in a block in which a query has run.
      if (context.link.status === 'T') {
        this.#beginInBlock(kind.unchanged);
        return;
      }
    }
    const opens = this.#block === 'none';
    if (opens) context.forgetTransaction();
    const segment = this.#sender.open();
    if (this.#block === 'implicit' && segment instanceof ClientSegment) segment.suppressed = IN_TRANSACTION;
    this.#sender.forward(bytes, start, end);
    if (this.#block === 'implicit') {
      yield* this.#sender.cut();
      if (this.#sender.failed) return;
    }
    this.#block = 'explicit';
    // The text says nothing; the client's default does.
    if (!opens || !context.link.clientReadOnly || !addsMode) return;
    yield* this.#sender.cut();
    if (!this.#sender.failed) yield* answered(context.injectFixed('extended', 'SET TRANSACTION READ ONLY'));
  }

  /** What BEGIN does inside a block: nothing but a warning in a block of the client's; an implicit block becomes one. */
  #beginInBlock(sql: string): void {
    this.#sender.releaseHeld();
    if (this.#block === 'explicit') this.#context.client.push(noticeResponse(ALREADY_IN_TRANSACTION));
    this.#context.sendComplete(sql.startsWith('START') ? 'START TRANSACTION' : 'BEGIN');
    this.#block = 'explicit';
    this.#sender.begin = undefined;
  }

  *#ddl(prepared: Prepared, bytes: Buffer, start: number, end: number): Procedure {
    const context = this.#context;
    yield* this.#sender.cut();
    if (this.#sender.failed) return;
    if (context.link.status === 'E') {
      this.#sender.forward(bytes, start, end);
      return;
    }
    const error = yield* announceDdl(context, 'extended', prepared.text ?? context.clientText(''));
    if (error !== undefined) {
      yield* failTransaction(context, 'extended');
      context.client.push(error);
      this.#fail();
      return;
    }
    this.#sender.forward(bytes, start, end);
    yield* this.#sender.cut();
    yield* endDdl(context, 'extended');
  }

  *#lock(prepared: Prepared, statement: LockStatement, bytes: Buffer, start: number, end: number): Procedure {
    const context = this.#context;
    const { advisory } = context;
    yield* this.#sender.cut();
    if (this.#sender.failed) return;
    if (context.link.status === 'E') {
      this.#sender.forward(bytes, start, end);
      return;
    }
    const bind = context.statements.boundBy(readExecute(bytes, start, end));
    const types = prepared.parameterTypes ?? Buffer.alloc(0);
    const wasDirty = advisory.dirty;
    const taken = yield* takeLocks(context, statement, askForKeys(context, 'extended', statement, { bind, types }));
    if ('error' in taken) {
      this.#sender.releaseHeld();
      yield* failTransaction(context, 'extended');
      context.client.push(taken.error);
      this.#fail();
      return;
    }
    if (taken.denied.size > 0) yield* setDenied(context, taken.denied);
    advisory.dirty = true;
    this.#sender.forward(bytes, start, end);
    yield* this.#sender.cut();
    if (this.#hasFailed) return;
    advisory.dirty = wasDirty || !statement.onlyTakes;
    if (taken.denied.size > 0) yield* setDenied(context, new Set());
  }

  *#refuse(error: PgError): Procedure {
    yield* this.#sender.cut();
    if (this.#sender.failed) return;
    this.#sender.releaseHeld();
    this.#context.hooks.count('refused');
    yield* failTransaction(this.#context, 'extended');
    this.#context.client.push(errorResponse(error));
    this.#fail();
  }

  *#setReadOnly(kind: Extract<StatementKind, { type: 'set-read-only' }>): Procedure {
    const context = this.#context;
    yield* this.#sender.cut();
    if (this.#sender.failed) return;
    this.#sender.releaseHeld();
    if (kind.sql !== undefined) {
      const step = context.inject('extended', kind.sql);
      yield* answered(step);
      if (step.failed !== undefined) {
        context.client.push(failureOf(context, step.failed));
        this.#fail();
        return;
      }
    }
    context.sendComplete(kind.tag);
    context.link.setReadOnly(kind.value, this.#block !== 'none');
  }

  *#write(kind: Extract<StatementKind, { type: 'write' }>, bytes: Buffer, start: number, end: number): Procedure {
    const { commits, link } = this.#context;
    const refusal = kind.certain && link.status === 'T' ? commits.refusal() : undefined;
    if (refusal !== undefined) return yield* this.#refuse(refusal);
    if (locksTables(kind)) this.#context.stand();
    if (kind.copyIn) yield* this.#copyIn(bytes, start, end);
    else this.#sender.forward(bytes, start, end);
  }

  /** While the server takes CopyData it ignores Sync and Flush ("COPY Operations"); so they are left out. */
  *#copyIn(bytes: Buffer, start: number, end: number): Procedure {
    if (this.#sender.segment instanceof PassSegment) yield* this.#sender.cut();
    if (this.#sender.failed) return;
    this.#sender.forward(bytes, start, end);
    const segment = this.#sender.open();
    const { stream, link } = this.#context;
    if (!(segment instanceof ClientSegment)) return;
    while (!segment.copying && segment.failed === undefined && segment.commands === 0 && !segment.done) yield;
    while (segment.copying) {
      if (!stream.next()) {
        yield;
        continue;
      }
      if (stream.type === Frontend.sync || stream.type === Frontend.flush) continue;
      link.toServer.range(stream.bytes, stream.start, stream.end);
      if (stream.type !== Frontend.copyData) segment.copying = false;
    }
  }

  /** Another node's transaction needs what this one holds. */
  *#loseConflict(): Procedure {
    const context = this.#context;
    const lost = context.aborted;
    if (this.#block === 'none' || lost === undefined) {
      // First, as the requests go on until then, and what was sent may wait for the client's Sync.
      context.aborted = undefined;
      yield* uncancelled(context);
      return;
    }
    yield* this.#sender.cut();
    if (!lost.told) {
      this.#sender.held = [];
      context.client.push(errorResponse(lost.error));
      lost.told = true;
    }
    if (this.#block === 'explicit') yield* poison(context);
    else yield* rollBack(context, 'extended');
    yield* uncancelled(context);
    context.aborted = undefined;
    this.#fail();
  }

  #fail(): void {
    this.#sender.failed = true;
    this.#sender.begin = undefined;
    if (this.#context.link.status === 'I') this.#block = 'none';
  }
}

/** A batch outside a block, again where it loses a conflict, if it can be run again. */
export function repeatableBatch(context: Context): Procedure {
  const kept = new KeptBatch(context);
  return repeated(context, (again) => {
    if (again) kept.again();
    return new Batch(context, undefined, undefined, kept).run(false);
  });
}
