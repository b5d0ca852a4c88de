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

/** Milliseconds between two looks at what waits to be taken: at the second one in a row the reader counts as slow. */
const LOOK_INTERVAL = 250;

interface Watched {
  readonly userTimeout: number;
  waited: boolean;
  isPatient: boolean;
}

const watched = new Map<Socket, Watched>();
let looking: NodeJS.Timeout | undefined;

/**
 * For a socket that was tuned, or TLS on it, whose reader may take its time: a client that fetches a large result piece by piece, a server that waits for a lock in the middle of a
 * COPY. Such a reader acknowledges everything and has a window of zero, which TCP_USER_TIMEOUT takes for silence all the same (tcp_probe_timer in
 * Linux' tcp_timer.c). So it is off for as long as something waits here that the reader does not take; a machine that vanishes just then is noticed by
 * TCP's own limit (tcp_retries2: a quarter of an hour).
 */
export function waitForSlowReader(socket: Socket, { userTimeout }: KeepaliveSettings): void {
  if (socket.remoteFamily === undefined || userTimeout === 0 || load() === undefined) return;
  watched.set(socket, { userTimeout, waited: false, isPatient: false });
  socket.once('close', () => watched.delete(socket));
  looking ??= setInterval(look, LOOK_INTERVAL).unref();
}

function look(): void {
  for (const [socket, one] of watched) {
    const waits = socket.writableLength > 0;
    const isSlow = waits && one.waited;
    one.waited = waits;
    if (isSlow === one.isPatient || socket.destroyed) continue;
    one.isPatient = isSlow;
    try {
      load()?.setUserTimeout(socket, isSlow ? 0 : one.userTimeout);
    } catch {
      watched.delete(socket); // it has no descriptor any more: it is being closed
    }
  }
}
