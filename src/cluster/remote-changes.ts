import type { Gid, NodeId } from '../runtime/ids.ts';
import type { Chunk, PeerMessage } from './messages.ts';
import type { ChangeSource } from './ports.ts';

interface Waiting {
  readonly from: NodeId;
  readonly offset: number;
  resolve(piece: { bytes: Uint8Array; last: boolean }): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/**
 * Large transactions are pulled by the node that replays them, a piece at a time, so neither side holds more than a piece
 * in memory and a slow replay slows down nothing else on the link.
 */
export class RemoteChanges {
  readonly #waiting = new Map<Gid, Waiting>();
  readonly #send: (to: NodeId, message: PeerMessage) => boolean;
  readonly #timeout: number;

  /** `timeout` in milliseconds: how long one piece may take. */
  constructor(send: (to: NodeId, message: PeerMessage) => boolean, timeout: number) {
    this.#send = send;
    this.#timeout = timeout;
  }

  source(gid: Gid, from: NodeId): ChangeSource {
    return { type: 'remote', read: (offset, limit) => this.#read(gid, from, offset, limit) };
  }

  #read(gid: Gid, from: NodeId, offset: number, limit: number): Promise<{ bytes: Uint8Array; last: boolean }> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#fail(gid, `node ${from} did not send changes in time`), this.#timeout);
      this.#waiting.set(gid, { from, offset, resolve, reject, timer });
      if (!this.#send(from, { t: 'fetch', gid, offset, limit })) this.#fail(gid, `no link to node ${from}`);
    });
  }

  onChunk(from: NodeId, chunk: Chunk): void {
    const waiting = this.#waiting.get(chunk.gid);
    if (waiting === undefined || waiting.from !== from || waiting.offset !== chunk.offset) return;
    if (chunk.error !== undefined) return this.#fail(chunk.gid, chunk.error);
    clearTimeout(waiting.timer);
    this.#waiting.delete(chunk.gid);
    waiting.resolve({ bytes: chunk.bytes, last: chunk.last });
  }

  #fail(gid: Gid, reason: string): void {
    const waiting = this.#waiting.get(gid);
    if (waiting === undefined) return;
    clearTimeout(waiting.timer);
    this.#waiting.delete(gid);
    waiting.reject(new Error(reason));
  }

  /** Nobody reads this transaction any more. */
  drop(gid: Gid): void {
    this.#fail(gid, 'the transaction is over');
  }
}
