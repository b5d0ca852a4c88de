import { lsn, ZERO_LSN, type Gid, type Lsn } from '../runtime/ids.ts';
import type { PgError } from '../runtime/errors.ts';
import { Backend } from '../wire/codes.ts';
import { ServerConnection, type ConnectionOptions } from '../wire/connection.ts';
import { FrontendWriter } from '../wire/frontend.ts';
import { DDL_PREFIX } from './apply/transaction-replay.ts';
import { Message, readBeginPrepare, readBeginXid, readLsn, readRelation, readRelationId, readTruncate } from './pgoutput/messages.ts';

export interface DecoderHandlers {
  /** A prepared transaction of this run begins; answer whether it's wanted. */
  begin(gid: Gid): boolean;
  /** A part of it: records `[u32 length][pgoutput message]`. False pauses the decoder until `resume`. */
  changes(gid: Gid, records: Buffer): boolean;
  /** It holds a DDL statement. */
  ddl(gid: Gid): void;
  /** All of it was handed over. */
  prepared(gid: Gid): void;
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

/** Microseconds between the Unix epoch and PostgreSQL's, 2000-01-01. */
const POSTGRES_EPOCH = 946_684_800_000_000n;

/** Where this program keeps its own tables. */
const OWN_SCHEMA = 'multimaster';

/** Records are gathered up to this many bytes before they are handed over. */
const CHUNK = 64 * 1024;

/** Up to here the WAL holds nothing that is still needed of this transaction. */
interface Outstanding {
  readonly gid: Gid;
  readonly before: Lsn;
}

/**
 * Reads the node's own WAL through its live slot, once, and hands over every prepared transaction of local origin. Only
 * headers are read; what peers replay travels as the very bytes that the server wrote. Each transaction is made to stand
 * alone: RELATION messages, which the server sends once per connection, are put before their first use in it.
 */
export class Decoder {
  readonly #options: DecoderOptions;
  #connection: ServerConnection | undefined;
  #timer: NodeJS.Timeout | undefined;
  readonly #relations = new Map<number, { readonly bytes: Buffer; readonly name: string; readonly own: boolean }>();
  readonly #outstanding: Outstanding[] = [];
  readonly #finished = new Set<Gid>();
  /** The end of what has been received and looked at. */
  #received: Lsn = ZERO_LSN;
  #gid: Gid | undefined;
  /** Relations that the transaction in progress has its RELATION message of. */
  #described = new Set<number>();
  #gathered: Buffer[] = [];
  #gatheredLength = 0;
  /** A transaction that was not prepared: its id and what it changed. */
  #plain: { xid: number; foreign: boolean; relations: Set<string> } | undefined;

  constructor(options: DecoderOptions) {
    this.#options = options;
  }

  /** Bytes of WAL position, for metrics. */
  get received(): Lsn {
    return this.#received;
  }

