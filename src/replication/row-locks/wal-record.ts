/** RelFileLocator: a relation's file, as pg_filenode_relation() takes it. */
export interface RelationFile {
  readonly tablespace: number;
  readonly database: number;
  readonly node: number;
}

export interface Block {
  readonly file: RelationFile;
  readonly number: number;
}

/** A record as XLogRecordAssemble (xloginsert.c) lays it out. */
export interface WalRecord {
  readonly xid: number;
  readonly resourceManager: number;
  readonly info: number;
  /** With the first record of a subtransaction: the transaction it belongs to. */
  readonly topXid: number | undefined;
  /** By block id. */
  readonly blocks: ReadonlyMap<number, Block>;
  readonly data: Buffer;
}

const HEADER = 24;
const DATA_SHORT = 255;
const DATA_LONG = 254;
const ORIGIN = 253;
const TOP_XID = 252;
const HAS_IMAGE = 0x10;
const SAME_RELATION = 0x80;
const IMAGE_HAS_HOLE = 0x01;
/** Any of pglz, lz4 and zstd (15 and later). */
const IMAGE_COMPRESSED = 0x1c;

/** The transaction that a record belongs to; 0 for none. */
export function readXid(record: Buffer): number {
  return record.readUInt32LE(4);
}

export function readWalRecord(record: Buffer): WalRecord {
  const blocks = new Map<number, Block>();
  let topXid: number | undefined;
  let dataLength = 0;
  let file: RelationFile | undefined;
  // Headers come first; what they announce follows, the main data last.
  let announced = 0;
  let at = HEADER;
  while (record.length - at > announced) {
    const id = record[at];
    if (id === DATA_SHORT || id === DATA_LONG) {
      dataLength = id === DATA_SHORT ? record[at + 1] : record.readUInt32LE(at + 1);
      break;
    }
    if (id === ORIGIN) at += 3;
    else if (id === TOP_XID) {
      topXid = record.readUInt32LE(at + 1);
      at += 5;
    } else {
      const flags = record[at + 1];
      announced += record.readUInt16LE(at + 2);
      at += 4;
      if ((flags & HAS_IMAGE) !== 0) {
        announced += record.readUInt16LE(at);
        const image = record[at + 4];
        at += (image & IMAGE_HAS_HOLE) !== 0 && (image & IMAGE_COMPRESSED) !== 0 ? 7 : 5;
      }
      if ((flags & SAME_RELATION) === 0) {
        file = readFile(record, at);
        at += 12;
      }
      if (file === undefined) throw new Error('a WAL record names a block of no relation');
      blocks.set(id, { file, number: record.readUInt32LE(at) });
      at += 4;
    }
  }
  return {
    xid: readXid(record),
    resourceManager: record[17],
    info: record[16],
    topXid,
    blocks,
    data: record.subarray(record.length - dataLength),
  };
}

function readFile(record: Buffer, at: number): RelationFile {
  return {
    tablespace: record.readUInt32LE(at),
    database: record.readUInt32LE(at + 4),
    node: record.readUInt32LE(at + 8),
  };
}
