import type { EventEmitter } from 'node:events';
import type { Socket } from 'node:net';
import { createRequire } from 'node:module';

/** Milliseconds, and a count of probes. Zero leaves the system's own value. */
export interface KeepaliveSettings {
  readonly idle: number;
  readonly interval: number;
  readonly count: number;
  /** How long sent data may stay unacknowledged (TCP_USER_TIMEOUT). */
  readonly userTimeout: number;
}

interface NetKeepalive {
  setKeepAliveInterval(socket: Socket, milliseconds: number): boolean;
  setKeepAliveProbes(socket: Socket, count: number): boolean;
  setUserTimeout(socket: Socket, milliseconds: number): boolean;
}

let library: NetKeepalive | undefined | null = null;

/** net-keepalive reaches socket options through a native addon: where that can't be loaded, Node's own option has to do. */
function load(): NetKeepalive | undefined {
  if (library === null) {
    try {
      library = createRequire(import.meta.url)('net-keepalive') as NetKeepalive;
    } catch {
      library = undefined;
    }
  }
  return library;
}

/**
 * Resolves when a stream that was full has room again, or has ended: why, its other listeners are told. `once` would reject then, and leave listeners
 * behind for each time that it was raced against another event.
 */
export function drained(stream: EventEmitter): Promise<void> {
  return new Promise((resolve) => {
    const finish = () => {
      stream.off('drain', finish).off('close', finish).off('error', finish);
      resolve();
    };
    stream.on('drain', finish).on('close', finish).on('error', finish);
  });
}

/** Sets keepalive and TCP_USER_TIMEOUT on a connected TCP socket. Does nothing on a unix socket. */
export function tuneSocket(socket: Socket, settings: KeepaliveSettings): void {
  if (socket.remoteFamily === undefined) return;
  socket.setKeepAlive(true, settings.idle);
  const options = load();
  if (options === undefined) return;
  if (settings.interval > 0) options.setKeepAliveInterval(socket, settings.interval);
  if (settings.count > 0) options.setKeepAliveProbes(socket, settings.count);
  if (settings.userTimeout > 0) options.setUserTimeout(socket, settings.userTimeout);
}
