import type { NodeId } from '../../runtime/ids.ts';
import type { CopyPiece, CopySource } from '../../replication/copy-source.ts';
import type { CopyRequest } from '../messages.ts';

export interface CloneRequest {
  /** The byte of the copy at which the piece is to begin; 0 begins a new copy. */
  readonly from: number;
  /** Bytes, roughly. */
  readonly limit: number;
  /** What is wanted; nothing is said by versions that know physical copies only. */
  readonly copy: Partial<CopyRequest>;
}

/** Milliseconds that a reader may be silent before its copy is given up. */
const IDLE = 60_000;

interface Reading {
  readonly source: CopySource;
  position: number;
  idle: NodeJS.Timeout | undefined;
}

/** The donor's side: one copy of its PostgreSQL for each node that asks, given out as it is asked for. */
export class CloneServer {
  readonly #begin: (request: Partial<CopyRequest>) => Promise<CopySource>;
  readonly #readings = new Map<NodeId, Reading>();

  constructor(begin: (request: Partial<CopyRequest>) => Promise<CopySource>) {
    this.#begin = begin;
  }

  /** Rejects with the reason when this node can't give a copy, or not from there. */
  async read(reader: NodeId, { from, limit, copy }: CloneRequest): Promise<CopyPiece> {
    let reading = this.#readings.get(reader);
    if (from === 0) {
      if (reading !== undefined) this.#end(reader, reading);
      reading = { source: await this.#begin(copy), position: 0, idle: undefined };
      this.#readings.set(reader, reading);
    }
    if (reading?.position !== from) throw new Error('this copy is not under way any more');
    clearTimeout(reading.idle);
    const held = reading;
    try {
      const piece = await reading.source.take(limit);
      reading.position += piece.bytes.length;
      if (piece.end) this.#end(reader, reading);
      else reading.idle = setTimeout(() => this.#end(reader, held), IDLE);
      return piece;
    } catch (error) {
      this.#end(reader, held);
      throw error;
    }
  }

  #end(reader: NodeId, reading: Reading): void {
    clearTimeout(reading.idle);
    reading.source.stop();
    if (this.#readings.get(reader) === reading) this.#readings.delete(reader);
  }

  stop(): void {
    for (const [reader, reading] of this.#readings) this.#end(reader, reading);
  }
}
