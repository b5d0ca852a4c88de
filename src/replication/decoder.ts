import { lsn, ZERO_LSN, type Gid, type Lsn } from '../runtime/ids.ts';
import type { PgError } from '../runtime/errors.ts';
import type { ConnectionOptions } from '../wire/connection.ts';
import { DDL_PREFIX } from './apply/transaction-replay.ts';
import {
  Message,
  readBeginPrepare,
  readBeginXid,
  readCommitPrepared,
  readLsn,
  readRollbackPrepared,
} from './pgoutput/messages.ts';
import { ReplicationStream } from './replication-stream.ts';
import { connectForText } from './text-settings.ts';
import { TransactionRecords } from './transaction-records.ts';

export interface DecoderHandlers {
  /** A prepared transaction of this run begins; answer whether it's wanted. */
  begin(gid: Gid): boolean;
  /** A part of it, as `TransactionRecords` describes. False pauses the decoder until `resume`. */
  changes(gid: Gid, records: Buffer): boolean;
  /** It gets on with some large transaction, behind which everything else waits. */
  decoding(): void;
  /** It holds a DDL statement. */
  ddl(gid: Gid): void;
  /** All of it was handed over. `end`: the position behind its last record. */
  prepared(gid: Gid, xid: number, end: Lsn): void;
  /** A transaction that changed these tables without going through this program. */
  bypass(xid: number, relations: readonly string[]): void;
  /** The stream has ended; nothing comes any more. */
  closed(error: PgError): void;
}

export interface DecoderOptions {
  readonly connection: ConnectionOptions;
  readonly slot: string;
  readonly publication: string;
  /** Milliseconds between reports of the confirmed position. */
  readonly statusInterval: number;
  readonly handlers: DecoderHandlers;
}

/** Bytes of one transaction between two calls of `decoding`. */
const LARGE = 1024 * 1024;

const isOurs = (gid: string) => gid.startsWith('pgmm:');

/** Up to here the WAL holds nothing that is still needed of this transaction. */
interface Outstanding {
  readonly gid: Gid;
  readonly before: Lsn;
}

/**
 * Reads the node's own WAL through its live slot, once, and hands over every prepared transaction of local origin. Only
 * headers are read; what peers replay travels as the very bytes that the server wrote.
 */
export class Decoder {
  readonly #options: DecoderOptions;
  readonly #records: TransactionRecords;
  #stream: ReplicationStream | undefined;
  readonly #outstanding: Outstanding[] = [];
  readonly #finished = new Set<Gid>();
  /** The end of what has been received and looked at. */
  #received: Lsn = ZERO_LSN;
  #gid: Gid | undefined;
  #xid = 0;
  #end: Lsn = ZERO_LSN;
  /** Bytes of the transaction in progress since `decoding` was called. */
  #bytes = 0;
  /** The prepared transaction in progress, if it is not this program's, nor replicated by other means. */
  #stranger: string | undefined;
  /** Tables that such transactions changed, until they are committed; as many as max_prepared_transactions at the most. */
  readonly #strangers = new Map<string, ReadonlySet<string>>();
  /** A transaction that was not prepared. */
  #plain: { readonly xid: number; hasOrigin: boolean } | undefined;

