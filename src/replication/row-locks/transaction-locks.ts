import type { Block, RelationFile, WalRecord } from './wal-record.ts';
import { readWalRecord, readXid } from './wal-record.ts';

/** FOR KEY SHARE, FOR SHARE, FOR NO KEY UPDATE, FOR UPDATE, in this order. */
export type LockStrength = 0 | 1 | 2 | 3;

export interface RowLock {
  readonly block: number;
  readonly offset: number;
  /** Of this transaction, or a MultiXactId that says it. */
  readonly lock: { readonly strength: LockStrength } | { readonly multixact: number };
}

export interface LockedFile {
  readonly file: RelationFile;
  readonly rows: readonly RowLock[];
}

/** access/rmgrlist.h, heapam_xlog.h, xact.h. */
const XACT = 1;
const HEAP2 = 9;
const HEAP = 10;
const OPERATION = 0x70;
const HEAP_DELETE = 0x10;
const HEAP_UPDATE = 0x20;
const HEAP_HOT_UPDATE = 0x40;
const HEAP_LOCK = 0x60;
const HEAP2_LOCK_UPDATED = 0x60;
const XACT_ABORT = 0x20;
const XACT_HAS_INFO = 0x80;
const XINFO_HAS_DBINFO = 0x1;
const XINFO_HAS_SUBXACTS = 0x2;
const IS_MULTI = 0x01;
const EXCLUSIVE = 0x04;
const KEY_SHARE = 0x08;
const KEYS_UPDATED = 0x10;

/** What one transaction, or a subtransaction of it, did to the rows of one relation. */
interface Touched {
  readonly file: RelationFile;
  readonly locked: Map<number, number>;
  /** What the row changes take by themselves when they are replayed. */
  readonly changed: Map<number, LockStrength>;
  /** Where a row stood before the transaction updated it, by where it put it. */
  readonly moved: Map<number, number>;
}

/** Row numbers within a relation in one integer: blocks have 32 bits, offsets 16. A multixact is told by its sign. */
const place = (block: number, offset: number): number => block * 65_536 + offset;

/**
 * Which rows a transaction has locked, beyond those that it changed: from the WAL, where PostgreSQL notes every row lock (heap_lock_tuple in
 * heapam.c), whether a statement, a function or a trigger took it. What a savepoint took back is left out. Rows are named by the places
 * where everybody can see them: a lock that was taken after an update is one of the row before it.
 */
export class TransactionLocks {
  readonly #xids: Set<number>;
  readonly #top: number;
  readonly #aborted = new Set<number>();
  readonly #touched = new Map<number, Map<string, Touched>>();

  constructor(xid: number) {
    this.#top = xid;
    this.#xids = new Set([xid]);
  }

  get xids(): ReadonlySet<number> {
    return this.#xids;
  }

  add(bytes: Buffer): void {
    const xid = readXid(bytes);
    if (xid === 0) return;
    const record = readWalRecord(bytes);
    if (record.topXid === this.#top) this.#xids.add(xid);
    if (!this.#xids.has(xid)) return;
    const operation = record.info & OPERATION;
    if (record.resourceManager === XACT && operation === XACT_ABORT) this.#onAbort(record);
    else if (record.resourceManager === HEAP2 && operation === HEAP2_LOCK_UPDATED) this.#onLock(record);
    else if (record.resourceManager === HEAP) this.#onHeap(record, operation);
  }

  #onHeap(record: WalRecord, operation: number): void {
    switch (operation) {
      case HEAP_LOCK:
        return this.#onLock(record);
      case HEAP_DELETE:
        return this.#onChange(record, record.blocks.get(0), 3);
      case HEAP_UPDATE:
      case HEAP_HOT_UPDATE:
        return this.#onUpdate(record);
      default:
    }
  }

  /** xl_heap_lock, xl_heap_lock_updated: xmax, offset, bits. */
  #onLock({ xid, data, blocks }: WalRecord): void {
    const block = blocks.get(0);
    if (block === undefined) return;
    const { locked } = this.#of(xid, block);
    const bits = data[6];
    const at = place(block.number, data.readUInt16LE(4));
    if ((bits & IS_MULTI) !== 0) locked.set(at, -data.readUInt32LE(0));
    else if ((locked.get(at) ?? -1) < strength(bits)) locked.set(at, strength(bits));
  }

