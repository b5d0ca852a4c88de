import { randomUUID } from 'node:crypto';
import net from 'node:net';
import { once } from 'node:events';
import { Packr } from 'msgpackr';
import type { Logger } from '../runtime/log.ts';
import type { LogIndex, NodeId } from '../runtime/ids.ts';
import { drained, tuneSocket, type KeepaliveSettings } from '../runtime/sockets.ts';
import { FrameReader, FrameWriter, Unreadable } from './frames.ts';
import { greet, objection, receive, type Greeting, type Hello, type LinkKind } from './handshake.ts';
import type { BulkMessage, PeerMessage } from './messages.ts';
import type { PeerLogs, ShownLog } from './peer-logs.ts';

export interface Address {
  readonly host: string;
  readonly port: number;
}

export interface PeerLinksOptions {
  readonly self: NodeId;
  readonly cluster: string;
  readonly secret: string;
  readonly listen: Address;
  readonly peers: ReadonlyMap<NodeId, Address>;
  readonly keepalive: KeepaliveSettings;
  /** Milliseconds of silence, heartbeats included, after which a connection is given up. */
  readonly silence: number;
  readonly log: Logger;
  readonly peerLogs: PeerLogs;
  /** This node's decision log as it is now. */
  readonly ownLog: () => ShownLog;
  onMessage(from: NodeId, message: PeerMessage): void;
  onBulk(from: NodeId, message: BulkMessage): void;
  /** This node's control link to the peer is up: messages can be sent. */
  onUp(peer: NodeId): void;
  onDown(peer: NodeId): void;
  /** A peer remembers that this node's decision log had this entry, which it has not. */
  onWentBack(had: LogIndex, reason: string): void;
}

/** Above this many unsent bytes a peer is as good as gone; the link is dropped rather than memory filled. */
const MAX_BACKLOG = 128 * 1024 * 1024;
const RECONNECT_DELAY = 100;
const CONNECT_TIMEOUT = 2000;
/** Reasons of refusals kept for each address, so that nobody fills memory by inventing new ones. */
const MAX_REASONS = 20;

/** Bytes of all peer links so far. */
interface PeerTraffic {
  sent: number;
  received: number;
}

/** A control connection of a peer, and what the process at its other end calls itself. */
interface Caller {
  readonly socket: net.Socket;
  readonly run: string | undefined;
  readonly remote: string;
}

/** One direction of one link: this node dials, and only this node sends. */
class Outgoing {
  readonly #options: PeerLinksOptions;
  readonly #peer: NodeId;
  readonly #kind: LinkKind;
  readonly #run: string;
  readonly #traffic: PeerTraffic;
  #writer: FrameWriter | undefined;
  #socket: net.Socket | undefined;
  #packr = new Packr({ sequential: true });
  #retry: NodeJS.Timeout | undefined;
  #stopped = false;
  #lastFailure = '';

  constructor(
    options: PeerLinksOptions,
    { peer, kind, run, traffic }: { peer: NodeId; kind: LinkKind; run: string; traffic: PeerTraffic },
  ) {
    this.#options = options;
    this.#run = run;
    this.#traffic = traffic;
    this.#peer = peer;
    this.#kind = kind;
  }

  get up(): boolean {
    return this.#writer !== undefined;
  }

