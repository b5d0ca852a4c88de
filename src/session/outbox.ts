/**
 * Bytes on their way to one socket, in order. What came in one chunk and goes out in one piece stays one range: nothing is
 * copied, and one event of input causes one write.
 */
export class Outbox {
  #parts: Buffer[] = [];
  #bytes: Buffer | undefined;
  #start = 0;
  #end = 0;

  range(bytes: Buffer, start: number, end: number): void {
    if (this.#bytes === bytes && this.#end === start) {
      this.#end = end;
      return;
    }
    this.#seal();
    this.#bytes = bytes;
    this.#start = start;
    this.#end = end;
  }

  push(...buffers: readonly Buffer[]): void {
    for (const bytes of buffers) this.range(bytes, 0, bytes.length);
  }

  get empty(): boolean {
    return this.#bytes === undefined && this.#parts.length === 0;
  }

  /** Everything so far, and begins anew. */
  take(): Buffer[] {
    this.#seal();
    const parts = this.#parts;
    if (parts.length > 0) this.#parts = [];
    return parts;
  }

  #seal(): void {
    const bytes = this.#bytes;
    if (bytes === undefined) return;
    this.#parts.push(this.#start === 0 && this.#end === bytes.length ? bytes : bytes.subarray(this.#start, this.#end));
    this.#bytes = undefined;
  }
}
