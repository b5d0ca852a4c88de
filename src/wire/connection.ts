import type { Socket } from 'node:net';
import pg from 'pg';
import { PgError } from '../runtime/errors.ts';
import { drained, tuneSocket, waitForSlowReader, type KeepaliveSettings } from '../runtime/sockets.ts';
import { Backend, lengthAt } from './codes.ts';
import { readDataRow, readError } from './backend-messages.ts';
import { FrontendWriter } from './frontend.ts';

export interface ConnectionOptions {
  /** A host name or address, or the absolute path of a socket directory. */
  readonly host: string;
  readonly port: number;
  readonly user: string;
  readonly password?: string | undefined;
  readonly database: string;
  readonly applicationName: string;
  readonly ssl?: pg.ClientConfig['ssl'];
  /** Opens a walsender that is connected to the database. */
  readonly replication?: boolean;
  /** Run-time settings for the whole session. */
  readonly settings?: Readonly<Record<string, string>>;
  readonly connectTimeout?: number;
  /** For TCP: how a server is noticed that is gone without a word. */
  readonly keepalive?: KeepaliveSettings;
}

/** What is told of one request, from its first answer to the ReadyForQuery that ends it. */
export interface ResponseHandler {
  /** Every message but errors, notices and parameters; valid only during the call. Offsets include the 5-byte header. */
  message?(type: number, bytes: Buffer, start: number, end: number): void;
  /** ReadyForQuery, or the end of the connection. The first error of the request, if it had one. */
  done(error: PgError | undefined): void;
}

/** Requests that have been answered, from which on they are forgotten. */
const COMPACT_AT = 16;

/** What a connection's end is reported as, to requests under way and to those made afterwards. */
const CONNECTION_FAILURE = '08006';

/**
 * A connection to a server for this program's own work: requests are bytes ready to be sent, each with exactly one
 * ReadyForQuery, and may be sent before earlier ones are answered. Connecting and authentication are node-postgres's; then
 * its socket is taken over, as its parser makes an object of every message.
 */
export class ServerConnection {
  readonly pid: number;
  /** As `server_version_num` counts: 150018, 180004. */
  readonly serverVersion: number;
  readonly #socket: Socket;
  #handlers: ResponseHandler[] = [];
  #head = 0;
  #error: PgError | undefined;
  /** The beginning of a message, in the pieces in which it came: a large one is joined once. */
  #held: Buffer[] = [];
  #heldLength = 0;
  /** The length from which on it is worth looking at what is held. */
  #needed = 5;
  #closed: PgError | undefined;
  #closing = false;
  #onClose: ((error: PgError) => void)[] = [];

