import type { Socket } from 'node:net';

/** No frame is larger; a larger length means a broken or hostile peer. */
const MAX_FRAME = 256 * 1024 * 1024;

/** What came on a connection can't be made sense of, so nothing that follows on it can. */
export class Unreadable extends Error {
  override readonly name = 'Unreadable';
}

/**
 * Length-prefixed frames on a socket: `[u32 length of the body][body]`. What is sent within one turn of the event loop
 * leaves in one write, as most of the cost of a small message is its system call.
 */
export class FrameWriter {
  readonly #socket: Socket;
  #pending: Buffer[] = [];
  #scheduled = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Bytes handed over and not yet taken by the kernel. */
  get backlog(): number {
    return this.#socket.writableLength;
  }

  send(body: Buffer): void {
    const header = Buffer.allocUnsafe(4);
    header.writeUInt32BE(body.length);
    this.#pending.push(header, body);
    if (this.#scheduled) return;
    this.#scheduled = true;
    setImmediate(() => this.flush());
  }

  /** True when the socket takes more at once; otherwise wait for its `drain`. */
  flush(): boolean {
    this.#scheduled = false;
    if (this.#pending.length === 0 || this.#socket.destroyed) return true;
    const bytes =
      this.#pending.length === 2 && this.#pending[1].length > 65536 ? undefined : Buffer.concat(this.#pending);
    let ready = true;
    if (bytes !== undefined) ready = this.#socket.write(bytes);
    else for (const part of this.#pending) ready = this.#socket.write(part);
    this.#pending = [];
    return ready;
  }
}

/** Cuts a byte stream into frames. `onFrame` gets a view that is valid only during the call unless it is copied. */
export class FrameReader {
  readonly #onFrame: (body: Buffer) => void;
  #held: Buffer[] = [];
  #heldLength = 0;
  #needed = 4;

  constructor(onFrame: (body: Buffer) => void) {
    this.#onFrame = onFrame;
  }

  /** Throws `Unreadable` when the peer announces a frame above the limit. */
  push(chunk: Buffer): void {
    let bytes = chunk;
    if (this.#heldLength > 0) {
      this.#held.push(chunk);
      this.#heldLength += chunk.length;
      if (this.#heldLength < this.#needed) return;
      bytes = Buffer.concat(this.#held);
      this.#held = [];
      this.#heldLength = 0;
    }
    let offset = 0;
    this.#needed = 4;
    while (bytes.length - offset >= 4) {
      const length = bytes.readUInt32BE(offset);
      if (length > MAX_FRAME) throw new Unreadable(`frame of ${length} bytes is above the limit`);
      if (bytes.length - offset - 4 < length) {
        this.#needed = 4 + length;
        break;
      }
      this.#onFrame(bytes.subarray(offset + 4, offset + 4 + length));
      offset += 4 + length;
    }
    if (offset < bytes.length) {
      this.#held = [bytes.subarray(offset)];
      this.#heldLength = bytes.length - offset;
    }
  }
}
