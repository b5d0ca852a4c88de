import type { LogIndex, Lsn, NodeId } from '../../runtime/ids.ts';
import type { HistoryPiece } from '../../cluster/messages.ts';
import { HistoryReader, type HistoryReaderOptions } from './history-reader.ts';

export interface HistoryRequest {
  readonly database: string;
  readonly after: LogIndex;
  /** Bytes that the answer may hold, roughly. */
  readonly limit: number;
  readonly headersOnly: boolean;
  /** The reader does not have what was given out before: an answer may be lost, or it is a new process. Not said by earlier versions. */
  readonly fresh?: boolean;
}

export interface HistoryAnswer {
  readonly pieces: readonly HistoryPiece[];
  /** Nothing more is committed here at this moment. */
  readonly end: boolean;
  /** Everything up to here has been given out, whether there was something or not; asked for only where headers are read. */
  readonly after?: LogIndex;
}

/** Everything up to `index` is committed before `position` in the WAL. */
export interface CommittedMark {
  readonly index: LogIndex;
  readonly position: Lsn;
}

/** What a database of this node offers to readers of its history. */
export interface HistorySource {
  readonly from: LogIndex;
  committed(): Promise<CommittedMark>;
  readerOptions(): Pick<HistoryReaderOptions, 'connection' | 'slot' | 'publication'>;
}

/** The history that is kept here begins later. */
export class HistoryGone extends Error {
  override readonly name = 'HistoryGone';
}

type Reader = Pick<HistoryReader, 'start' | 'resume' | 'stop'>;
type OpenReader = (options: HistoryReaderOptions) => Reader;

/** Bytes read ahead for one reader. */
const READ_AHEAD = 4 * 1024 * 1024;
/** Milliseconds that an answer waits for something to happen, and that a reader may be silent. */
const LONG_POLL = 500;
const IDLE = 15_000;

/** One node's reading of one database's history, from one request to the next. */
class Reading {
  readonly #reader: Reader;
  readonly headersOnly: boolean;
  #pieces: HistoryPiece[] = [];
  #bytes = 0;
  #offset = 0;
  #caughtUp = false;
  #error: Error | undefined;
  /** Where it is not passed yet; `asked`: it is being found out. */
  #mark: CommittedMark | 'asked' | undefined;
  #passed = 0 as LogIndex;
  #wake: (() => void) | undefined;
  /** Everything up to here was given out. */
  position: LogIndex;
  idle: NodeJS.Timeout | undefined;