  /** Connects and starts streaming. Rejects with the server's error, 55006 when another reader has the slot. */
  async start(): Promise<void> {
    const { connection, slot, publication, statusInterval } = this.#options;
    const server = await ServerConnection.connect({ ...connection, replication: true });
    this.#connection = server;
    const options = [
      `proto_version '${server.serverVersion >= 160_000 ? 4 : 3}'`,
      `publication_names '${publication}'`,
      `two_phase 'on'`,
      `messages 'true'`,
      // Rows that apply sessions wrote carry an origin: from 16 on the server leaves them out by itself.
      ...(server.serverVersion >= 160_000 ? [`origin 'none'`] : []),
    ];
    await new Promise<void>((resolve, reject) => {
      let streaming = false;
      server.request(new FrontendWriter().query(`START_REPLICATION SLOT "${slot}" LOGICAL 0/0 (${options.join(', ')})`).take(), {
        message: (type, bytes, start, end) => {
          if (type === Backend.copyData) return this.#receive(bytes, start + 5, end);
          streaming = true;
          resolve();
        },
        done: (error) => {
          if (!streaming) reject(error ?? new Error('replication ended at once'));
        },
      });
    });
    this.#timer = setInterval(() => this.#sendStatus(), statusInterval);
    server.onClose((error) => {
      clearInterval(this.#timer);
      this.#options.handlers.closed(error);
    });
  }

  /** What this transaction needs of the WAL has been used: the slot may move past it. */
  finished(gid: Gid): void {
    this.#finished.add(gid);
    while (this.#outstanding.length > 0 && this.#finished.delete(this.#outstanding[0].gid)) this.#outstanding.shift();
    if (this.#outstanding.length === 0) this.#finished.clear();
  }

  /** Goes on after `changes` said false. */
  resume(): void {
    this.#connection?.resume();
  }

  stop(): void {
    clearInterval(this.#timer);
    if (this.#connection?.closed === undefined) this.#sendStatus();
    this.#connection?.end();
  }

  /** "Standby status update": written, flushed and applied up to the confirmed position. */
  #sendStatus(): void {
    const confirmed = this.#outstanding.length > 0 ? this.#outstanding[0].before : this.#received;
    const message = Buffer.allocUnsafe(34);
    message[0] = 0x72;
    for (const at of [1, 9, 17]) message.writeBigUInt64BE(confirmed, at);
    message.writeBigInt64BE(BigInt(Date.now()) * 1000n - POSTGRES_EPOCH, 25);
    message[33] = 0;
    this.#connection?.write(new FrontendWriter(64).copyData(message).take());
  }

  #receive(bytes: Buffer, at: number, end: number): void {
    if (bytes[at] === 0x77) return this.#onMessage(bytes, at + 25, end);
    if (bytes[at] !== 0x6b) return;
    // "Primary keepalive": the end of WAL, and whether the server wants an answer now.
    if (this.#gid === undefined) this.#advance(readLsn(bytes, at + 1));
    if (bytes[at + 17] === 1) this.#sendStatus();
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
      case Message.commitPrepared:
      case Message.commit:
        this.#onCommit();
        return this.#advance(readLsn(bytes, at + 10));
      case Message.rollbackPrepared:
        return this.#advance(readLsn(bytes, at + 10));
      case Message.begin:
        this.#plain = { xid: readBeginXid(bytes, at), foreign: false, relations: new Set() };
        return;
      case Message.origin:
        if (this.#plain !== undefined) this.#plain.foreign = true;
        return;
      case Message.relation:
        return this.#onRelation(Buffer.from(bytes.subarray(at, end)));
      case Message.insert:
      case Message.update:
      case Message.delete:
        if (this.#need(readRelationId(bytes, at))) this.#record(bytes, at, end);
        return;
      case Message.truncate:
        for (const id of readTruncate(bytes.subarray(at, end)).relations) this.#need(id);
        return this.#record(bytes, at, end);
      case Message.message:
        // The flag says whether it belongs to a transaction; those that don't come between transactions.
        if ((bytes[at + 1] & 1) === 1) this.#onLogicalMessage(bytes, at, end);
    }
  }

  #onBeginPrepare(bytes: Buffer, at: number): void {
    const { gid, prepareLsn } = readBeginPrepare(bytes, at);
    this.#plain = undefined;
    if (!this.#options.handlers.begin(gid as Gid)) return;
    this.#gid = gid as Gid;
    this.#described = new Set();
    // Confirming the position before it keeps the transaction in the slot until it is finished.
    this.#outstanding.push({ gid: this.#gid, before: lsn(prepareLsn - 1n) });
  }

  #onPrepare(): void {
    const gid = this.#gid;
    if (gid === undefined) return;
    this.#handOver();
    this.#gid = undefined;
    this.#options.handlers.prepared(gid);
  }

  #onCommit(): void {
    const plain = this.#plain;
    this.#plain = undefined;
    if (plain !== undefined && !plain.foreign && plain.relations.size > 0) {
      this.#options.handlers.bypass(plain.xid, [...plain.relations]);
    }
  }

  #onRelation(bytes: Buffer): void {
    const { id, schema, name } = readRelation(bytes);
    const own = schema === OWN_SCHEMA;
    this.#relations.set(id, { bytes, name: `${schema}.${name}`, own });
    if (this.#gid !== undefined && !own) {
      this.#described.add(id);
      this.#record(bytes, 0, bytes.length);
    }
  }

  #onLogicalMessage(bytes: Buffer, at: number, end: number): void {
    if (this.#gid !== undefined && bytes.toString('latin1', at + 10, at + 10 + DDL_PREFIX.length) === DDL_PREFIX) {
      this.#options.handlers.ddl(this.#gid);
    }
    this.#record(bytes, at, end);
  }

  /** The next record is about this relation. False when it's one of this program's own tables, which every node keeps for itself. */
  #need(id: number): boolean {
    const relation = this.#relations.get(id);
    if (relation === undefined) throw new Error(`pgoutput did not describe relation ${id}`);
    if (relation.own) return false;
    this.#plain?.relations.add(relation.name);
    if (this.#gid !== undefined && !this.#described.has(id)) {
      this.#described.add(id);
      this.#record(relation.bytes, 0, relation.bytes.length);
    }
    return true;
  }

  #record(bytes: Buffer, at: number, end: number): void {
    if (this.#gid === undefined) return;
    const record = Buffer.allocUnsafe(4 + end - at);
    record.writeUInt32BE(end - at);
    bytes.copy(record, 4, at, end);
    this.#gathered.push(record);
    this.#gatheredLength += record.length;
    if (this.#gatheredLength >= CHUNK) this.#handOver();
  }

  #handOver(): void {
    if (this.#gid === undefined || this.#gatheredLength === 0) return;
    const records = this.#gathered.length === 1 ? this.#gathered[0] : Buffer.concat(this.#gathered, this.#gatheredLength);
    this.#gathered = [];
    this.#gatheredLength = 0;
    if (!this.#options.handlers.changes(this.#gid, records)) this.#connection?.pause();
  }
}