  /** xl_heap_update and xl_heap_delete begin alike: xmax, the old row's offset, bits. */
  #onChange({ xid, data }: WalRecord, block: Block | undefined, takes: LockStrength): void {
    if (block !== undefined) this.#of(xid, block).changed.set(place(block.number, data.readUInt16LE(4)), takes);
  }

  /** xl_heap_update: what #onChange reads, flags, xmax and offset of the new row. */
  #onUpdate(record: WalRecord): void {
    const { xid, data, blocks } = record;
    // Block 1 is the old row's where the new one went to another page.
    const [to, from] = [blocks.get(0), blocks.get(1) ?? blocks.get(0)];
    if (to === undefined || from === undefined) return;
    // That the key changed can't be told: the bits say FOR UPDATE after a lock of that kind as well.
    this.#onChange(record, from, 2);
    this.#of(xid, to).moved.set(place(to.number, data.readUInt16LE(12)), place(from.number, data.readUInt16LE(4)));
  }

  /** A savepoint was rolled back, with those inside it. */
  #onAbort({ xid, info, data }: WalRecord): void {
    this.#aborted.add(xid);
    if ((info & XACT_HAS_INFO) === 0) return;
    const present = data.readUInt32LE(8);
    let at = 12 + ((present & XINFO_HAS_DBINFO) === 0 ? 0 : 8);
    if ((present & XINFO_HAS_SUBXACTS) === 0) return;
    for (let left = data.readInt32LE(at); left > 0; left--) this.#aborted.add(data.readUInt32LE((at += 4)));
  }

  #of(xid: number, { file }: Block): Touched {
    let files = this.#touched.get(xid);
    if (files === undefined) this.#touched.set(xid, (files = new Map<string, Touched>()));
    const key = `${file.tablespace}/${file.database}/${file.node}`;
    let touched = files.get(key);
    if (touched === undefined)
      files.set(key, (touched = { file, locked: new Map(), changed: new Map(), moved: new Map() }));
    return touched;
  }

  /** To be asked when all the transaction's WAL has been added. */
  locked(): LockedFile[] {
    const merged = new Map<string, Touched>();
    for (const [xid, files] of this.#touched) {
      if (this.#aborted.has(xid)) continue;
      for (const [key, touched] of files) {
        const before = merged.get(key);
        if (before === undefined) merged.set(key, touched);
        else merge(before, touched);
      }
    }
    return [...merged.values()].map(lockedRows).filter(({ rows }) => rows.length > 0);
  }
}

function merge(into: Touched, from: Touched): void {
  for (const [at, lock] of from.locked) {
    const before = into.locked.get(at);
    if (before === undefined || lock < 0 || (before >= 0 && before < lock)) into.locked.set(at, lock);
  }
  for (const [at, takes] of from.changed)
    into.changed.set(at, Math.max(takes, into.changed.get(at) ?? 0) as LockStrength);
  for (const [to, before] of from.moved) into.moved.set(to, before);
}

function lockedRows({ file, locked, changed, moved }: Touched): LockedFile {
  // What the transaction itself has made stays where it is until it ends, so no place leads back to itself.
  const original = (at: number): number => {
    let first = at;
    for (let before = moved.get(at); before !== undefined; before = moved.get(before)) first = before;
    return first;
  };
  const taken = new Map<number, LockStrength>();
  for (const [at, takes] of changed) {
    const first = original(at);
    taken.set(first, Math.max(takes, taken.get(first) ?? 0) as LockStrength);
  }
  const rows: RowLock[] = [];
  for (const [at, lock] of locked) {
    const first = original(at);
    const takes = taken.get(first);
    if (takes === 3 || (takes !== undefined && lock >= 0 && lock <= takes)) continue;
    rows.push({
      block: Math.floor(first / 65_536),
      offset: first % 65_536,
      lock: lock < 0 ? { multixact: -lock } : { strength: lock as LockStrength },
    });
  }
  return { file, rows };
}

/** compute_infobits (heapam.c) and the lock bits of htup_details.h. */
function strength(bits: number): LockStrength {
  if ((bits & KEYS_UPDATED) !== 0) return 3;
  if ((bits & EXCLUSIVE) === 0) return 0;
  return (bits & KEY_SHARE) === 0 ? 2 : 1;
}
