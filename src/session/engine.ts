import { PgError } from '../runtime/errors.ts';
import { editError, errorResponse, readError } from '../wire/backend-messages.ts';
import { Frontend } from '../wire/codes.ts';
import { ClientStream } from '../wire/client-stream.ts';
import type { Turn } from '../commit/turns.ts';
import type { Gid } from '../runtime/ids.ts';
import type { Classifier } from '../sql/classifier.ts';
import { LOCKS_LOST } from './advisory/session-locks.ts';
import { settleLocks } from './advisory/taking.ts';
import { Context } from './context.ts';
import type { Procedure, SessionHooks } from './context.ts';
import { COPY_FAIL } from './injected.ts';
import { Dispatcher, isStatement } from './dispatch.ts';
import { ClientOutbox } from './client-outbox.ts';
import type { Outbox } from './outbox.ts';
import type { Commits, ConflictVictim, DdlAnnouncer, LockCarrier } from './ports.ts';
import { Batch } from './procedures/batch.ts';
import { loseConflict, rearm } from './procedures/fail.ts';
import { beginReads } from './procedures/reads.ts';
import { ClientSegment, PassSegment } from './segments.ts';
import type { Segment } from './segments.ts';
import { ServerLink } from './server-link.ts';
import { Statements } from './statements.ts';

/** Bytes that may wait while the session is busy, before the client's socket is paused. */
const HIGH_WATER = 64 * 1024;
/** The same of a client that has not been let in, of whatever message: PostgreSQL takes up to 64 kB in one. */
const AUTHENTICATION_BYTES = 2 * HIGH_WATER;
/** Milliseconds for which a transaction block that locks whole tables keeps its standing while its client sends nothing. */
const STANDS_IDLE = 1000;
/** What stands in for the rest of a CopyData message. */
const PADDING = Buffer.alloc(64 * 1024);

export interface EngineOptions {
  readonly database: string;
  /** The client's own default_transaction_read_only at startup. */
  readonly readOnly: boolean;
  readonly commits: Commits;
  readonly ddl: DdlAnnouncer;
  readonly locks: LockCarrier;
  readonly classifier: Classifier;
  readonly hooks: SessionHooks;
  /** Keeps cancelling what the server runs while `needed`; done when no cancel request is on its way any more. */
  readonly cancel: (needed: () => boolean) => { readonly done: boolean };
  /** The server's process id and cancel key, during startup. */
  readonly onKey: (pid: number, key: Buffer) => void;
  /** Takes a step that no socket event caused, and then sends what there is to send. */
  readonly run: (step: () => void) => void;
  readonly retryBytes: number;
  /** The session must end at once, or when what it commits is decided: others may be given the locks that it holds. */
  readonly onLost: (error: PgError) => void;
  readonly statementRetries: number;
}

/**
 * One session between its two connections, without any: bytes in, bytes out. The client's messages are either passed on as they
 * are, or handled by one procedure at a time while those behind them wait.
 */
export class Engine implements ConflictVictim {
  readonly toClient = new ClientOutbox();
  readonly #options: EngineOptions;
  readonly #context: Context;
  readonly #link: ServerLink;
  readonly #stream = new ClientStream();
  readonly #dispatcher: Dispatcher;
  #procedure: Procedure | undefined;
  #retry: PassSegment | undefined;
  /** Of those who lost a conflict, it is this client's turn, and its message has not been taken yet. */
  #hasTurn = false;
  #pumping = false;
  #authenticating = true;
  /** When the server last answered something, in monotonic milliseconds. */
  #answeredAt = 0;
  /** Got something else for the rest of a CopyData message: whatever the server finds wrong with that, the client must not hear of it. */
  #padded: Segment | undefined;
  /** The server ended the session while a transaction was being committed, and the client was not told so. */
  #goodbyeHeldBack = false;

