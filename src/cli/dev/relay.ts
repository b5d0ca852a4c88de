import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';

export interface Address {
  readonly host: string;
  readonly port: number;
}

/** What a relay does to its connections. Forward is from whoever dials to the target. */
export interface Cut {
  readonly forward: boolean;
  readonly backward: boolean;
  /** Connections are reset and new ones refused so; otherwise bytes are only held back. */
  readonly reset: boolean;
  /** Milliseconds that everything takes, in each direction. */
  readonly delay?: number;
}

export const OPEN: Cut = { forward: false, backward: false, reset: false };

/**
 * Passes TCP connections on to one target, and can behave like a network that has lost its way: a cut direction
 * delivers nothing, neither bytes nor a close nor a reset, until it is opened again; then what was held back arrives.
 * A connection made meanwhile is accepted by the kernel, since a listener can't be kept from that, and stays silent.
 *
 * Unlike in a real partition the kernel acknowledges what it holds back, so TCP's own timeouts don't notice a cut.
 */
export class Relay {
  readonly #target: Address;
  readonly #server: Server;
  readonly #connections = new Set<RelayedConnection>();
  #cut: Cut = OPEN;

  constructor(target: Address) {
    this.#target = target;
    this.#server = createServer({ allowHalfOpen: true, pauseOnConnect: true, noDelay: true }, (socket) =>
      this.#accept(socket),
    );
  }

  async listen(at: Address): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(at.port, at.host, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  /** Where it listens; of use when port 0 was asked for. */
  get port(): number {
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  get connections(): number {
    return this.#connections.size;
  }

  set(cut: Cut): void {
    this.#cut = cut;
    for (const connection of [...this.#connections]) connection.set(cut);
  }

  async close(): Promise<void> {
    const closed = new Promise<void>((resolve) => {
      this.#server.close(() => resolve());
    });
    for (const connection of [...this.#connections]) connection.destroy();
    await closed;
  }

  #accept(socket: Socket): void {
    const connection = new RelayedConnection(socket, this.#target, () => this.#connections.delete(connection));
    this.#connections.add(connection);
    connection.set(this.#cut);
  }
}

class RelayedConnection {
  readonly #client: Socket;
  readonly #target: Address;
  readonly #onClose: () => void;
  #server: Socket | undefined;
  #forward: Flow | undefined;
  #backward: Flow | undefined;

  constructor(client: Socket, target: Address, onClose: () => void) {
    this.#client = client;
    this.#target = target;
    this.#onClose = onClose;
    client.on('close', () => this.#closed());
    // Its flow tells the other side; without a listener an error would end the program.
    client.on('error', () => undefined);
  }

  set(cut: Cut): void {
    const held = cut.forward || cut.backward;
    if (cut.reset && held) {
      this.#client.resetAndDestroy();
      this.#server?.resetAndDestroy();
      return;
    }
    if (this.#server === undefined) {
      // Connecting takes a packet in each direction.
      if (held) return;
      this.#dial();
    }
    this.#forward?.set(cut.forward, cut.delay ?? 0);
    this.#backward?.set(cut.backward, cut.delay ?? 0);
  }

  destroy(): void {
    this.#client.destroy();
    this.#server?.destroy();
  }

  #dial(): void {
    const server = connect({ ...this.#target, allowHalfOpen: true, noDelay: true });
    this.#server = server;
    server.on('close', () => this.#closed());
    server.on('error', () => undefined);
    server.pause();
    this.#forward = new Flow(this.#client, server);
    this.#backward = new Flow(server, this.#client);
  }

  #closed(): void {
    if (this.#client.destroyed && this.#server?.destroyed !== false) this.#onClose();
  }
}

/** One direction of one connection. */
class Flow {
  readonly #from: Socket;
  readonly #to: Socket;
  readonly #underWay: { readonly at: number; readonly bytes: Buffer | undefined }[] = [];
  #held = true;
  #broken = false;
  #delay = 0;
  #timer: NodeJS.Timeout | undefined;

  constructor(from: Socket, to: Socket) {
    this.#from = from;
    this.#to = to;
    from.on('data', (bytes: Buffer) => this.#take(bytes));
    to.on('drain', () => this.#flow());
    from.on('end', () => this.#take(undefined));
    from.on('error', () => {
      this.#broken = true;
      this.#flow();
    });
  }

  set(held: boolean, delay: number): void {
    this.#held = held;
    this.#delay = delay;
    if (held) this.#from.pause();
    else this.#flow();
  }

  /** Undefined is the end. Nothing overtakes what is under way, even if the delay has become less since. */
  #take(bytes: Buffer | undefined): void {
    if (this.#delay === 0 && this.#underWay.length === 0) return this.#deliver(bytes);
    this.#underWay.push({ at: performance.now() + this.#delay, bytes });
    this.#timer ??= setTimeout(() => this.#arrive(), this.#delay);
  }

  #arrive(): void {
    this.#timer = undefined;
    if (this.#held) return;
    let next = this.#underWay.at(0);
    for (; next !== undefined && next.at <= performance.now(); next = this.#underWay.at(0)) {
      this.#underWay.shift();
      this.#deliver(next.bytes);
    }
    if (next !== undefined) this.#timer ??= setTimeout(() => this.#arrive(), next.at - performance.now());
  }

  #deliver(bytes: Buffer | undefined): void {
    if (this.#to.destroyed) return;
    if (bytes === undefined) this.#to.end();
    else if (!this.#to.write(bytes)) this.#from.pause();
  }

  #flow(): void {
    if (this.#held) return;
    if (this.#underWay.length > 0) this.#arrive();
    if (this.#broken) this.#to.resetAndDestroy();
    else if (!this.#to.writableNeedDrain) this.#from.resume();
  }
}