  constructor(options: DecoderOptions) {
    this.#options = options;
    this.#records = new TransactionRecords((records) => {
      if (this.#gid !== undefined && !options.handlers.changes(this.#gid, records)) this.#stream?.pause();
    });
  }

  /** Connects and starts streaming. Rejects with the server's error, 55006 when another reader has the slot. */
  async start(): Promise<void> {
    const { connection, slot, publication, statusInterval, handlers } = this.#options;
    const server = await connectForText({ ...connection, replication: true });
    const stream = new ReplicationStream(server, {
      message: (bytes, at, end) => this.#onMessage(bytes, at, end),
      keepalive: (position) => {
        if (this.#gid === undefined) this.#advance(position);
      },
      confirmed: () => (this.#outstanding.length > 0 ? this.#outstanding[0].before : this.#received),
      closed: (error) => handlers.closed(error),
    });
    const since16 = server.serverVersion >= 160_000;
    const options = {
      proto_version: since16 ? '4' : '3',
      publication_names: publication,
      two_phase: 'on',
      messages: 'true',
      // Rows that apply sessions wrote carry an origin: from 16 on the server leaves them out by itself.
      ...(since16 && { origin: 'none' }),
    };
    try {
      await stream.start(slot, options, statusInterval);
    } catch (error) {
      server.destroy();
      throw error;
    }
    this.#stream = stream;
  }

  /** What this transaction needs of the WAL has been used: the slot may move past it. */
  finished(gid: Gid): void {
    this.#finished.add(gid);
    while (this.#outstanding.length > 0 && this.#finished.delete(this.#outstanding[0].gid)) this.#outstanding.shift();
    if (this.#outstanding.length === 0) this.#finished.clear();
  }

  /** Goes on after `changes` said false. */
  resume(): void {
    this.#stream?.resume();
  }

  /** All that the WAL has before this has been looked at. */
  get received(): Lsn {
    return this.#received;
  }

  stop(): void {
    this.#stream?.stop();
  }

  #advance(position: Lsn): void {
    if (position > this.#received) this.#received = position;
  }

  #onMessage(bytes: Buffer, at: number, end: number): void {
    switch (bytes[at]) {
      case Message.beginPrepare:
        return this.#onBeginPrepare(bytes, at);
      case Message.prepare:
        this.#onPrepare();
        return this.#advance(readLsn(bytes, at + 10));
      case Message.commit:
        this.#onCommit();
        return this.#advance(readLsn(bytes, at + 10));
      case Message.commitPrepared:
        this.#onStrangersEnd(readCommitPrepared(bytes, at), true);
        return this.#advance(readLsn(bytes, at + 10));
      case Message.rollbackPrepared:
        this.#onStrangersEnd(readRollbackPrepared(bytes, at), false);
        return this.#advance(readLsn(bytes, at + 10));
      case Message.begin:
        this.#bytes = 0;
        this.#plain = { xid: readBeginXid(bytes, at), hasOrigin: false };
        return this.#records.begin(false);
      case Message.origin:
        if (this.#plain !== undefined) this.#plain.hasOrigin = true;
        this.#stranger = undefined;
        return;
      case Message.message:
        // The flag says whether it belongs to a transaction; those that don't come between transactions.
        if ((bytes[at + 1] & 1) === 1) this.#onLogicalMessage(bytes, at, end);
        return;
      default:
        this.#records.add(bytes, at, end);
        this.#count(end - at);
    }
  }

  #count(bytes: number): void {
    this.#bytes += bytes;
    if (this.#bytes < LARGE) return;
    this.#bytes = 0;
    this.#options.handlers.decoding();
  }

  #onBeginPrepare(bytes: Buffer, at: number): void {
    const { gid, prepareLsn, endLsn, xid } = readBeginPrepare(bytes, at);
    this.#bytes = 0;
    this.#plain = undefined;
    const wanted = this.#options.handlers.begin(gid as Gid);
    this.#records.begin(wanted);
    this.#stranger = wanted || isOurs(gid) ? undefined : gid;
    if (!wanted) return;
    this.#gid = gid as Gid;
    this.#xid = xid;
    this.#end = endLsn;
    // Confirming the position before it keeps the transaction in the slot until it is finished.
    this.#outstanding.push({ gid: this.#gid, before: lsn(prepareLsn - 1n) });
  }

  #onPrepare(): void {
    const changed = this.#records.end();
    const gid = this.#gid;
    this.#gid = undefined;
    if (gid !== undefined) this.#options.handlers.prepared(gid, this.#xid, this.#end);
    if (this.#stranger !== undefined && changed.size > 0) this.#strangers.set(this.#stranger, changed);
    this.#stranger = undefined;
  }

  /** Somebody else's prepared transaction changes nothing until it is committed, which then is a bypass like any other. */
  #onStrangersEnd({ xid, gid }: { xid: number; gid: string }, committed: boolean): void {
    const changed = this.#strangers.get(gid);
    if (changed === undefined) return;
    this.#strangers.delete(gid);
    if (committed) this.#options.handlers.bypass(xid, [...changed]);
  }

  #onCommit(): void {
    const plain = this.#plain;
    this.#plain = undefined;
    if (plain === undefined) return;
    const changed = this.#records.end();
    if (!plain.hasOrigin && changed.size > 0) this.#options.handlers.bypass(plain.xid, [...changed]);
  }

  #onLogicalMessage(bytes: Buffer, at: number, end: number): void {
    const prefix = at + 10;
    if (this.#gid !== undefined && bytes.toString('latin1', prefix, prefix + DDL_PREFIX.length) === DDL_PREFIX) {
      this.#options.handlers.ddl(this.#gid);
    }
    this.#records.add(bytes, at, end);
  }
}
