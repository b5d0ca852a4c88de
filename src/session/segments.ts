import type { Forgets } from '../sql/kinds.ts';
import { readDataRow, readError, readSqlState } from '../wire/backend-messages.ts';
import { Backend } from '../wire/codes.ts';
import type { TransactionStatus } from '../wire/codes.ts';
import type { PgError } from '../runtime/errors.ts';
import type { Prepared } from './statements.ts';
import { isAsynchronous } from '../wire/server-stream.ts';

/**
 * A piece of what is sent to the server that it answers with exactly one ReadyForQuery: a Query, a FunctionCall, or messages up
 * to a Sync. Answers come in the order of the segments, so the first one not done says what becomes of what arrives.
 */
export abstract class Segment {
  /** The message that makes the server answer ReadyForQuery has been sent. */
  closed = false;
  done = false;
  /** From its ReadyForQuery. */
  status: TransactionStatus | undefined;
  /** Its first ErrorResponse, as the server sent it. */
  failed: Buffer | undefined;
  /** Holds transaction control: until it is done nobody knows whether a transaction is open. */
  control = false;
  /** Parse and Close messages in it, in order, to be matched with ParseComplete and CloseComplete. */
  readonly parses: Prepared[] = [];
  readonly closes: (string | undefined)[] = [];
  parsed = 0;
  closedNames = 0;
  /** Takes effect when the segment succeeds. */
  forgets: Forgets[] = [];
  /** The client's own statement, whose errors it is told; false for what the session injects. */
  abstract readonly ofClient: boolean;

  /** Whether a message is to be had whole; errors, ReadyForQuery and parameters always are. */
  abstract wants(type: number): boolean;
  /** Whether a message that streams by goes to the client. */
  abstract stream(type: number): boolean;
  /** Whether a whole message goes to the client as it is. */
  abstract whole(type: number, message: Buffer): boolean;
}

/** Passed on straight, both ways. */
export class PassSegment extends Segment {
  readonly ofClient = true;
  /** Of an implicit transaction: read-only by default. */
  readonly implicit: boolean;
  /** The client's messages, while they are kept for a second try as a write. */
  retained: Buffer | undefined;
  /** Prepared statements that it executes. */
  readonly executes: Prepared[] = [];
  /** Messages forwarded so far, without asynchronous ones. */
  forwarded = 0;
  rows = false;
  retry = false;
  /** A statement in it may change how new the session's reads must be. */
  setsReads = false;
  /** False when its ReadyForQuery answers a Sync that was injected. */
  tellsReady = true;

  constructor(implicit: boolean, retained?: Buffer) {
    super();
    this.implicit = implicit;
    this.retained = retained;
  }

  wants(): boolean {
    return false;
  }

  stream(type: number): boolean {
    if (type === Backend.dataRow || type === Backend.copyData || type === Backend.commandComplete) this.rows = true;
    if (!isAsynchronous(type)) this.forwarded++;
    return true;
  }

  whole(): boolean {
    return true;
  }
}

/** Sent by the session itself: the client sees nothing of it but notices. */
export class InjectedSegment extends Segment {
  readonly ofClient = false;
  readonly rows: (string | null)[][] = [];
  tag = '';

  constructor() {
    super();
    this.closed = true;
  }

  get error(): PgError | undefined {
    return this.failed === undefined ? undefined : readError(this.failed);
  }

  wants(type: number): boolean {
    return type === Backend.dataRow || type === Backend.commandComplete;
  }

  stream(type: number): boolean {
    return isAsynchronous(type);
  }

  whole(type: number, message: Buffer): boolean {
    if (type === Backend.dataRow) this.rows.push(readDataRow(message));
    else if (type === Backend.commandComplete) this.tag = message.toString('latin1', 5, message.length - 1);
    return false;
  }
}

/** Messages of an answer that a repeated statement must not send again. */
export interface Skip {
  left: number;
}

/**
 * The client's statement inside a transaction of the session's making. The end of the answer, from the last CommandComplete on,
 * is held back until the outcome is known, because only then is it true.
 */
export class ClientSegment extends Segment {
  readonly ofClient = true;
  /** Nothing of it reaches the client when this segment, its BEGIN, failed. */
  readonly after: InjectedSegment | undefined;
  /** Characters before this part of a query string: the server counts positions from the part's beginning. */
  readonly offset: number;
  /** The client is not told when it loses a conflict: it is run again. */
  readonly repeatable: boolean;
  /** It has lost one, and the client was not told. */
  withheld = false;
  readonly #skip: Skip;
  readonly #release: (held: Buffer[]) => void;
  /** A Flush was the last message of the client: it waits for all there is. */
  flushing = false;
  /** SQLSTATE of a notice that is true only of the session's own BEGIN. */
  suppressed: string | undefined;
  held: Buffer[] = [];
  /** The server waits for CopyData. */
  copying = false;
  commands = 0;

  constructor(options: {
    release: (held: Buffer[]) => void;
    after?: InjectedSegment | undefined;
    offset?: number;
    skip?: Skip;
    repeatable?: boolean;
  }) {
    super();
    this.#release = options.release;
    this.after = options.after;
    this.offset = options.offset ?? 0;
    this.#skip = options.skip ?? { left: 0 };
    this.repeatable = options.repeatable ?? false;
  }

  wants(type: number): boolean {
    switch (type) {
      case Backend.commandComplete:
      case Backend.emptyQuery:
      case Backend.portalSuspended:
      case Backend.functionCallResponse:
        return true;
      case Backend.notice:
        return this.held.length > 0 || this.suppressed !== undefined;
      case Backend.notification:
      case Backend.closeComplete:
        return this.held.length > 0;
      default:
        return false;
    }
  }

  stream(type: number): boolean {
    if (this.after?.failed !== undefined) return isAsynchronous(type);
    if (type === Backend.copyInResponse) this.copying = true;
    if (isAsynchronous(type)) return true;
    if (this.#skipped()) return false;
    this.release();
    return true;
  }

  whole(type: number, message: Buffer): boolean {
    if (this.after?.failed !== undefined) return false;
    if (type === Backend.notice && this.suppressed === readSqlState(message)) return false;
    if (!isAsynchronous(type) && this.#skipped()) return false;
    if (type === Backend.commandComplete || type === Backend.emptyQuery || type === Backend.portalSuspended) {
      this.commands++;
      this.copying = false;
      this.release();
    }
    if (this.held.length === 0 && (isAsynchronous(type) || this.flushing)) return true;
    this.held.push(Buffer.from(message));
    return false;
  }

  release(): void {
    if (this.held.length === 0) return;
    this.#release(this.held);
    this.held = [];
  }

  #skipped(): boolean {
    if (this.#skip.left <= 0) return false;
    this.#skip.left--;
    return true;
  }
}
