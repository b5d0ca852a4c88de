import type { Socket } from 'node:net';
import { TLSSocket } from 'node:tls';
import type { SecureContext } from 'node:tls';
import { errorResponse } from '../wire/backend-messages.ts';
import { readStartupPacket } from '../wire/startup-packet.ts';
import type { StartupPacket } from '../wire/startup-packet.ts';
import { fatal } from './startup.ts';

/** A client that has said what it wants: its socket, under TLS by then if it asked for it, paused. */
export interface Startup {
  readonly socket: Socket;
  readonly packet: Extract<StartupPacket, { type: 'startup' | 'cancel' }>;
  /** What it sent behind it. */
  readonly rest: Buffer;
}

interface Settings {
  readonly secure: SecureContext | undefined;
  readonly timeout: number;
}

/** A TLS ClientHello in place of a startup packet: PostgreSQL 17's sslnegotiation=direct. */
const TLS_HANDSHAKE = 0x16;
const ALPN = 'postgresql';

/**
 * Reads from a new connection up to its StartupMessage or CancelRequest ("Start-up", "SSL Session Encryption"). TLS ends here; GSSAPI
 * encryption is declined. A client that is not done in time is dropped.
 */
export function receiveStartup(socket: Socket, settings: Settings, done: (startup: Startup) => void): void {
  const timer = setTimeout(() => socket.destroy(), settings.timeout);
  socket.once('close', () => clearTimeout(timer));
  new Negotiation(settings, (startup) => {
    clearTimeout(timer);
    done(startup);
  }).read(socket);
}

class Negotiation {
  readonly #settings: Settings;
  readonly #done: (startup: Startup) => void;
  #encrypted = false;

  constructor(settings: Settings, done: (startup: Startup) => void) {
    this.#settings = settings;
    this.#done = done;
  }

  read(socket: Socket): void {
    let received: Buffer = Buffer.alloc(0);
    const onData = (chunk: Buffer): void => {
      received = received.length === 0 ? chunk : Buffer.concat([received, chunk]);
      const rest = this.#take(socket, received, stop);
      if (rest !== undefined) received = rest;
    };
    const stop = (): void => {
      socket.off('data', onData);
      socket.pause();
    };
    socket.on('data', onData);
    socket.resume();
  }

  /** Deals with what has been received; answers what is left of it, or undefined when somebody else reads on. */
  #take(socket: Socket, received: Buffer, stop: () => void): Buffer | undefined {
    if (!this.#encrypted && received[0] === TLS_HANDSHAKE) {
      stop();
      this.#directTls(socket, received);
      return undefined;
    }
    let parsed: ReturnType<typeof readStartupPacket>;
    try {
      parsed = readStartupPacket(received);
    } catch {
      stop();
      socket.destroy();
      return undefined;
    }
    if (parsed === undefined) return received;
    const { packet, used } = parsed;
    const rest = received.subarray(used);
    switch (packet.type) {
      case 'gssenc':
        socket.write('N');
        return rest;
      case 'ssl':
        return this.#sslRequest(socket, rest, stop);
      case 'startup':
      case 'cancel':
        stop();
        this.#done({ socket, packet, rest });
        return undefined;
    }
  }

  #sslRequest(socket: Socket, rest: Buffer, stop: () => void): Buffer | undefined {
    const { secure } = this.#settings;
    if (secure === undefined || this.#encrypted) {
      socket.write('N');
      return rest;
    }
    stop();
    // Bytes sent before the handshake may come from somebody between (CVE-2021-23214).
    if (rest.length > 0) {
      socket.end(errorResponse(fatal('08P01', 'received unencrypted data after SSL request')));
      return undefined;
    }
    socket.write('S');
    this.#upgrade(socket, secure, false);
    return undefined;
  }

  #directTls(socket: Socket, received: Buffer): void {
    const { secure } = this.#settings;
    if (secure === undefined) {
      socket.destroy();
      return;
    }
    socket.unshift(received);
    this.#upgrade(socket, secure, true);
  }

  #upgrade(socket: Socket, secureContext: SecureContext, direct: boolean): void {
    this.#encrypted = true;
    const secured = new TLSSocket(socket, { isServer: true, secureContext, ALPNProtocols: [ALPN] });
    secured.once('error', () => secured.destroy());
    secured.once('secure', () => {
      // Without ALPN a direct connection may be another protocol's client that was led here (CVE of the ALPACA kind).
      if (direct && secured.alpnProtocol !== ALPN) secured.destroy();
    });
    this.read(secured);
  }
}
