import { LOCK_OIDS } from '../sql/advisory.ts';
import { UNSUPPORTED_FUNCTIONS, UNSUPPORTED_OIDS } from '../sql/names.ts';
import { Frontend } from '../wire/codes.ts';
import { readBind, readExecute, readStatementName } from '../wire/frontend-fields.ts';
import { refused } from './context.ts';
import type { Context, Procedure } from './context.ts';
import { parseOnly, queryMessage } from './injected.ts';
import type { Style } from './injected.ts';
import { judge } from './judge.ts';
import type { Judgement } from './judge.ts';
import { lookAhead } from './look-ahead.ts';
import { announceParse } from './parse-message.ts';
import { Batch, repeatableBatch } from './procedures/batch.ts';
import { commitQuery } from './procedures/explicit.ts';
import { repeated } from './procedures/repeated.ts';
import { failDoomed, refuseNext, refuseQuery } from './procedures/fail.ts';
import { attendReads } from './procedures/reads.ts';
import { Script } from './procedures/script.ts';
import { checkOnly, wrapped } from './procedures/wrapped.ts';
import { Questions } from './questions.ts';
import { changesReads, locksTables } from '../sql/kinds.ts';
import { PassSegment } from './segments.ts';
import type { Segment } from './segments.ts';
import type { Prepared } from './statements.ts';
import { isRepeatable } from './repeatable.ts';
import { survey } from './survey.ts';

/** pg_proc.dat: built-in oids never change. */
const SET_CONFIG = 2077;

const FASTPATH_LOCK = refused(
  'advisory locks cannot be taken by function call messages in a coordinated database',
  'Call the function in a SELECT of its own, such as SELECT pg_advisory_lock(1).',
);

/** What became of the client's next message: passed on, nothing to take or not now, or a procedure for it. */
export type Dispatched = 'passed' | 'wait' | Procedure;

/** Decides about each message of the client's while no procedure is at work. */
export class Dispatcher {
  readonly #context: Context;
  readonly #retryBytes: number;
  readonly #questions = new Questions();
  /** The client's next message, or the batch that it begins, has waited for what it must show. */
  #attended = false;

  constructor(context: Context, retryBytes: number) {
    this.#context = context;
    this.#retryBytes = retryBytes;
  }

  next(): Dispatched {
    const { stream, link } = this.#context;
    // While transaction control is under way nobody knows whether what follows stands in a block.
    if (link.controlInFlight > 0) return 'wait';
    const type = stream.peek();
    if (type === undefined) return 'wait';
    if (this.#context.doomed?.failed === false && this.#runsSomething(type)) return failDoomed(this.#context);
    if (link.open === undefined && isStatement(type)) {
      const refusal = link.status === 'E' ? undefined : this.#context.commits.readRefusal();
      if (refusal !== undefined) return refuseNext(this.#context, refusal);
      const first = this.#attendReads() ?? this.#questions.next(this.#context);
      if (first !== undefined) return first;
      this.#attended = false;
    }
    if (link.status === 'I' && link.open === undefined && isExtended(type)) return this.#implicitBatch();
    if (!stream.next()) return 'wait';
    // Out of turn, before the Sync of a batch that was passed on so far.
    if (link.open !== undefined && (type === Frontend.query || type === Frontend.functionCall)) {
      return new Batch(this.#context, link.open).run(true);
    }
    switch (type) {
      case Frontend.query:
        return this.#query();
      case Frontend.functionCall:
        return this.#functionCall();
      case Frontend.parse:
      case Frontend.bind:
      case Frontend.describe:
      case Frontend.execute:
      case Frontend.close:
      case Frontend.flush:
        return this.#extended(type);
      case Frontend.sync:
        return this.#sync();
      case Frontend.terminate:
        this.#context.terminated = true;
        return this.#pass();
      default:
        return this.#pass();
    }
  }

  /** What must be done so that the next message, or the batch that it begins, shows what it must. */
  #attendReads(): Procedure | 'wait' | undefined {
    const context = this.#context;
    if (!context.reads.active || this.#attended || context.link.status === 'E') return undefined;
    const ahead = lookAhead(context);
    if (!ahead.whole && !ahead.showsData && context.stream.buffered < this.#retryBytes) return 'wait';
    return ahead.showsData ? this.#attend(ahead.extended ? 'extended' : 'simple') : undefined;
  }

  *#attend(style: Style): Procedure {
    const context = this.#context;
    const error = yield* attendReads(context, style);
    if (context.aborted !== undefined) return;
    if (error === undefined) this.#attended = true;
    else yield* refuseNext(context, error);
  }

  /** Whether the next message, or the batch that it begins, does more than prepare and describe statements. */
  #runsSomething(next: number): boolean {
    if (!isExtended(next)) return next !== Frontend.terminate && next !== Frontend.sync;
    let prepares = false;
    this.#context.stream.lookAhead((type) => {
      prepares = type === Frontend.sync;
      return type !== Frontend.parse && type !== Frontend.describe && type !== Frontend.close;
    });
    return !prepares;
  }