  constructor(options: EngineOptions) {
    this.#options = options;
    const statements = new Statements();
    this.#link = new ServerLink(this.toClient, statements, options.readOnly, {
      error: (segment, sqlstate, message) => this.#onError(segment, sqlstate, message),
      key: options.onKey,
      segmentDone: (segment) => this.#onSegmentDone(segment),
    });
    this.#context = new Context({
      ...options,
      link: this.#link,
      stream: this.#stream,
      statements,
      wake: () => this.#wake(),
    });
    this.#dispatcher = new Dispatcher(this.#context, options.retryBytes);
    const startup = new PassSegment(false);
    startup.closed = true;
    this.#procedure = this.#authenticate(this.#link.add(startup));
  }

  get toServer(): Outbox {
    return this.#link.toServer;
  }

  /** The client should not be read from: what it has sent waits already. */
  get congested(): boolean {
    if (this.#authenticating) return this.#stream.buffered > AUTHENTICATION_BYTES;
    return this.#stream.buffered > HIGH_WATER && this.#stream.peek() !== undefined;
  }

  /** Neither a transaction nor an answer is outstanding. */
  get idle(): boolean {
    return this.#procedure === undefined && this.#link.queue.length === 0 && this.#link.status === 'I';
  }

  /** From PREPARE TRANSACTION on until the outcome is known. */
  get committing(): boolean {
    return this.#context.committing;
  }

  /** The conflict that the transaction in progress has lost, until it is rolled back. */
  get conflict(): PgError | undefined {
    return this.#context.aborted?.error;
  }

  /** The client has said that it leaves. */
  get terminated(): boolean {
    return this.#context.terminated;
  }

  /** The client has been told, in the server's words, why the connection is about to close. */
  get serverSaidGoodbye(): boolean {
    return this.#link.fatal && !this.#goodbyeHeldBack;
  }

  /** In the middle of a message to the client. */
  get midMessage(): boolean {
    return this.#link.midMessage;
  }

  fromClient(chunk: Buffer): void {
    // After a pause, before anyone could say so.
    const { advisory } = this.#context;
    if (!advisory.isSure) return this.#options.onLost(LOCKS_LOST);
    advisory.resume();
    this.#stream.push(chunk);
    this.#pump();
  }

  fromServer(chunk: Buffer): void {
    this.#link.push(chunk);
    this.#pump();
  }

  /** After something outside both connections has happened, such as the end of a cancel request. */
  resume(): void {
    this.#wake();
  }

  serverClosed(): void {
    this.#context.serverLost = true;
    if (this.#context.committing) this.#pump();
    else this.toClient.release();
  }

  /** The client has closed its connection. */
  clientClosed(): void {
    this.#context.terminated = true;
  }

  /** Both connections are gone. What is being committed is the coordinator's already. */
  closed(): void {
    // What is still unanswered never will be: nobody must wait for that.
    this.#context.aborted = undefined;
    this.#context.reads.cancel();
    this.#context.endTurn('other');
    this.#context.forgetTransaction();
    this.#context.advisory.close();
  }

  /** A cancel request has come; true when the server must not be told: it was for something else, or comes too late. */
  cancel(): boolean {
    const context = this.#context;
    context.cancelled = true;
    if (context.committing) return true;
    if (!context.waitsToRepeat) return context.reads.cancel() || context.advisory.cancel();
    this.#wake();
    return true;
  }

  get standing(): Gid | undefined {
    const { stands, gid } = this.#context;
    if (!stands || this.#link.status !== 'T') return undefined;
    const runs = this.#procedure !== undefined || this.#link.queue.length > 0;
    return runs || performance.now() - this.#answeredAt < STANDS_IDLE ? gid : undefined;
  }

  abort(error: PgError): void {
    const context = this.#context;
    const link = this.#link;
    if (context.committing || context.aborted !== undefined || context.doomed !== undefined) return;
    if (this.idle) return;
    context.aborted = { error, told: false };
    context.stands = false;
    if (link.queue.length > 0) {
      if (link.copying) this.#failCopy();
      context.cancel = this.#options.cancel(
        () => context.aborted !== undefined && link.queue.length > 0 && !context.serverLost,
      );
    }
    this.#wake();
  }

  #failCopy(): void {
    const [segment] = this.#link.queue;
    this.#link.copying = false;
    if (segment instanceof ClientSegment) segment.copying = false;
    // The client may take its time with a message that it has begun: it is ended without it.
    for (let rest = this.#stream.rest; rest > 0; rest -= PADDING.length)
      this.#link.toServer.push(PADDING.subarray(0, Math.min(rest, PADDING.length)));
    if (this.#stream.rest > 0) this.#padded = segment;
    this.#stream.dropRest();
    this.#link.toServer.push(COPY_FAIL);
  }

  #wake(): void {
    this.#options.run(() => this.#pump());
  }

  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    try {
      while (this.#step());
    } finally {
      this.#pumping = false;
    }
  }

  /** One step forward; false when there is nothing to do before something happens. */
  #step(): boolean {
    // In the middle of a message the server can't be told anything else.
    if (this.#stream.rest > 0) return this.#restOfCopyData();
    if (this.#procedure !== undefined) {
      if (this.#procedure.next().done !== true) return false;
      this.#procedure = undefined;
      return true;
    }
    this.#procedure = this.#lostConflict();
    if (this.#procedure !== undefined) return true;
    // Whatever were sent now, be it the session's own statement, the request could hit.
    if (this.#context.cancel?.done === false) return false;
    if (this.#link.queue.length === 0) {
      this.#procedure = this.#ownBusiness();
      if (this.#procedure !== undefined) return true;
    }
    if (!this.#hasTurn && this.#beginsSomething) {
      const turn = this.#context.takeTurn();
      if (turn !== undefined) {
        this.#hasTurn = true;
        this.#procedure = granted(turn);
        return true;
      }
    }
    const next = this.#dispatcher.next();
    if (next !== 'wait') this.#hasTurn = false;
    if (typeof next === 'object') this.#procedure = next;
    return next !== 'wait';
  }

  /** The client's next message begins a transaction, implicit or not. */
  get #beginsSomething(): boolean {
    const { queue, open, status } = this.#link;
    if (status !== 'I' || queue.length > 0 || open !== undefined) return false;
    const type = this.#stream.peek();
    return type !== undefined && isStatement(type);
  }

  /** What comes of a CopyData message that was passed on in part, whatever has happened meanwhile. */
  #restOfCopyData(): boolean {
    if (!this.#stream.next()) return false;
    this.toServer.range(this.#stream.bytes, this.#stream.start, this.#stream.end);
    return true;
  }

  #lostConflict(): Procedure | undefined {
    const { open } = this.#link;
    if (this.#context.aborted === undefined || this.idle) return undefined;
    return open === undefined ? loseConflict(this.#context) : new Batch(this.#context, open).run(false);
  }

  /** What comes before the client's next message, when nothing is under way. */
  #ownBusiness(): Procedure | undefined {
    const context = this.#context;
    // Nothing is left of it.
    if (this.idle) context.aborted = undefined;
    if (this.#link.status === 'I') {
      context.doomed = undefined;
      if (!this.#hasTurn) context.endTurn('other');
      if (context.revealed || context.stands) context.forgetTransaction();
      context.advisory.transactionEnded();
    }
    if (context.advisory.dirty && this.#link.status !== 'E' && !context.serverLost)
      return settleLocks(context, 'extended');
    const retry = this.#retry;
    this.#retry = undefined;
    if (retry !== undefined) return this.#dispatcher.repeat(retry);
    return !this.#link.netArmed && this.#link.status === 'I' ? rearm(context) : undefined;
  }

  /** Until the first ReadyForQuery the client's password messages go through, and nothing else. */
  *#authenticate(startup: PassSegment): Procedure {
    while (!startup.done) {
      while (this.#stream.peek() === Frontend.password && this.#stream.next()) {
        this.toServer.range(this.#stream.bytes, this.#stream.start, this.#stream.end);
      }
      yield;
    }
    this.#authenticating = false;
    yield* beginReads(this.#context);
  }

  #onSegmentDone(segment: Segment): void {
    this.#answeredAt = performance.now();
    if (segment instanceof PassSegment && segment.retry) this.#retry = segment;
  }

  #onError(segment: Segment | undefined, sqlstate: string, message: Buffer): Buffer | 'drop' | undefined {
    const context = this.#context;
    if (this.#link.fatal) {
      // The server's end says nothing of the transaction that it holds prepared: its client must hear the outcome first.
      this.#goodbyeHeldBack = context.committing;
      return context.committing ? 'drop' : undefined;
    }
    if (segment === undefined) return undefined;
    const { aborted, doomed } = context;
    if (aborted !== undefined && (sqlstate === '57014' || segment === this.#padded)) {
      if (segment instanceof ClientSegment && segment.repeatable) {
        segment.withheld = true;
        return 'drop';
      }
      aborted.told = true;
      return errorResponse(aborted.error);
    }
    if (doomed !== undefined && (sqlstate === '3B001' || (sqlstate === '25P02' && !doomed.told))) {
      doomed.told = true;
      return errorResponse(doomed.error);
    }
    if (sqlstate === '25006' && segment instanceof PassSegment && segment.implicit)
      return this.#wroteAfterAll(segment, message);
    if (sqlstate === '2D000') return editError(message, () => undefined, { H: COMMIT_INSIDE_HINT });
    if (segment instanceof ClientSegment && segment.offset > 0) return shiftPosition(message, segment.offset);
    return undefined;
  }

  /** What was passed on as a read tried to write. */
  #wroteAfterAll(segment: PassSegment, message: Buffer): Buffer | 'drop' | undefined {
    if (this.#link.clientReadOnly) return undefined;
    this.#dispatcher.learn(segment);
    const repeatable = segment.retained !== undefined && !segment.rows && this.#link.queue.length === 1;
    if (repeatable) {
      segment.retry = true;
      // Nothing may overtake it.
      this.#link.markControl(segment);
      return 'drop';
    }
    return editError(message, () => undefined, {
      H: 'The statement was taken for a read, but it writes. It is known now: repeat it, or run it in a transaction block.',
    });
  }
}

function* granted(turn: Turn): Procedure {
  while (!turn.granted) yield;
}

const COMMIT_INSIDE_HINT =
  'A statement runs in a transaction that is committed on every node: procedures and DO blocks cannot end it themselves.';

/** The server counted from the beginning of the part it was given. */
function shiftPosition(message: Buffer, characters: number): Buffer {
  if (readError(message).position === undefined) return message;
  return editError(message, (code, value) => (code === 'P' ? String(Number(value) + characters) : undefined));
}

/** For a client whose server went away without a word, as PostgreSQL's own words would be. */
export const SERVER_GONE = new PgError('57P01', 'the connection to the local PostgreSQL server was lost', {
  severity: 'FATAL',
});
