import { Backend, lengthAt } from './codes.ts';

const HEADER = 5;

export interface ServerSink {
  /**
   * A message whose body is of no interest: forwarded as it streams by when true, dropped when false. Asked once a
   * message, before its body has arrived.
   */
  stream(type: number): boolean;
  /** A message that is looked at: forwarded unchanged when true; otherwise the sink has dealt with it. */
  whole(type: number, message: Buffer): boolean;
  /** Bytes for the client, in order: a range of what was pushed. */
  forward(bytes: Buffer, start: number, end: number): void;
  /** Which types are to come as `whole`. Asked once a message. */
  wants(type: number): boolean;
}

/**
 * Cuts what a server sends into messages, looks at those the sink wants and lets the rest stream by in ranges as large as they
 * arrived: result rows are neither copied nor kept.
 */
export class ServerStream {
  readonly #sink: ServerSink;
  /** The beginning of a header or of a wanted message. */
  #partial: Buffer[] = [];
  #partialLength = 0;
  /** Bytes of a streaming message that are still to come, and what becomes of them. */
  #rest = 0;
  #forwarding = false;

  constructor(sink: ServerSink) {
    this.#sink = sink;
  }

  /** A message that is being forwarded has not come to its end. */
  get midMessage(): boolean {
    return this.#rest > 0 && this.#forwarding;
  }

  /** The chunk may be reused as soon as what was forwarded of it is written. */
  push(chunk: Buffer): void {
    let at = 0;
    if (this.#rest > 0) at = this.#passRest(chunk, 0);
    if (this.#partialLength > 0) at = this.#complete(chunk, at);
    while (at < chunk.length) {
      if (at + HEADER > chunk.length) return this.#keep(chunk.subarray(at));
      const end = at + 1 + lengthAt(chunk, at + 1);
      const type = chunk[at];
      if (this.#sink.wants(type)) {
        if (end > chunk.length) return this.#keep(chunk.subarray(at));
        if (this.#sink.whole(type, chunk.subarray(at, end))) this.#sink.forward(chunk, at, end);
      } else {
        this.#forwarding = this.#sink.stream(type);
        this.#rest = end - at;
        at = this.#passRest(chunk, at);
        continue;
      }
      at = end;
    }
  }

  #passRest(chunk: Buffer, at: number): number {
    const end = Math.min(at + this.#rest, chunk.length);
    this.#rest -= end - at;
    if (this.#forwarding && end > at) this.#sink.forward(chunk, at, end);
    return end;
  }

  /** A copy: the chunk's memory is read into again. */
  #keep(bytes: Buffer): void {
    if (bytes.length === 0) return;
    this.#partial.push(Buffer.from(bytes));
    this.#partialLength += bytes.length;
  }

  /** Goes on with a kept beginning; answers how far the chunk is used up. */
  #complete(chunk: Buffer, from: number): number {
    let at = from;
    if (this.#partialLength < HEADER) {
      at = Math.min(chunk.length, from + HEADER - this.#partialLength);
      this.#keep(chunk.subarray(from, at));
      if (this.#partialLength < HEADER) return at;
    }
    if (this.#partial[0].length < HEADER) this.#partial = [Buffer.concat(this.#partial)];
    const head = this.#partial[0];
    const length = 1 + lengthAt(head, 1);
    const type = head[0];
    if (!this.#sink.wants(type)) {
      this.#forget();
      this.#forwarding = this.#sink.stream(type);
      if (this.#forwarding) this.#sink.forward(head, 0, head.length);
      this.#rest = length - head.length;
      return this.#passRest(chunk, at);
    }
    const missing = length - this.#partialLength;
    const end = Math.min(chunk.length, at + missing);
    this.#keep(chunk.subarray(at, end));
    if (this.#partialLength < length) return end;
    const message = Buffer.concat(this.#partial);
    this.#forget();
    if (this.#sink.whole(type, message)) this.#sink.forward(message, 0, message.length);
    return end;
  }

  #forget(): void {
    this.#partial = [];
    this.#partialLength = 0;
  }
}

/** A message of the server's that can come at any time, outside any answer ("Asynchronous Operations"). */
export function isAsynchronous(type: number): boolean {
  return type === Backend.notice || type === Backend.parameterStatus || type === Backend.notification;
}