  constructor(options: Omit<HistoryReaderOptions, 'handlers'>, open: OpenReader) {
    this.position = options.after;
    this.headersOnly = options.headersOnly;
    this.#reader = open({
      ...options,
      handlers: {
        piece: (index, records) => {
          this.#push({ index, offset: this.#offset, bytes: records, last: false });
          this.#offset += records.length;
          return this.#bytes < READ_AHEAD;
        },
        committed: (index, gid, time, after) => {
          const part = { index, offset: this.#offset, bytes: EMPTY, last: true, gid, time };
          this.#push(after === index ? part : { ...part, after });
          this.#offset = 0;
        },
        caughtUp: (position) => {
          this.#caughtUp = true;
          this.#pass(position);
          this.#wake?.();
        },
        closed: (error) => {
          this.#error = error;
          this.#wake?.();
        },
      },
    });
  }

  start(): Promise<void> {
    return this.#reader.start();
  }

  #push(piece: HistoryPiece): void {
    this.#caughtUp = false;
    this.#pieces.push(piece);
    this.#bytes += piece.bytes.length;
    this.#wake?.();
  }

  /** Finds out, with the reader's next sign that it has caught up, how far everything has been read. */
  async mark(committed: () => Promise<CommittedMark>): Promise<void> {
    if (this.#mark !== undefined) return;
    this.#mark = 'asked';
    this.#mark = await committed().catch((error: unknown) => {
      this.#error = error as Error;
      return undefined;
    });
  }

  #pass(position: Lsn): void {
    if (this.#mark === undefined || this.#mark === 'asked' || position < this.#mark.position) return;
    this.#passed = this.#mark.index;
    this.#mark = undefined;
  }

  /** What is there, or what comes within half a second. Rejects when the history can't be read any more. */
  async take(limit: number): Promise<HistoryAnswer> {
    if (this.#pieces.length === 0 && !this.#caughtUp && this.#error === undefined) {
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, LONG_POLL);
        this.#wake = () => {
          clearTimeout(timer);
          resolve();
        };
      });
      this.#wake = undefined;
    }
    if (this.#error !== undefined) throw this.#error;
    const pieces: HistoryPiece[] = [];
    let size = 0;
    for (let piece = this.#pieces.shift(); piece !== undefined; piece = this.#pieces.shift()) {
      if (piece.bytes.length > limit) {
        // A row that is larger than what should travel at once: the reader joins the parts.
        this.#pieces.unshift({ ...piece, offset: piece.offset + limit, bytes: piece.bytes.subarray(limit) });
        piece = { ...piece, bytes: piece.bytes.subarray(0, limit), last: false };
      }
      pieces.push(piece);
      size += piece.bytes.length + 64;
      this.#bytes -= piece.bytes.length;
      if (piece.last) this.position = Math.max(this.position, piece.after ?? piece.index) as LogIndex;
      if (size >= limit) break;
    }
    if (this.#bytes < READ_AHEAD) this.#reader.resume();
    if (this.#pieces.length > 0 || this.#passed <= this.position) return { pieces, end: this.#isAtEnd };
    this.position = this.#passed;
    return { pieces, end: this.#isAtEnd, after: this.position };
  }

  get #isAtEnd(): boolean {
    return this.#pieces.length === 0 && this.#caughtUp;
  }

  stop(): void {
    clearTimeout(this.idle);
    this.#reader.stop();
  }
}

const EMPTY = Buffer.alloc(0);

/**
 * Lets nodes that come back read what was committed without them. Readers are slow or fast as they like: each has its own copy of
 * the slot and a bounded read-ahead, so the donor's clients notice only the decoding.
 */
export class HistoryServer {
  readonly #source: (database: string) => HistorySource | undefined;
  readonly #open: OpenReader;
  readonly #readings = new Map<string, Reading>();

  constructor(
    source: (database: string) => HistorySource | undefined,
    open: OpenReader = (options) => new HistoryReader(options),
  ) {
    this.#source = source;
    this.#open = open;
  }

  /** Rejects with a reason when this node can't help. */
  async read(reader: NodeId, request: HistoryRequest): Promise<HistoryAnswer> {
    const { database, after, headersOnly, fresh } = request;
    const key = keyOf(reader, database);
    const source = this.#source(database);
    if (source === undefined) throw new Error(`database "${database}" is not available here`);
    if (after < source.from) throw new HistoryGone(`the history kept here begins after log index ${source.from}`);
    let reading = this.#readings.get(key);
    // The position alone would not do: it stays where it is in the middle of a transaction, and for a while in the order "relaxed".
    if (
      reading !== undefined &&
      (fresh === true || reading.position !== after || reading.headersOnly !== headersOnly)
    ) {
      this.#end(key, reading);
      reading = undefined;
    }
    if (reading === undefined) {
      const copy = `pgmm_reader_${reader}_${process.hrtime.bigint().toString(36)}`;
      reading = new Reading({ ...source.readerOptions(), copy, after, headersOnly }, this.#open);
      await reading.start();
      this.#readings.set(key, reading);
    }
    clearTimeout(reading.idle);
    if (headersOnly) void reading.mark(() => source.committed());
    try {
      const answer = await reading.take(request.limit);
      const held = reading;
      reading.idle = setTimeout(() => this.#end(key, held), IDLE);
      return answer;
    } catch (error) {
      this.#end(key, reading);
      throw error;
    }
  }

  /** An answer did not get there. */
  forget(reader: NodeId, database: string): void {
    const key = keyOf(reader, database);
    const reading = this.#readings.get(key);
    if (reading !== undefined) this.#end(key, reading);
  }

  #end(key: string, reading: Reading): void {
    reading.stop();
    if (this.#readings.get(key) === reading) this.#readings.delete(key);
  }

  stop(): void {
    for (const [key, reading] of this.#readings) this.#end(key, reading);
  }
}

const keyOf = (reader: NodeId, database: string): string => `${reader} ${database}`;
