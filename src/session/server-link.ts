import type { Forgets } from '../sql/kinds.ts';
import {
  isFatal,
  parameterStatus,
  readBackendKey,
  readErrorFields,
  readParameterStatus,
  readReady,
} from '../wire/backend-messages.ts';
import { Backend } from '../wire/codes.ts';
import type { TransactionStatus } from '../wire/codes.ts';
import { ServerStream } from '../wire/server-stream.ts';
import type { ServerSink } from '../wire/server-stream.ts';
import type { ClientOutbox } from './client-outbox.ts';
import { Outbox } from './outbox.ts';
import { ClientSegment, InjectedSegment, PassSegment } from './segments.ts';
import type { Segment } from './segments.ts';
import type { Statements } from './statements.ts';
import { withoutChannelBinding } from './startup.ts';

const READ_ONLY_SETTING = 'default_transaction_read_only';

export interface LinkEvents {
  /** What an error of the client's statement becomes: other bytes, the same (undefined), or nothing. Without one: what ends the session. */
  error(segment: Segment | undefined, sqlstate: string, message: Buffer): Buffer | 'drop' | undefined;
  /** The server's process id and cancel key, during startup. */
  key(pid: number, key: Buffer): void;
  segmentDone(segment: Segment): void;
}

/**
 * The server side of a session: what has been sent and not yet been answered, the state that the server reports, and what of its answers
 * goes on to the client.
 */
export class ServerLink implements ServerSink {
  readonly toClient: ClientOutbox;
  readonly toServer = new Outbox();
  readonly queue: Segment[] = [];
  status: TransactionStatus = 'I';
  /** The server has default_transaction_read_only on: a read that is passed on can't write. */
  netArmed = true;
  /** What the client believes default_transaction_read_only to be. */
  clientReadOnly: boolean;
  readonly #startupReadOnly: boolean;
  /** What it was before the transaction in progress changed it. */
  #readOnlyBefore: boolean | undefined;
  encoding = 'UTF8';
  standardStrings = true;
  /** Segments not done that hold transaction control. */
  controlInFlight = 0;
  /** The server waits for CopyData of a segment that is passed on. */
  copying = false;
  /** A FATAL error has been seen: the connection is about to close. */
  fatal = false;

  readonly #stream = new ServerStream(this);
  readonly #events: LinkEvents;
  readonly #statements: Statements;
  #reportedReadOnly: boolean | undefined;

  constructor(toClient: ClientOutbox, statements: Statements, readOnly: boolean, events: LinkEvents) {
    this.toClient = toClient;
    this.#statements = statements;
    this.clientReadOnly = readOnly;
    this.#startupReadOnly = readOnly;
    this.#events = events;
  }

  push(chunk: Buffer): void {
    this.#stream.push(chunk);
  }

  /** The rest of a message that goes to the client is still to come. */
  get midMessage(): boolean {
    return this.#stream.midMessage;
  }

  add<S extends Segment>(segment: S, ...bytes: readonly Buffer[]): S {
    this.queue.push(segment);
    if (segment.control) this.controlInFlight++;
    this.toServer.push(...bytes);
    return segment;
  }

  /** Marks transaction control in a segment that was added without knowing. */
  markControl(segment: Segment): void {
    if (segment.control) return;
    segment.control = true;
    this.controlInFlight++;
  }

  /** The last segment, if its Sync has not been sent. */
  get open(): Segment | undefined {
    const last = this.queue.at(-1);
    return last?.closed === false ? last : undefined;
  }

  wants(type: number): boolean {
    switch (type) {
      case Backend.error:
      case Backend.ready:
      case Backend.parameterStatus:
      case Backend.backendKeyData:
      case Backend.authentication:
        return true;
      default:
        return this.queue.length > 0 && this.queue[0].wants(type);
    }
  }

  stream(type: number): boolean {
    if (this.queue.length === 0) return true;
    const segment = this.queue[0];
    if (type === Backend.copyInResponse) this.copying = true;
    else if (type === 0x31) this.#acknowledgeParse(segment);
    else if (type === 0x33) this.#acknowledgeClose(segment);
    return segment.stream(type);
  }

