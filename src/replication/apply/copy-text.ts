import type { Value } from '../pgoutput/tuples.ts';

const BACKSLASH = 0x5c;
const TAB = 0x09;
const NEWLINE = 0x0a;
const RETURN = 0x0d;

/** What COPY's text format escapes ("File Formats" of the COPY page). */
function needsEscape(byte: number): boolean {
  return byte === BACKSLASH || byte === TAB || byte === NEWLINE || byte === RETURN;
}

const LETTER: Readonly<Record<number, number>> = {
  [TAB]: 0x74,
  [NEWLINE]: 0x6e,
  [RETURN]: 0x72,
  [BACKSLASH]: BACKSLASH,
};

const FIRST_SIZE = 64 * 1024;

/** Gathers rows in COPY's text format. */
export class CopyText {
  /** Empty until there is something: most transactions have no use for it. */
  #buffer = Buffer.alloc(0);
  #length = 0;

  get length(): number {
    return this.#length;
  }

  row(values: readonly Value[]): void {
    for (let i = 0; i < values.length; i++) {
      if (i > 0) this.#byte(TAB);
      this.#value(values[i] ?? null);
    }
    this.#byte(NEWLINE);
  }

  take(): Buffer {
    const bytes = Buffer.from(this.#buffer.subarray(0, this.#length));
    this.#length = 0;
    return bytes;
  }

  #value(value: Buffer | null): void {
    if (value === null) {
      this.#byte(BACKSLASH);
      return this.#byte(0x4e);
    }
    // Twice the length is what a value of nothing but escapes would take.
    this.#room(value.length * 2);
    let length = this.#length;
    for (let i = 0; i < value.length; i++) {
      const byte = value[i];
      if (byte <= BACKSLASH && needsEscape(byte)) {
        this.#buffer[length++] = BACKSLASH;
        this.#buffer[length++] = LETTER[byte];
      } else {
        this.#buffer[length++] = byte;
      }
    }
    this.#length = length;
  }

  #byte(byte: number): void {
    this.#room(1);
    this.#buffer[this.#length++] = byte;
  }

  #room(bytes: number): void {
    if (this.#length + bytes <= this.#buffer.length) return;
    const larger = Buffer.allocUnsafe(Math.max(this.#buffer.length * 2, this.#length + bytes, FIRST_SIZE));
    this.#buffer.copy(larger, 0, 0, this.#length);
    this.#buffer = larger;
  }
}
