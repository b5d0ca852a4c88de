import { Frontend, lengthAt } from './codes.ts';

const HEADER = 5;

/**
 * Cuts what a client sends into messages ("Message Flow" of the protocol chapter) without copying what arrives whole.
 * `next` exposes the message at `start`..`end` of `bytes`, valid until the following `next` or `push`. CopyData alone may be exposed
 * in part: the rest of it then comes as `continuation` ranges, so that its length bounds no memory.
 */
export class ClientStream {
  bytes: Buffer = Buffer.alloc(0);
  type = 0;
  start = 0;
  end = 0;

  readonly #limit: number;
  #position = 0;
  /** Bytes of a CopyData message that were promised but have not arrived. */
  #rest = 0;
  /** The same of one that nobody wants any more. */
  #dropped = 0;
  #tail: Buffer[] = [];
  #tailLength = 0;

  /** A message longer than `limit` is a protocol violation, as it is to PostgreSQL (1 GB). */
  constructor(limit = 0x3fffffff) {
    this.#limit = limit;
  }

  /** Bytes that have arrived and were not taken by `next`. */
  get buffered(): number {
    return this.bytes.length - this.#position + this.#tailLength;
  }

  /** Bytes that are still to come of the CopyData message that was exposed last. */
  get rest(): number {
    return this.#rest;
  }

  /** The chunk must not be changed afterwards. */
  push(chunk: Buffer): void {
    if (this.#dropped > 0) {
      const dropped = Math.min(this.#dropped, chunk.length);
      this.#dropped -= dropped;
      chunk = chunk.subarray(dropped);
    }
    if (this.#position === this.bytes.length && this.#tailLength === 0) {
      this.bytes = chunk;
      this.#position = 0;
      return;
    }
    this.#tail.push(chunk);
    this.#tailLength += chunk.length;
  }

  /** Puts bytes before all that was not taken yet. Only between whole messages. */
  unshift(chunk: Buffer): void {
    this.bytes = Buffer.concat([chunk, this.bytes.subarray(this.#position), ...this.#tail]);
    this.#position = 0;
    this.#tail = [];
    this.#tailLength = 0;
  }

  /** What is still to come of the message that was exposed last is never exposed. */
  dropRest(): void {
    const here = Math.min(this.#rest, this.buffered);
    if (here > 0) this.#gather();
    this.#position += here;
    this.#dropped += this.#rest - here;
    this.#rest = 0;
  }

  /** Advances to the next message; false when it has not arrived. Throws RangeError on an impossible length. */
  next(): boolean {
    if (this.#rest > 0) return this.#continue();
    if (!this.#have(HEADER)) return false;
    const at = this.#position;
    const type = this.bytes[at];
    const length = this.#lengthAt(at);
    if (!this.#have(length)) {
      if (type !== Frontend.copyData) return false;
      this.#expose(type, length);
      return true;
    }
    this.#expose(type, length);
    return true;
  }

  /** The first byte of the message that `next` would expose; undefined when none has arrived whole. */
  peek(): number | undefined {
    if (this.#rest > 0) return this.buffered > 0 ? Frontend.copyData : undefined;
    if (!this.#have(HEADER)) return undefined;
    const type = this.bytes[this.#position];
    if (type === Frontend.copyData) return type;
    return this.#have(this.#lengthAt(this.#position)) ? type : undefined;
  }

  /**
   * Walks over the whole messages that `next` has not exposed, without taking them, until `visit` answers true.
   * Answers whether it did.
   */
  lookAhead(visit: (type: number, bytes: Buffer, start: number, end: number) => boolean): boolean {
    this.#gather();
    let at = this.#position;
    while (at + HEADER <= this.bytes.length) {
      const end = at + this.#lengthAt(at);
      if (end > this.bytes.length) return false;
      if (visit(this.bytes[at], this.bytes, at, end)) return true;
      at = end;
    }
    return false;
  }

  /** Takes everything up to `end`, an offset into `bytes` that `lookAhead` gave. */
  skipTo(end: number): void {
    this.#position = end;
  }

  #lengthAt(at: number): number {
    const length = lengthAt(this.bytes, at + 1);
    if (length < 4 || length > this.#limit) throw new RangeError('invalid message length');
    return length + 1;
  }

  #expose(type: number, length: number): void {
    this.type = type;
    this.start = this.#position;
    this.end = Math.min(this.#position + length, this.bytes.length);
    this.#rest = this.start + length - this.end;
    this.#position = this.end;
  }

  #continue(): boolean {
    if (!this.#have(1)) return false;
    this.#gather();
    this.type = Frontend.copyData;
    this.start = this.#position;
    this.end = Math.min(this.start + this.#rest, this.bytes.length);
    this.#rest -= this.end - this.start;
    this.#position = this.end;
    return true;
  }

  /** True when `length` bytes from the position are in `bytes`; joins the chunks only once enough have come. */
  #have(length: number): boolean {
    if (this.bytes.length - this.#position >= length) return true;
    if (this.buffered < length) return false;
    this.#gather();
    return true;
  }

  #gather(): void {
    if (this.#tailLength === 0) return;
    this.bytes = Buffer.concat([this.bytes.subarray(this.#position), ...this.#tail]);
    this.#position = 0;
    this.#tail = [];
    this.#tailLength = 0;
  }
}