  /** A read that turned out to write: once more, in a transaction. */
  repeat(segment: PassSegment): Procedure {
    const { context, message } = { context: this.#context, message: segment.retained ?? Buffer.alloc(0) };
    context.hooks.count('retried');
    const skip = { left: segment.forwarded };
    if (message[0] === Frontend.query) {
      return wrapped(context, { message, style: 'simple', certain: false, copyIn: false, locks: true, skip });
    }
    const acknowledged = new Set(segment.parses.slice(0, segment.parsed).map(({ name }) => name));
    context.stream.unshift(message);
    return new Batch(context, undefined, { skip, acknowledged }).run(false);
  }

  learn(segment: PassSegment): void {
    const { retained } = segment;
    for (const prepared of segment.executes) {
      if (prepared.kind.type !== 'read') continue;
      prepared.kind = { type: 'write', certain: false, copyIn: false };
      prepared.locks = true;
    }
    if (retained !== undefined) survey.learn(this.#context, retained);
  }

  /** Sends the exposed message on, in the open segment or in none. */
  #pass(): Dispatched {
    const { stream, link } = this.#context;
    if (stream.type === Frontend.copyDone || stream.type === Frontend.copyFail) link.copying = false;
    link.toServer.range(stream.bytes, stream.start, stream.end);
    return 'passed';
  }

  #passQuery(options: { implicit?: boolean; control?: boolean; retain?: boolean }): PassSegment {
    const { stream, link } = this.#context;
    const { start, end } = stream;
    const keep = options.retain === true && end - start <= this.#retryBytes;
    const segment = new PassSegment(options.implicit === true, keep ? stream.bytes.subarray(start, end) : undefined);
    segment.closed = true;
    segment.control = options.control === true;
    link.add(segment);
    link.toServer.range(stream.bytes, start, end);
    return segment;
  }

  #query(): Dispatched {
    const { stream, link } = this.#context;
    const judgement = judge(this.#context, stream.bytes, stream.start + 5, stream.end - 1);
    if (changesReadsAtOnce(judgement)) this.#context.reads.touch();
    return link.status === 'I' ? this.#idleQuery(judgement) : this.#blockQuery(judgement);
  }