  dial(): void {
    if (this.#stopped) return;
    const address = this.#options.peers.get(this.#peer);
    if (address === undefined) throw new Error(`node ${this.#peer} has no peer address`);
    const socket = net.connect({ host: address.host, port: address.port, noDelay: true });
    this.#socket = socket;
    const timer = setTimeout(() => socket.destroy(new Error('handshake timed out')), CONNECT_TIMEOUT);
    socket.once('close', () => {
      clearTimeout(timer);
      this.#onClosed();
    });
    socket.on('error', (error) => this.#report(error.message));
    socket.once('connect', () => {
      tuneSocket(socket, this.#options.keepalive);
      const { self, cluster, secret, ownLog } = this.#options;
      const hello = { cluster, node: self, to: this.#peer, kind: this.#kind, run: this.#run };
      greet(socket, secret, hello, ownLog).then(
        (greeting) => {
          clearTimeout(timer);
          this.#onReady(socket, greeting);
        },
        (error: unknown) => socket.destroy(error as Error),
      );
    });
  }

  #onReady(socket: net.Socket, greeting: Greeting): void {
    if (this.#stopped || socket.destroyed) return;
    // Reading on is how its end is noticed, too.
    objection(socket, this.#options.secret, greeting).then(
      ({ had, reason }) => {
        socket.destroy(new Error(reason));
        this.#options.onWentBack(had, reason);
      },
      // Of no effect when it has ended already.
      (error: unknown) => socket.destroy(error as Error),
    );
    this.#packr = new Packr({ sequential: true });
    this.#writer = new FrameWriter(socket);
    this.#lastFailure = '';
    if (this.#kind === 'control') this.#options.onUp(this.#peer);
  }

  #onClosed(): void {
    const wasUp = this.#writer !== undefined;
    this.#writer = undefined;
    if (wasUp && this.#kind === 'control') this.#options.onDown(this.#peer);
    if (!this.#stopped) this.#retry = setTimeout(() => this.dial(), RECONNECT_DELAY);
  }

  /** A peer that stays away would fill the log with one line a tenth of a second: each failure is told once. */
  #report(message: string): void {
    if (message === this.#lastFailure) return;
    this.#lastFailure = message;
    this.#options.log.warn({ peer: this.#peer, kind: this.#kind }, `peer link: ${message}`);
  }

  send(message: PeerMessage | BulkMessage): boolean {
    const writer = this.#writer;
    if (writer === undefined) return false;
    if (writer.backlog > MAX_BACKLOG) {
      this.#socket?.destroy(new Error('peer does not read: too much unsent'));
      return false;
    }
    const body = this.#packr.pack(message);
    this.#traffic.sent += body.length;
    writer.send(body);
    return true;
  }

  /** Sends and waits until the kernel has room again. False when the link is down, or broke meanwhile; never rejects for that. */
  async sendAndDrain(message: BulkMessage): Promise<boolean> {
    if (!this.send(message)) return false;
    const socket = this.#socket;
    if (socket !== undefined && this.#writer?.flush() === false && !socket.destroyed) await drained(socket);
    return !(socket?.destroyed ?? true);
  }

  /** Cuts the connection; it is dialled again. */
  reset(reason: string): void {
    this.#socket?.destroy(new Error(reason));
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#retry);
    this.#writer?.flush();
    this.#socket?.destroySoon();
  }
}

/** The links between this proxy and its peers. Each node dials each other, so a link that works in one direction only shows as such. */
export class PeerLinks {
  readonly #options: PeerLinksOptions;
  readonly #control = new Map<NodeId, Outgoing>();
  readonly #bulk = new Map<NodeId, Outgoing>();
  readonly #incoming = new Set<net.Socket>();
  /** The control connection of each peer: a new one of the same process ends the one before, so that what was sent earlier can't arrive later. */
  readonly #current = new Map<NodeId, Caller>();
  /** Why connections were refused of late, by where they came from. */
  readonly #refused = new Map<string, Set<string>>();
  readonly #server: net.Server;
  readonly traffic: PeerTraffic = { sent: 0, received: 0 };

  constructor(options: PeerLinksOptions) {
    this.#options = options;
    const shared = { run: randomUUID(), traffic: this.traffic };
    for (const peer of options.peers.keys()) {
      if (peer === options.self) continue;
      this.#control.set(peer, new Outgoing(options, { ...shared, peer, kind: 'control' }));
      this.#bulk.set(peer, new Outgoing(options, { ...shared, peer, kind: 'bulk' }));
    }
    this.#server = net.createServer({ noDelay: true }, (socket) => this.#accept(socket));
  }

  get peers(): readonly NodeId[] {
    return [...this.#control.keys()];
  }

  /** Listens and dials. Rejects when the port cannot be had. */
  async start(): Promise<void> {
    const { host, port } = this.#options.listen;
    this.#server.listen({ host, port });
    await once(this.#server, 'listening');
    for (const link of [...this.#control.values(), ...this.#bulk.values()]) link.dial();
  }

  send(to: NodeId, message: PeerMessage): boolean {
    return this.#control.get(to)?.send(message) ?? false;
  }

  broadcast(message: PeerMessage): void {
    for (const link of this.#control.values()) link.send(message);
  }

  sendBulk(to: NodeId, message: BulkMessage): Promise<boolean> {
    return this.#bulk.get(to)?.sendAndDrain(message) ?? Promise.resolve(false);
  }

  isUp(peer: NodeId): boolean {
    return this.#control.get(peer)?.up ?? false;
  }

  async stop(): Promise<void> {
    for (const link of [...this.#control.values(), ...this.#bulk.values()]) link.stop();
    const closed = once(this.#server, 'close');
    this.#server.close();
    for (const socket of this.#incoming) socket.destroy();
    await closed;
  }

  #accept(socket: net.Socket): void {
    this.#incoming.add(socket);
    const { log, secret, keepalive, silence, peerLogs } = this.#options;
    const timer = setTimeout(() => socket.destroy(), CONNECT_TIMEOUT);
    socket.once('close', () => {
      clearTimeout(timer);
      this.#incoming.delete(socket);
    });
    socket.on('error', (error) => log.debug({ error: error.message }, 'peer connection failed'));
    const remember = ({ node }: Hello) => peerLogs.remember(node as NodeId);
    receive(socket, secret, (hello) => this.#refusal(hello), remember).then(
      ({ hello, log: shown }) => {
        clearTimeout(timer);
        // Another one may have come in the meantime.
        const doubled = this.#doubled(hello);
        if (doubled !== undefined) {
          this.#reportRefused(socket.remoteAddress ?? 'unknown', doubled);
          socket.destroy();
          return;
        }
        this.#refused.delete(socket.remoteAddress ?? 'unknown');
        tuneSocket(socket, keepalive);
        if (hello.kind === 'control') {
          // Heartbeats come over this connection from now on, and over no other.
          if (shown !== undefined) peerLogs.met(hello.node as NodeId, shown);
          socket.setTimeout(silence, () => socket.destroy());
        }
        this.#read(socket, hello);
      },
      (error: unknown) => {
        this.#reportRefused(socket.remoteAddress ?? 'unknown', (error as Error).message);
        socket.destroySoon();
      },
    );
  }

  /** Whoever is refused comes again ten times a second: each reason is told once, until somebody from there is let in. */
  #reportRefused(remote: string, reason: string): void {
    const told = this.#refused.get(remote) ?? new Set();
    if (told.has(reason)) return;
    if (told.size >= MAX_REASONS) told.clear();
    this.#refused.set(remote, told.add(reason));
    this.#options.log.warn({ remote }, `peer refused: ${reason}`);
  }

  #refusal(hello: Hello): string | undefined {
    const { cluster, self, peers } = this.#options;
    if (hello.cluster !== cluster) return `this is cluster "${cluster}", not "${hello.cluster}"`;
    if (hello.to !== self) return `this is node ${self}, not node ${hello.to}`;
    if (hello.node === self || !peers.has(hello.node as NodeId))
      return `node ${hello.node} is not one of nodes: in the configuration`;
    return this.#doubled(hello);
  }

  /**
   * Two processes that run as one node, by mistake: a copied configuration, a clone of a machine. Whoever came first stays until its connection ends, be it
   * by silence. Both would vote, or each take the other's place again and again.
   */
  #doubled({ node, run }: Hello): string | undefined {
    const current = this.#current.get(node as NodeId);
    if (current === undefined || current.socket.destroyed) return undefined;
    if (run === undefined || current.run === undefined || run === current.run) return undefined;
    return `another process runs as node ${node} already, and is connected from ${current.remote}`;
  }

  #read(socket: net.Socket, hello: Hello): void {
    const from = hello.node as NodeId;
    if (hello.kind === 'control') {
      this.#current.get(from)?.socket.destroy();
      this.#current.set(from, { socket, run: hello.run, remote: socket.remoteAddress ?? 'unknown' });
    }
    const unpackr = new Packr({ sequential: true });
    const reader = new FrameReader((body) => {
      const message = unpack(unpackr, body);
      if (hello.kind === 'control') this.#options.onMessage(from, message as PeerMessage);
      else this.#options.onBulk(from, message as BulkMessage);
    });
    socket.on('data', (chunk: Buffer) => {
      this.traffic.received += chunk.length;
      try {
        reader.push(chunk);
      } catch (error) {
        // Of the connection only: what a message brings about, and must not be, ends the process.
        if (!(error instanceof Unreadable)) throw error;
        this.#options.log.warn({ peer: from, kind: hello.kind }, `peer connection ended: ${error.message}`);
        socket.destroy();
      }
    });
  }
}

function unpack(unpackr: Packr, body: Buffer): unknown {
  try {
    return unpackr.unpack(body);
  } catch (error) {
    throw new Unreadable(`a message cannot be read: ${(error as Error).message}`);
  }
}
