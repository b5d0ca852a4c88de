import { ZERO_LSN, type Lsn } from '../runtime/ids.ts';
import { PgError } from '../runtime/errors.ts';
import { Backend } from '../wire/codes.ts';
import type { ServerConnection } from '../wire/connection.ts';
import { FrontendWriter } from '../wire/frontend.ts';
import { readLsn } from './pgoutput/messages.ts';

export interface StreamHandlers {
  /** One pgoutput message at `[at, end)` of `bytes`; valid only during the call. */
  message(bytes: Buffer, at: number, end: number): void;
  /** "Primary keepalive": the server has nothing to send before this position. */
  keepalive(position: Lsn): void;
  /** Up to where the slot may forget. */
  confirmed(): Lsn;
  closed(error: PgError): void;
}

/** Microseconds between the Unix epoch and PostgreSQL's, 2000-01-01. */
const POSTGRES_EPOCH = 946_684_800_000_000n;

const CONNECTION_FAILURE = '08006';

/** "Streaming Replication Protocol": START_REPLICATION on a logical slot, and the status updates that keep it alive. */
export class ReplicationStream {
  readonly #server: ServerConnection;
  readonly #handlers: StreamHandlers;
  /** Of the status updates; undefined until the server streams. */
  #timer: NodeJS.Timeout | undefined;
  #stopped = false;

  /** `server` is a walsender's connection to the slot's database. */
  constructor(server: ServerConnection, handlers: StreamHandlers) {
    this.#server = server;
    this.#handlers = handlers;
  }

  /** Resolves when the server streams. Rejects with its error, 55006 when another reader has the slot. */
  async start(slot: string, options: Readonly<Record<string, string>>, statusInterval: number): Promise<void> {
    const list = Object.entries(options).map(([name, value]) => `${name} '${value}'`);
    const command = `START_REPLICATION SLOT "${slot}" LOGICAL 0/0 (${list.join(', ')})`;
    await new Promise<void>((resolve, reject) => {
      this.#server.request(new FrontendWriter().query(command).take(), {
        message: (type, bytes, start, end) => {
          if (type === Backend.copyData) return this.#receive(bytes, start + 5, end);
          if (this.#timer === undefined) this.#begin(statusInterval);
          resolve();
        },
        done: (error) => {
          if (this.#timer === undefined) reject(error ?? new Error('replication ended at once'));
          else this.#onDone(error);
        },
      });
    });
  }

  /** At once, as the end may come together with the beginning. */
  #begin(statusInterval: number): void {
    this.#timer = setInterval(() => this.#sendStatus(), statusInterval);
    this.#server.onClose((error) => {
      clearInterval(this.#timer);
      this.#handlers.closed(error);
    });
  }

  /** After an error a walsender stays connected: it has let go of the slot, waits for another command, and sends nothing any more. */
  #onDone(error: PgError | undefined): void {
    if (this.#stopped || this.#server.closed !== undefined) return;
    clearInterval(this.#timer);
    this.#server.destroy();
    this.#handlers.closed(error ?? new PgError(CONNECTION_FAILURE, 'the server ended replication'));
  }

  pause(): void {
    this.#server.pause();
  }

  resume(): void {
    this.#server.resume();
  }

  stop(): void {
    this.#stopped = true;
    clearInterval(this.#timer);
    if (this.#server.closed === undefined) this.#sendStatus();
    this.#server.end();
  }

  /** "Standby status update": written, flushed and applied up to the confirmed position. */
  #sendStatus(): void {
    const confirmed = this.#handlers.confirmed();
    if (confirmed === ZERO_LSN) return;
    const message = Buffer.allocUnsafe(34);
    message[0] = 0x72;
    for (const at of [1, 9, 17]) message.writeBigUInt64BE(confirmed, at);
    message.writeBigInt64BE(BigInt(Date.now()) * 1000n - POSTGRES_EPOCH, 25);
    message[33] = 0;
    this.#server.write(new FrontendWriter(64).copyData(message).take());
  }

  #receive(bytes: Buffer, at: number, end: number): void {
    if (bytes[at] === 0x77) return this.#handlers.message(bytes, at + 25, end);
    if (bytes[at] !== 0x6b) return;
    this.#handlers.keepalive(readLsn(bytes, at + 1));
    if (bytes[at + 17] === 1) this.#sendStatus();
  }
}
