import type { PeerMessage } from '../../src/cluster/messages.ts';
import type { Loop, Process } from './loop.ts';
import type { Rng } from './rng.ts';

/** The receiving and the sending end of links: one node's proxy. */
export interface Endpoint {
  readonly id: number;
  readonly process: Process;
  onMessage(from: number, message: PeerMessage): void;
  onLinkUp(peer: number): void;
}

const RECONNECT = 60;
/** How long a connection outlives a network that carries nothing. */
const SILENCE = 400;

/**
 * One direction between two nodes: a connection that the sender dials. It keeps the order, and loses the end of what was
 * said when it breaks; some of that may still arrive late, beside what the next connection carries.
 */
class Link {
  readonly from: Endpoint;
  readonly to: Endpoint;
  readonly #loop: Loop;
  readonly #rng: Rng;
  readonly #network: Network;
  #outbox: PeerMessage[] = [];
  #lastArrival = 0;
  #connection = 0;
  #stalledSince: number | undefined;
  up = false;
  #isCut = false;

  constructor(network: Network, loop: Loop, rng: Rng, from: Endpoint, to: Endpoint) {
    this.#network = network;
    this.#loop = loop;
    this.#rng = rng;
    this.from = from;
    this.to = to;
  }

  send(message: PeerMessage): boolean {
    if (!this.up) return false;
    this.#outbox.push(message);
    this.#schedule();
    return true;
  }

  #schedule(): void {
    this.#lastArrival = Math.max(this.#lastArrival, this.#loop.now + this.#network.latency(this.#rng));
    const connection = this.#connection;
    this.#loop.after(this.#lastArrival - this.#loop.now, () => this.#arrive(connection));
  }

  #arrive(connection: number): void {
    if (connection !== this.#connection || this.#outbox.length === 0) return;
    if (this.#isCut) {
      this.#stalledSince ??= this.#loop.now;
      return;
    }
    const message = this.#outbox.shift()!;
    this.#hand(message, 0);
  }

  #hand(message: PeerMessage, delay: number): void {
    this.#loop.in(this.to.process, delay, () => this.to.onMessage(this.from.id, message));
  }

  cut(isCut: boolean): void {
    this.#isCut = isCut;
    if (isCut) {
      this.#stalledSince = this.#loop.now;
      const connection = this.#connection;
      this.#loop.after(this.#rng.between(SILENCE / 8, SILENCE), () => {
        if (this.#isCut && connection === this.#connection) this.break();
      });
    } else if (this.#stalledSince !== undefined) {
      this.#stalledSince = undefined;
      // Sent again by TCP, in order.
      for (const _ of this.#outbox) this.#schedule();
      if (!this.up) this.dial();
    }
  }

  /** The connection ends. What is under way is lost; or some of it comes late, as if read from the old socket. */
  break(late = this.#rng.chance(0.3)): void {
    if (this.up && late) {
      let delay = 0;
      for (const message of this.#outbox.slice(0, this.#rng.below(this.#outbox.length + 1))) {
        delay += this.#rng.wait(20);
        this.#hand(message, delay);
      }
    }
    this.up = false;
    this.#connection++;
    this.#outbox = [];
    this.dial();
  }

  /** Tries until it works; told to the sender. */
  dial(): void {
    const connection = this.#connection;
    this.#loop.in(this.from.process, this.#rng.between(RECONNECT / 2, RECONNECT * 1.5), () => {
      if (this.up || connection !== this.#connection) return;
      if (this.#isCut || !this.to.process.alive || this.to.process.stopped) return this.dial();
      this.up = true;
      this.#lastArrival = this.#loop.now;
      this.from.onLinkUp(this.to.id);
    });
  }
}

export class Network {
  readonly #rng: Rng;
  readonly #links = new Map<number, Link>();
  readonly #endpoints: readonly Endpoint[];
  #slow = 1;

  constructor(loop: Loop, rng: Rng, endpoints: readonly Endpoint[]) {
    this.#rng = rng;
    this.#endpoints = endpoints;
    for (const from of endpoints) {
      for (const to of endpoints) {
        if (from !== to) this.#links.set(from.id * 64 + to.id, new Link(this, loop, rng, from, to));
      }
    }
  }

  latency(rng: Rng): number {
    return this.#slow * (rng.chance(0.02) ? rng.between(5, 60) : rng.between(0.3, 2));
  }

  set slowness(factor: number) {
    this.#slow = factor;
  }

  link(from: number, to: number): Link {
    return this.#links.get(from * 64 + to)!;
  }

  send(from: number, to: number, message: PeerMessage): void {
    if (from !== to) this.link(from, to).send(message);
  }

  /** Cut in the given directions, as `from * 64 + to`; all others are whole. */
  partition(cut: ReadonlySet<number>): void {
    for (const [key, link] of this.#links) link.cut(cut.has(key));
  }

  heal(): void {
    this.partition(new Set());
  }

  isReachable(from: number, to: number): boolean {
    return from === to || this.link(from, to).up;
  }

  breakOne(): void {
    const links = [...this.#links.values()];
    if (links.length > 0) this.#rng.pick(links).break();
  }

  /** A node's proxy began, or ended: every connection of it begins anew. */
  reset(node: number): void {
    for (const other of this.#endpoints) {
      if (other.id === node) continue;
      this.link(node, other.id).break();
      this.link(other.id, node).break(false);
    }
  }
}
