/** Of access/xlog_internal.h and access/xlogrecord.h, unchanged from PostgreSQL 9.5 to 18; in the server's byte order. */
export const WAL_PAGE = 8192;
const SHORT_HEADER = 24;
const LONG_HEADER = 40;
const FIRST_IS_CONTRECORD = 0x1;
const HAS_LONG_HEADER = 0x2;
const RECORD_HEADER = 24;
const XLOG_RESOURCE_MANAGER = 0;
const XLOG_SWITCH = 0x40;

const aligned = (length: number): number => (length + 7) & ~7;

/**
 * Cuts pages of WAL into records. Records are given whole, with their 24-byte headers, as views into what was pushed or
 * into a joined copy.
 */
export class WalReader {
  /** Address of the page that must come next. */
  #page: bigint;
  /** What is left of a record that began before the first page. */
  #skip: number | undefined;
  #held: Buffer[] = [];
  #heldLength = 0;
  #needed = RECORD_HEADER;
  /** The rest of the segment is empty. */
  #switched = false;

  /** `start`: address of the first page, a multiple of its size. */
  constructor(start: bigint) {
    this.#page = start;
  }

  /** One page, the last one possibly cut off where its WAL ends. Throws on what is no page of this address. */
  *push(page: Buffer): Iterable<Buffer> {
    const flags = page.length < SHORT_HEADER ? 0 : page.readUInt16LE(2);
    const long = (flags & HAS_LONG_HEADER) !== 0;
    if (this.#switched && !long) {
      this.#page += BigInt(WAL_PAGE);
      return;
    }
    this.#switched = false;
    this.#check(page);
    let at = long ? LONG_HEADER : SHORT_HEADER;
    this.#skip ??= (flags & FIRST_IS_CONTRECORD) === 0 ? 0 : aligned(page.readUInt32LE(16));
    const skipped = Math.min(this.#skip, page.length - at);
    this.#skip -= skipped;
    at += skipped;
    if (at < page.length) yield* this.#records(page.subarray(at));
  }

  #check(page: Buffer): void {
    const address = page.length < SHORT_HEADER ? undefined : page.readBigUInt64LE(8);
    if (address !== this.#page)
      throw new Error(`the WAL has no page at ${this.#page.toString(16)}, as was expected of a little-endian server`);
    this.#page += BigInt(WAL_PAGE);
  }

  *#records(more: Buffer): Iterable<Buffer> {
    let bytes = more;
    if (this.#heldLength > 0) {
      this.#held.push(more);
      this.#heldLength += more.length;
      if (this.#heldLength < this.#needed) return;
      bytes = Buffer.concat(this.#held, this.#heldLength);
    }
    let at = 0;
    this.#needed = RECORD_HEADER;
    while (bytes.length - at >= 4) {
      const length = bytes.readUInt32LE(at);
      if (length < RECORD_HEADER) throw new Error('the WAL ends where a record was expected');
      if (at + length > bytes.length) {
        this.#needed = length;
        break;
      }
      const record = bytes.subarray(at, at + length);
      yield record;
      at += aligned(length);
      if (isSwitch(record)) {
        this.#switched = true;
        at = bytes.length;
      }
    }
    // Pages end on the alignment of records, so only where the last one is cut off may this go beyond.
    this.#held = at < bytes.length ? [bytes.subarray(at)] : [];
    this.#heldLength = Math.max(bytes.length - at, 0);
  }
}

function isSwitch(record: Buffer): boolean {
  return record[17] === XLOG_RESOURCE_MANAGER && (record[16] & 0xf0) === XLOG_SWITCH;
}
