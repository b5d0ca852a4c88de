import { readRelation, readRelationId, readTruncate, Message } from './pgoutput/messages.ts';

/** Where this program keeps its own tables: every node keeps them for itself. */
const OWN_SCHEMA = 'multimaster';

/** Records are gathered up to this many bytes before they are handed over. */
const CHUNK = 64 * 1024;
/** What is set aside for a transaction at first. */
const SMALLEST = 1024;

/**
 * Turns the messages of one transaction into records `[u32 length][pgoutput message]` that stand alone: RELATION messages,
 * which the server sends once per connection, are put before their first use in every transaction.
 */
export class TransactionRecords {
  readonly #relations = new Map<number, { readonly bytes: Buffer; readonly name: string; readonly own: boolean }>();
  /** Relations that the transaction in progress has its RELATION message of; undefined between transactions. */
  #described: Set<number> | undefined;
  /** Names of the tables that the transaction has changed. */
  #changed = new Set<string>();
  /** Handed over as a part of it, and then another one is begun: one allocation for many records. */
  #gathered = Buffer.alloc(0);
  #length = 0;
  readonly #handOver: (records: Buffer) => void;

  constructor(handOver: (records: Buffer) => void) {
    this.#handOver = handOver;
  }

  /** `wanted`: whether its records are gathered; what it changed is noted in any case. */
  begin(wanted: boolean): void {
    this.#described = wanted ? new Set() : undefined;
    this.#changed = new Set();
  }

  /** Hands over the rest. Answers the names of the tables that were changed. */
  end(): ReadonlySet<string> {
    this.#flush();
    this.#described = undefined;
    return this.#changed;
  }

  /** A RELATION, INSERT, UPDATE, DELETE, TRUNCATE or transactional MESSAGE; others are left out. */
  add(bytes: Buffer, at: number, end: number): void {
    switch (bytes[at]) {
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
        return this.#record(bytes, at, end);
      default:
    }
  }

  #onRelation(bytes: Buffer): void {
    const { id, schema, name } = readRelation(bytes);
    const own = schema === OWN_SCHEMA;
    this.#relations.set(id, { bytes, name: `${schema}.${name}`, own });
    if (this.#described === undefined || own) return;
    this.#described.add(id);
    this.#record(bytes, 0, bytes.length);
  }

  /** The next record is about this relation. False when it is one of this program's own. */
  #need(id: number): boolean {
    const relation = this.#relations.get(id);
    if (relation === undefined) throw new Error(`pgoutput did not describe relation ${id}`);
    if (relation.own) return false;
    this.#changed.add(relation.name);
    if (this.#described !== undefined && !this.#described.has(id)) {
      this.#described.add(id);
      this.#record(relation.bytes, 0, relation.bytes.length);
    }
    return true;
  }

  #record(bytes: Buffer, at: number, end: number): void {
    if (this.#described === undefined) return;
    const needed = this.#length + 4 + end - at;
    if (needed > this.#gathered.length) {
      const larger = Buffer.allocUnsafe(Math.max(needed, Math.min(2 * needed, CHUNK), SMALLEST));
      this.#gathered.copy(larger, 0, 0, this.#length);
      this.#gathered = larger;
    }
    this.#gathered.writeUInt32BE(end - at, this.#length);
    bytes.copy(this.#gathered, this.#length + 4, at, end);
    this.#length = needed;
    if (needed >= CHUNK) this.#flush();
  }

  #flush(): void {
    if (this.#length === 0) return;
    const records = this.#gathered.subarray(0, this.#length);
    this.#gathered = Buffer.alloc(0);
    this.#length = 0;
    this.#handOver(records);
  }
}
