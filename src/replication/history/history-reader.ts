import { COMMIT_WINDOW } from '../../commit/core/commit-progress.ts';
import type { PgError } from '../../runtime/errors.ts';
import { logIndex, ZERO_LSN, type LogIndex, type Lsn } from '../../runtime/ids.ts';
import { literal } from '../../runtime/sql-text.ts';
import type { ConnectionOptions } from '../../wire/connection.ts';
import { parseCommitOrigin } from '../commit-origins.ts';
import { GID_PREFIX } from '../apply/transaction-replay.ts';
import { Message, readLogicalMessage, readLsn } from '../pgoutput/messages.ts';
import { ReplicationStream } from '../replication-stream.ts';
import { connectForText } from '../text-settings.ts';
import { TransactionRecords } from '../transaction-records.ts';

export interface HistoryHandlers {
  /** A part of the transaction committed under `index`. False pauses the reader until `resume`. */
  piece(index: LogIndex, records: Buffer): boolean;
  /** All of it was handed over. `time`: milliseconds of its decision. `after`: everything up to there has been handed over. */
  committed(index: LogIndex, gid: string, time: number, after: LogIndex): void;
  /** The server has nothing to send now: what was committed up to this position has been handed over. */
  caughtUp(position: Lsn): void;
  closed(error: PgError): void;
}

export interface HistoryReaderOptions {
  readonly connection: ConnectionOptions;
  /** The history slot, and the name of the copy of it that is read and disappears with the connection. */
  readonly slot: string;
  readonly copy: string;
  readonly publication: string;
  /** Commits up to here are passed over. */
  readonly after: LogIndex;
  /** Only which transactions there are, not what they changed. */
  readonly headersOnly: boolean;
  readonly handlers: HistoryHandlers;
}

const POSTGRES_EPOCH_MS = 946_684_800_000;

/**
 * Reads what this node has committed, of all origins, in commit order. Each transaction bears its log index, as the committer
 * stored it as the position of its replication origin. In the order "strict" that is log order; in the order "relaxed" a commit
 * comes at most COMMIT_WINDOW entries early.
 */
export class HistoryReader {
  readonly #options: HistoryReaderOptions;
  readonly #records: TransactionRecords;
  #stream: ReplicationStream | undefined;
  #index: LogIndex | undefined;
  #gid = '';
  #time = 0;
  #isStrict = true;
  #after: LogIndex;
  #received: Lsn = ZERO_LSN;

  constructor(options: HistoryReaderOptions) {
    this.#options = options;
    this.#after = options.after;
    this.#records = new TransactionRecords((records) => {
      if (this.#index !== undefined && !options.handlers.piece(this.#index, records)) this.#stream?.pause();
    });
  }

  /** Rejects when the slot is not there, or its WAL is not. */
  async start(): Promise<void> {
    const { connection, slot, copy, publication, handlers } = this.#options;
    const server = await connectForText({ ...connection, replication: true });
    const stream = new ReplicationStream(server, {
      message: (bytes, at, end) => this.#onMessage(bytes, at, end),
      keepalive: (position) => {
        if (this.#index !== undefined) return;
        if (position > this.#received) this.#received = position;
        handlers.caughtUp(position);
      },
      confirmed: () => this.#received,
      closed: (error) => handlers.closed(error),
    });
    try {
      await server.query(
        `SELECT pg_catalog.pg_copy_logical_replication_slot(${literal(slot)}, ${literal(copy)}, true)`,
      );
      const version = server.serverVersion >= 160_000 ? '4' : '3';
      await stream.start(copy, { proto_version: version, publication_names: publication, messages: 'true' }, 1000);
    } catch (error) {
      server.destroy();
      throw error;
    }
    this.#stream = stream;
  }

  resume(): void {
    this.#stream?.resume();
  }

  stop(): void {
    this.#stream?.stop();
  }

  #onMessage(bytes: Buffer, at: number, end: number): void {
    switch (bytes[at]) {
      case Message.begin:
        this.#index = undefined;
        this.#time = Number(bytes.readBigInt64BE(at + 9) / 1000n) + POSTGRES_EPOCH_MS;
        return this.#records.begin(false);
      case Message.origin:
        return this.#onOrigin(bytes, at, end);
      case Message.commit:
        return this.#onCommit(readLsn(bytes, at + 10));
      case Message.message:
        if ((bytes[at + 1] & 1) === 1) this.#onLogicalMessage(bytes, at, end);
        return;
      default:
        this.#records.add(bytes, at, end);
    }
  }

  /** The position of the committer's origin is the log index; whatever has another origin is not the cluster's. */
  #onOrigin(bytes: Buffer, at: number, end: number): void {
    const name = bytes.toString('latin1', at + 9, end - 1);
    const index = logIndex(Number(readLsn(bytes, at + 1)));
    const committer = parseCommitOrigin(name);
    if (committer === undefined || index <= this.#options.after) return;
    this.#index = index;
    this.#isStrict = committer.lanes === 1;
    this.#gid = '';
    this.#records.begin(!this.#options.headersOnly);
  }

  #onLogicalMessage(bytes: Buffer, at: number, end: number): void {
    const message = readLogicalMessage(bytes.subarray(at, end));
    if (message.prefix === GID_PREFIX) this.#gid = message.content.toString('latin1');
    this.#records.add(bytes, at, end);
  }

  #onCommit(position: Lsn): void {
    this.#records.end();
    const index = this.#index;
    this.#index = undefined;
    if (position > this.#received) this.#received = position;
    if (index === undefined) return;
    this.#after = Math.max(this.#after, this.#isStrict ? index : index - COMMIT_WINDOW) as LogIndex;
    this.#options.handlers.committed(index, this.#gid, this.#time, this.#after);
  }
}
