import { connect } from 'node:net';
import type { NetConnectOpts, Socket } from 'node:net';
import { join } from 'node:path';

/** Where the local PostgreSQL listens; a host that begins with a slash is a directory with its unix socket, as in libpq. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

/** Bytes that one read takes at most. */
const READ_SIZE = 64 * 1024;

/** A plain connection, read as a stream. */
export function connectToServer(server: ServerAddress): Promise<Socket> {
  return connected(connect(options(server)));
}

/**
 * A connection to the server that reads into one buffer again and again: a buffer a read is a quarter of what passing a
 * query on costs. Whoever takes the bytes must be done with them when the function returns, or say that they are in use.
 */
export class ServerConnection {
  readonly socket: Socket;
  /** Takes what has arrived. */
  onData: (chunk: Buffer) => void = () => undefined;
  /** Whether bytes that were given to `onData` are still waiting to be written. */
  inUse: () => boolean = () => false;
  #buffer: Buffer | undefined;

  private constructor(server: ServerAddress) {
    const onread = {
      buffer: (): Buffer => this.#next(),
      callback: (length: number, bytes: Uint8Array): boolean => {
        this.onData(Buffer.from(bytes.buffer, bytes.byteOffset, length));
        return true;
      },
    };
    this.socket = connect({ ...options(server), onread });
  }

  static async open(server: ServerAddress): Promise<ServerConnection> {
    const connection = new ServerConnection(server);
    await connected(connection.socket);
    return connection;
  }

  destroy(): void {
    this.socket.destroy();
  }

  #next(): Buffer {
    if (this.#buffer === undefined || this.inUse()) this.#buffer = Buffer.allocUnsafeSlow(READ_SIZE);
    return this.#buffer;
  }
}

function options({ host, port }: ServerAddress): NetConnectOpts {
  return host.startsWith('/') ? { path: join(host, `.s.PGSQL.${port}`) } : { host, port, noDelay: true };
}

function connected(socket: Socket): Promise<Socket> {
  return new Promise((resolve, reject) => {
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}