  whole(type: number, message: Buffer): boolean {
    switch (type) {
      case Backend.ready:
        return this.#ready(message);
      case Backend.error:
        return this.#error(message);
      case Backend.parameterStatus:
        return this.#parameter(message);
      case Backend.backendKeyData: {
        const { pid, key } = readBackendKey(message);
        this.#events.key(pid, key);
        return true;
      }
      case Backend.authentication: {
        const filtered = withoutChannelBinding(message);
        if (filtered === message) return true;
        this.toClient.push(filtered);
        return false;
      }
      default: {
        const segment = this.queue[0];
        if (type === Backend.closeComplete) this.#acknowledgeClose(segment);
        return segment.whole(type, message);
      }
    }
  }

  forward(bytes: Buffer, start: number, end: number): void {
    this.toClient.range(bytes, start, end);
  }

  /** `inTransaction`: undone if the transaction in progress is. */
  setReadOnly(value: boolean | 'reset', inTransaction: boolean): void {
    if (inTransaction) this.#readOnlyBefore ??= this.clientReadOnly;
    this.clientReadOnly = value === 'reset' ? this.#startupReadOnly : value;
    this.reportReadOnly();
  }

  /** The transaction in progress is committed. */
  keepReadOnly(): void {
    this.#readOnlyBefore = undefined;
  }

  /** It is over. */
  undoReadOnly(): void {
    if (this.#readOnlyBefore === undefined) return;
    this.clientReadOnly = this.#readOnlyBefore;
    this.#readOnlyBefore = undefined;
    this.reportReadOnly();
  }

  /** Tells the client a new value of the setting that the session keeps for it. */
  reportReadOnly(): void {
    if (this.#reportedReadOnly === this.clientReadOnly) return;
    this.#reportedReadOnly = this.clientReadOnly;
    this.toClient.push(parameterStatus(READ_ONLY_SETTING, this.clientReadOnly ? 'on' : 'off'));
  }

  #ready(message: Buffer): boolean {
    this.status = readReady(message);
    const segment = this.queue.shift();
    // PostgreSQL sends no ReadyForQuery unasked.
    if (segment?.closed !== true) throw new Error('unexpected ReadyForQuery from the server');
    if (segment.control) this.controlInFlight--;
    segment.done = true;
    segment.status = this.status;
    this.copying = false;
    for (const prepared of segment.parses.slice(segment.parsed)) this.#statements.withdraw(prepared);
    if (segment.failed === undefined) for (const forgets of segment.forgets) this.#forget(forgets);
    if (this.status === 'I') {
      this.#statements.endTransaction();
      // What is passed on ends a block by rolling it back, if at all.
      if (segment instanceof PassSegment) this.undoReadOnly();
    }
    this.#events.segmentDone(segment);
    return segment instanceof PassSegment && segment.tellsReady && !segment.retry;
  }

  #forget(forgets: Forgets): void {
    this.#statements.forget(forgets);
    if (forgets.what === 'everything') this.setReadOnly('reset', false);
  }

  #error(message: Buffer): boolean {
    const fields = readErrorFields(message);
    this.copying = false;
    if (isFatal(fields)) this.fatal = true;
    const segment = this.queue.at(0);
    if (segment !== undefined) segment.failed ??= Buffer.from(message);
    if (segment instanceof InjectedSegment && !this.fatal) return false;
    if (segment instanceof ClientSegment) {
      segment.copying = false;
      if (segment.after?.failed !== undefined) return false;
      segment.release();
    }
    const replaced = this.#events.error(segment, fields['C'] ?? '', message);
    if (replaced === undefined) return true;
    if (replaced !== 'drop') this.toClient.push(replaced);
    return false;
  }

  #parameter(message: Buffer): boolean {
    const { name, value } = readParameterStatus(message);
    switch (name) {
      case READ_ONLY_SETTING: {
        this.netArmed = value === 'on';
        // Switched off by the client's side, in a function for example. Switched on: by the session, or undone by a rollback.
        if (!this.netArmed) this.clientReadOnly = false;
        this.reportReadOnly();
        return false;
      }
      case 'client_encoding':
        this.encoding = value;
        return true;
      case 'standard_conforming_strings':
        this.standardStrings = value === 'on';
        return true;
      default:
        return true;
    }
  }

  #acknowledgeParse(segment: Segment): void {
    if (segment.parsed < segment.parses.length) this.#statements.confirm(segment.parses[segment.parsed++]);
  }

  #acknowledgeClose(segment: Segment): void {
    const name = segment.closes[segment.closedNames++];
    if (name !== undefined) this.#statements.remove(name);
  }
}
