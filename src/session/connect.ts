import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { join } from 'node:path';

/** Where the local PostgreSQL listens; a host that begins with a slash is a directory with its unix socket, as in libpq. */
export interface ServerAddress {
  readonly host: string;
  readonly port: number;
}

export function connectToServer({ host, port }: ServerAddress): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const path = host.startsWith('/') ? { path: join(host, `.s.PGSQL.${port}`) } : { host, port, noDelay: true };
    const socket = connect(path);
    socket.once('error', reject);
    socket.once('connect', () => {
      socket.off('error', reject);
      resolve(socket);
    });
  });
}
