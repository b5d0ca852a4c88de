import type { Socket } from 'node:net';
import type { PgError } from '../runtime/errors.ts';
import { errorResponse } from '../wire/backend-messages.ts';
import { Engine, SERVER_GONE } from './engine.ts';
import type { EngineOptions } from './engine.ts';
import type { ServerConnection } from './connect.ts';
import type { Outbox } from './outbox.ts';

/** Parts of one output below this are joined: one small copy is cheaper than a vector of writes. */
const JOIN_BELOW = 16 * 1024;

export interface SessionOptions extends Omit<EngineOptions, 'run'> {
  readonly onClose: () => void;
}

/** One client's connection and one to the local server, with the engine between them: sockets, backpressure and their ends. */
export class Session {
  readonly engine: Engine;
  readonly #client: Socket;
  readonly #server: Socket;
  readonly #connection: ServerConnection;
  readonly #options: SessionOptions;
  #clientGone = false;
  #serverGone = false;
  #closed = false;
  /** A write that the other side has not taken yet. */
  #clientFull = false;
  #serverFull = false;
  #draining: PgError | undefined;
  #lost: PgError | undefined;

  /** Both sockets are connected. */
  constructor(client: Socket, server: ServerConnection, options: SessionOptions) {
    this.#client = client;
    this.#server = server.socket;
    this.#connection = server;
    this.#options = options;
    this.engine = new Engine({ ...options, run: (step) => this.#guard(step) });
  }

  /** `startup` goes to the server first; `rest` is what the client sent behind its own. */
  start(startup: Buffer, rest: Buffer): void {
    this.#server.write(startup);
    this.#listen();
    if (rest.length > 0) this.#fromClient(rest);
  }

  /** Ends the session with an error as soon as no transaction is open. */
  drain(error: PgError): void {
    this.#draining = error;
    this.#endIfDrained();
  }

  /** Ends it now with an error; first the client is told what became of a transaction that is being committed. */
  lose(error: PgError): void {
    this.#lost ??= error;
    this.#endIfLost();
  }

  /** Ends it now if its client reads nothing: its statement is in the way of another node and can't be cancelled. */
  loseIfStalled(): void {
    const { conflict } = this.engine;
    if (this.#clientFull && conflict !== undefined) this.lose(conflict);
  }

  /** Ends it now; a transaction that is not being prepared is rolled back by PostgreSQL. */
  destroy(): void {
    if (this.#closed) return;
    this.#closed = true;
    // A transaction that is being prepared must be reported to its coordinator as lost.
    this.engine.serverClosed();
    this.#client.destroy();
    this.#server.destroy();
    this.#options.onClose();
  }

  #listen(): void {
    const client = this.#client;
    const server = this.#server;
    client.on('data', (chunk: Buffer) => this.#fromClient(chunk));
    client.on('drain', () => {
      this.#clientFull = false;
      server.resume();
    });
    // After an error 'close' follows: one place deals with the end of each side.
    client.on('error', () => undefined);
    client.on('end', () => this.#onClientGone());
    client.on('close', () => this.#onClientGone());
    this.#connection.onData = (chunk) => this.#fromServer(chunk);
    // What the client's socket did not take at once stays in the buffer that was read into.
    this.#connection.inUse = () => client.writableLength > 0;
    server.on('drain', () => {
      this.#serverFull = false;
      this.#regulateClient();
    });
    server.on('error', () => undefined);
    server.on('close', () => this.#onServerGone());
  }

  #fromClient(chunk: Buffer): void {
    this.#options.hooks.traffic.fromClients += chunk.length;
    this.#guard(() => this.engine.fromClient(chunk));
  }

  #fromServer(chunk: Buffer): void {
    this.#options.hooks.traffic.fromServer += chunk.length;
    this.#guard(() => this.engine.fromServer(chunk));
  }

  #guard(handle: () => void): void {
    if (this.#closed) return;
    try {
      handle();
    } catch (error) {
      // A protocol violation on either side: nothing sensible can be said to the other any more.
      this.#options.hooks.log.error({ err: error }, 'session ended by a protocol violation');
      this.destroy();
      return;
    }
    this.#afterInput();
  }

  #afterInput(): void {
    if (this.#closed) return;
    if (!this.#serverGone && !write(this.#server, this.engine.toServer)) this.#serverFull = true;
    this.#writeClient();
    this.#regulateClient();
    this.#endIfLost();
    this.#endWhenPossible();
    this.#endIfDrained();
  }

  #writeClient(): void {
    if (this.#clientGone) {
      this.engine.toClient.take();
      return;
    }
    if (write(this.#client, this.engine.toClient)) return;
    this.#clientFull = true;
    this.#server.pause();
  }

  #regulateClient(): void {
    if (this.#clientGone) return;
    if (this.#serverFull || this.engine.congested) this.#client.pause();
    else if (this.#client.isPaused()) this.#client.resume();
  }

  #onClientGone(): void {
    if (this.#clientGone || this.#closed) return;
    this.#clientGone = true;
    this.engine.clientClosed();
    if (this.#clientFull) this.#server.resume();
    this.#endWhenPossible();
  }

  #onServerGone(): void {
    if (this.#serverGone || this.#closed) return;
    this.#serverGone = true;
    this.#guard(() => this.engine.serverClosed());
  }

  /** One side is gone: the other follows, unless the outcome of a transaction is still to come. */
  #endWhenPossible(): void {
    if (this.#closed || this.engine.committing) return;
    if (this.#clientGone) {
      this.#closed = true;
      this.#client.destroy();
      this.#server.destroySoon();
      this.#options.onClose();
    } else if (this.#serverGone) {
      const { serverSaidGoodbye, terminated, midMessage } = this.engine;
      if (!serverSaidGoodbye && !terminated && !midMessage) this.#client.write(errorResponse(SERVER_GONE));
      this.#closed = true;
      this.#client.destroySoon();
      this.#options.onClose();
    }
  }

  #endIfLost(): void {
    if (this.#lost === undefined || this.#closed || this.engine.committing) return;
    this.#closed = true;
    if (!this.#clientGone && !this.engine.midMessage) this.#client.write(errorResponse(this.#lost));
    this.#client.destroySoon();
    this.#server.destroy();
    this.#options.onClose();
  }

  #endIfDrained(): void {
    if (this.#draining === undefined || this.#closed || !this.engine.idle) return;
    this.#client.write(errorResponse(this.#draining));
    this.#closed = true;
    this.#client.destroySoon();
    this.#server.destroySoon();
    this.#options.onClose();
  }
}

/** False when the socket asks for a pause. */
function write(socket: Socket, outbox: Outbox): boolean {
  if (outbox.empty) return true;
  const parts = outbox.take();
  if (parts.length === 1) return socket.write(parts[0]);
  let length = 0;
  for (const part of parts) length += part.length;
  if (length <= JOIN_BELOW) return socket.write(Buffer.concat(parts, length));
  socket.cork();
  let room = true;
  for (const part of parts) room = socket.write(part);
  socket.uncork();
  return room;
}
