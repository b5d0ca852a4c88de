/** Cuts a stream of records `[u32 length][bytes]`, which arrives in pieces, into records. */
export class RecordReader {
  #held: Buffer[] = [];
  #heldLength = 0;

  /** The records that are complete with this piece; views into it or into a joined copy. */
  *push(piece: Buffer): Iterable<Buffer> {
    let bytes = piece;
    if (this.#heldLength > 0) {
      this.#held.push(piece);
      this.#heldLength += piece.length;
      if (this.#heldLength < this.#needed()) return;
      bytes = Buffer.concat(this.#held, this.#heldLength);
    }
    this.#held = [];
    this.#heldLength = 0;
    let at = 0;
    while (bytes.length - at >= 4) {
      const end = at + 4 + bytes.readUInt32BE(at);
      if (end > bytes.length) break;
      yield bytes.subarray(at + 4, end);
      at = end;
    }
    if (at < bytes.length) {
      this.#held = [bytes.subarray(at)];
      this.#heldLength = bytes.length - at;
    }
  }

  /** Bytes that must be there before another record can be complete. */
  #needed(): number {
    const [first] = this.#held;
    return first.length >= 4 ? 4 + first.readUInt32BE(0) : 4;
  }

  /** Throws unless the stream ended between two records. */
  finish(): void {
    if (this.#heldLength > 0) throw new Error('a transaction’s changes end in the middle of a record');
  }
}