  get #message(): Buffer {
    const { stream } = this.#context;
    return stream.bytes.subarray(stream.start, stream.end);
  }

  get #sql(): Buffer {
    const { stream } = this.#context;
    return stream.bytes.subarray(stream.start + 5, stream.end - 1);
  }

  #idleQuery(judgement: Judgement): Dispatched {
    const context = this.#context;
    const { link } = context;
    switch (judgement.type) {
      case 'read':
        context.hooks.count('read');
        this.#passQuery({ implicit: true, retain: !link.clientReadOnly });
        return 'passed';
      case 'plain':
        return this.#wrappedQuery(judgement);
      case 'local':
        if (judgement.statement.kind.type === 'local') {
          this.#passQuery({ control: true }).forgets.push(judgement.statement.kind.forgets);
          if (judgement.statement.kind.forgets.what === 'everything') context.advisory.discarded();
        }
        return 'passed';
      case 'single':
        return this.#idleSingle(judgement);
      case 'several':
        return new Script(context, judgement.text, judgement.statements).run();
      case 'syntax-error':
        if (judgement.several) return checkOnly(context, parseOnly(this.#sql));
        return wrapped(context, {
          message: this.#message,
          ...{ style: 'simple', certain: false, copyIn: false, locks: true },
        });
      case 'refused':
        return refuseQuery(context, refused(judgement.reason, judgement.hint));
    }
  }

  #wrappedQuery({ certain, copyIn, locks, query, setsReads }: Extract<Judgement, { type: 'plain' }>): Procedure {
    const context = this.#context;
    const { bytes, start, end } = context.stream;
    const attempt = () =>
      wrapped(context, { message: bytes.subarray(start, end), style: 'simple', certain, copyIn, locks });
    const repeatable = query && setsReads !== true && isRepeatable(context, bytes, start, end);
    return repeatable ? repeated(context, attempt) : attempt();
  }

  #idleSingle({ statement, text }: Extract<Judgement, { type: 'single' }>): Dispatched {
    const context = this.#context;
    const { kind } = statement;
    switch (kind.type) {
      case 'begin': {
        const segment = new PassSegment(false);
        segment.closed = true;
        segment.control = true;
        context.forgetTransaction();
        context.link.add(segment, queryMessage(context.link.clientReadOnly ? kind.unchanged : kind.readWrite));
        return 'passed';
      }
      case 'commit':
      case 'rollback':
      case 'savepoint':
        this.#passQuery({ control: true });
        return 'passed';
      default:
        return new Script(context, text, [statement]).run();
    }
  }

  #blockQuery(judgement: Judgement): Dispatched {
    const context = this.#context;
    context.mayLock(mayLock(judgement));
    switch (judgement.type) {
      case 'plain': {
        const refusal = judgement.certain && context.link.status === 'T' ? context.commits.refusal() : undefined;
        if (refusal !== undefined) return refuseQuery(context, refusal);
        this.#passQuery({});
        return 'passed';
      }
      case 'read':
        this.#passQuery({});
        return 'passed';
      case 'local':
        if (judgement.statement.kind.type === 'local')
          this.#passQuery({}).forgets.push(judgement.statement.kind.forgets);
        return 'passed';
      case 'single':
        return this.#blockSingle(judgement);
      case 'several':
        return new Script(context, judgement.text, judgement.statements).run();
      case 'syntax-error':
        if (judgement.several) return checkOnly(context, parseOnly(this.#sql));
        this.#passQuery({ control: true });
        return 'passed';
      case 'refused':
        return refuseQuery(context, refused(judgement.reason, judgement.hint));
    }
  }

  #blockSingle({ statement, text }: Extract<Judgement, { type: 'single' }>): Dispatched {
    const context = this.#context;
    const { kind } = statement;
    switch (kind.type) {
      case 'savepoint':
        context.savepoint();
        this.#passQuery({});
        return 'passed';
      case 'begin':
        this.#passQuery({});
        return 'passed';
      case 'rollback':
        // Others may have what it lets go of when the client hears of it.
        if (kind.chain || context.advisory.any) return new Script(context, text, [statement]).run();
        this.#passQuery({ control: true });
        return 'passed';
      case 'commit':
        if (kind.chain) return new Script(context, text, [statement]).run();
        return commitQuery(context, this.#sql);
      default:
        // In a failed block PostgreSQL refuses everything else itself.
        if (context.link.status === 'T') return new Script(context, text, [statement]).run();
        this.#passQuery({});
        return 'passed';
    }
  }

  #functionCall(): Dispatched {
    const { stream, link } = this.#context;
    const oid = stream.end - stream.start >= 9 ? stream.bytes.readUInt32BE(stream.start + 5) : 0;
    if (oid === SET_CONFIG) this.#context.reads.touch();
    const name = UNSUPPORTED_OIDS.get(oid);
    if (name !== undefined) {
      const hint = UNSUPPORTED_FUNCTIONS.get(name) ?? '';
      return refuseQuery(this.#context, refused(`${name}() is not supported in a coordinated database`, hint));
    }
    if (this.#context.commits.advisoryLocks !== undefined && LOCK_OIDS.has(oid))
      return refuseQuery(this.#context, FASTPATH_LOCK);
    if (link.status === 'I' && !link.clientReadOnly) {
      return wrapped(this.#context, {
        message: this.#message,
        ...{ style: 'extended', certain: false, copyIn: false, locks: false },
      });
    }
    this.#context.mayLock(false);
    this.#passQuery({ implicit: link.status === 'I' });
    return 'passed';
  }

  /** A batch outside a block, of which nothing has been sent: passed on only when it is known to be a read up to its Sync. */
  #implicitBatch(): Dispatched {
    const context = this.#context;
    const result = survey.batch(context, this.#retryBytes);
    if (result === 'wait') return 'wait';
    if (result === 'attend') {
      return context.statementRetries > 0 ? repeatableBatch(context) : new Batch(context, undefined).run(false);
    }
    const { stream, link } = context;
    const { segment, bytes, start, end } = result;
    if (segment.setsReads) context.reads.touch();
    context.hooks.count('read');
    link.add(segment);
    link.toServer.range(bytes, start, end);
    stream.skipTo(end);
    return 'passed';
  }

  /** A message of a batch in a block: passed on, unless something must be done before it. */
  #extended(type: number): Dispatched {
    const context = this.#context;
    const { stream, statements } = context;
    const { bytes, start, end } = stream;
    // Behind a statement of the same batch that changed how new reads must be.
    if (context.reads.changed && context.link.open !== undefined)
      return new Batch(context, context.link.open).run(true);
    switch (type) {
      case Frontend.parse: {
        const { prepared, replacement } = announceParse(context, bytes, start, end);
        this.#openSegment().parses.push(prepared);
        if (replacement === undefined) break;
        context.link.toServer.push(replacement);
        return 'passed';
      }
      case Frontend.bind: {
        const names = readBind(bytes, start, end);
        statements.bind(names?.portal ?? '', statements.find(names?.statement ?? ''), bytes, start, end);
        break;
      }
      case Frontend.execute: {
        const prepared = statements.portal(readExecute(bytes, start, end));
        if (needsAttention(context, prepared)) return new Batch(context, context.link.open).run(true);
        context.mayLock(prepared.locks);
        if (locksTables(prepared.kind)) context.stand();
        if (prepared.kind.type === 'local') this.#openSegment().forgets.push(prepared.kind.forgets);
        if (prepared.setsReads) context.reads.touch();
        else if (prepared.kind.type === 'savepoint') {
          context.reads.control();
          context.savepoint();
        }
        break;
      }
      case Frontend.close:
        this.#openSegment().closes.push(readStatementName(bytes, start, end));
        break;
      default:
        break;
    }
    this.#openSegment();
    return this.#pass();
  }

  #openSegment(): Segment {
    const { link } = this.#context;
    return link.open ?? link.add(new PassSegment(false));
  }

  #sync(): Dispatched {
    this.#openSegment().closed = true;
    return this.#pass();
  }
}