  private constructor(socket: Socket, pid: number, serverVersion: number) {
    this.#socket = socket;
    this.pid = pid;
    this.serverVersion = serverVersion;
    socket.on('data', (chunk: Buffer) => this.#receive(chunk));
    socket.on('error', (error) => this.#end(error.message));
    socket.on('close', () => this.#end('server closed the connection unexpectedly'));
  }

  /** Rejects with a PgError: the server's own, or 08001 when it can't be reached. */
  static async connect(options: ConnectionOptions): Promise<ServerConnection> {
    const settings = Object.entries(options.settings ?? {});
    const client = new pg.Client({
      host: options.host,
      port: options.port,
      user: options.user,
      password: options.password,
      database: options.database,
      application_name: options.applicationName,
      ssl: options.ssl,
      connectionTimeoutMillis: options.connectTimeout ?? 10_000,
      options: settings.map(([name, value]) => `-c ${name}=${value.replaceAll(/[\\ ]/g, '\\$&')}`).join(' '),
      ...(options.replication === true && { replication: 'database' }),
    });
    const internals = client as unknown as { connection: NodeJS.EventEmitter & { stream: Socket }; processID: number };
    let version = '';
    internals.connection.on('parameterStatus', (status: { parameterName: string; parameterValue: string }) => {
      if (status.parameterName === 'server_version') version = status.parameterValue;
    });
    try {
      await client.connect();
    } catch (error) {
      throw asPgError(error);
    }
    const { stream } = internals.connection;
    if (options.keepalive !== undefined) {
      tuneSocket(stream, options.keepalive);
      waitForSlowReader(stream, options.keepalive);
    }
    for (const event of ['data', 'end', 'close', 'error', 'drain'] as const) stream.removeAllListeners(event);
    internals.connection.removeAllListeners();
    return new ServerConnection(stream, internals.processID, versionNumber(version));
  }

  /** Undefined while the connection works. */
  get closed(): PgError | undefined {
    return this.#closed;
  }

  /** Requests that are not answered yet. */
  get pending(): number {
    return this.#handlers.length - this.#head;
  }

  /** Called once, also when the connection has ended already. Not called after `end` or `destroy`. */
  onClose(listener: (error: PgError) => void): void {
    if (this.#closed !== undefined) listener(this.#closed);
    else this.#onClose.push(listener);
  }

  /** Sends bytes that bring about exactly one ReadyForQuery. False when the socket is full: wait for `drained`. */
  request(bytes: Buffer, handler: ResponseHandler): boolean {
    if (this.#closed !== undefined) {
      handler.done(this.#closed);
      return true;
    }
    this.#handlers.push(handler);
    return this.#socket.write(bytes);
  }

  /** Sends more bytes that belong to the last request: the rest of a pipeline, copy data, a standby status update. */
  write(bytes: Buffer): boolean {
    return this.#closed !== undefined || this.#socket.write(bytes);
  }

  /** Resolves when the socket has room again, or has ended. */
  drained(): Promise<void> {
    if (!this.#socket.writableNeedDrain || this.#closed !== undefined) return Promise.resolve();
    return drained(this.#socket);
  }

  /** Stops reading, so that the server stops sending. */
  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  /** One simple query; all rows of all its statements, values as text. */
  query(sql: string): Promise<(string | null)[][]> {
    return new Promise((resolve, reject) => {
      const rows: (string | null)[][] = [];
      this.request(new FrontendWriter(sql.length + 64).query(sql).take(), {
        message: (type, bytes, start, end) => {
          if (type === Backend.dataRow) rows.push(readDataRow(bytes.subarray(start, end)));
        },
        done: (error) => (error === undefined ? resolve(rows) : reject(error)),
      });
    });
  }

  /** Says Terminate and closes once what was sent is gone. */
  end(): void {
    if (this.#closing) return;
    this.#closing = true;
    this.#socket.end(new FrontendWriter(16).terminate().take());
    this.#socket.resume();
  }

  destroy(): void {
    this.#closing = true;
    this.#socket.destroy();
  }

  #receive(chunk: Buffer): void {
    let bytes = chunk;
    if (this.#heldLength > 0) {
      this.#held.push(chunk);
      this.#heldLength += chunk.length;
      if (this.#heldLength < this.#needed) return;
      bytes = Buffer.concat(this.#held, this.#heldLength);
      this.#held = [];
      this.#heldLength = 0;
    }
    let at = 0;
    let needed = 5;
    while (bytes.length - at >= 5) {
      needed = 1 + lengthAt(bytes, at + 1);
      if (at + needed > bytes.length) break;
      this.#dispatch(bytes, at, at + needed);
      at += needed;
      needed = 5;
    }
    if (at === bytes.length) return;
    this.#held = [bytes.subarray(at)];
    this.#heldLength = bytes.length - at;
    this.#needed = needed;
  }

  #dispatch(bytes: Buffer, start: number, end: number): void {
    const type = bytes[start];
    switch (type) {
      case Backend.ready:
        return this.#finish();
      case Backend.error:
        this.#error ??= readError(bytes.subarray(start, end));
        return;
      case Backend.notice:
      case Backend.parameterStatus:
      case Backend.notification:
        return;
      default:
        this.#handlers[this.#head]?.message?.(type, bytes, start, end);
    }
  }

  #finish(): void {
    const handler = this.#handlers[this.#head];
    const error = this.#error;
    this.#error = undefined;
    this.#head += 1;
    // A handler can hold much, and in a long pipeline there never is a moment without one.
    if (this.#head === this.#handlers.length || this.#head >= COMPACT_AT) {
      this.#handlers = this.#handlers.slice(this.#head);
      this.#head = 0;
    }
    handler.done(error);
  }

  #end(reason: string): void {
    if (this.#closed !== undefined) return;
    const error = this.#error ?? new PgError(CONNECTION_FAILURE, reason);
    this.#closed = error;
    this.#socket.destroy();
    const waiting = this.#handlers.slice(this.#head);
    this.#handlers = [];
    this.#head = 0;
    const failure = new PgError(CONNECTION_FAILURE, error.message, { detail: error.detail, hint: error.hint });
    for (const handler of waiting) handler.done(failure);
    if (!this.#closing) for (const listener of this.#onClose) listener(error);
  }
}

function versionNumber(text: string): number {
  const [major = '0', minor = '0'] = text.split(/[^0-9]/);
  return Number(major) * 10_000 + Number(minor);
}

function asPgError(error: unknown): PgError {
  if (error instanceof pg.DatabaseError) {
    return new PgError(error.code ?? '08001', error.message, { detail: error.detail, hint: error.hint });
  }
  return new PgError('08001', error instanceof Error ? error.message : String(error));
}