/** Begins something that the server answers. */
export function isStatement(type: number): boolean {
  return type === Frontend.query || type === Frontend.functionCall || isExtended(type);
}

function isExtended(type: number): boolean {
  switch (type) {
    case Frontend.parse:
    case Frontend.bind:
    case Frontend.describe:
    case Frontend.execute:
    case Frontend.close:
    case Frontend.flush:
      return true;
    default:
      return false;
  }
}

/** Inside a block, where it is one message; several statements that are taken one by one are asked one by one. */
function mayLock(judgement: Judgement): boolean {
  switch (judgement.type) {
    case 'plain':
      return judgement.locks;
    case 'local':
    case 'single':
      return judgement.statement.locks;
    default:
      return judgement.type === 'syntax-error';
  }
}

/** What the session need not watch going on: other texts are taken statement by statement. */
function changesReadsAtOnce(judgement: Judgement): boolean {
  if (judgement.type === 'plain') return judgement.setsReads === true;
  return judgement.type === 'local' && changesReads(judgement.statement.kind);
}

/** Inside a block. */
function needsAttention(context: Context, { kind }: Prepared): boolean {
  switch (kind.type) {
    case 'read':
    case 'savepoint':
    case 'local':
    case 'show-read-only':
      return false;
    case 'write':
      return kind.copyIn || (kind.certain && context.commits.refusal() !== undefined);
    default:
      return true;
  }
}
