import { Message } from './messages.ts';

/** A column's value in text format; null is SQL NULL, undefined an unchanged TOASTed value that was not sent. */
export type Value = Buffer | null | undefined;
export type Tuple = readonly Value[];

export interface RowChange {
  readonly type: 'insert' | 'update' | 'delete';
  readonly relation: number;
  /** The old key (other columns null) or, under identity FULL, the whole old row; only where it was sent. */
  readonly old: Tuple | undefined;
  readonly oldIsKey: boolean;
  /** The new row; undefined for a delete. */
  readonly row: Tuple | undefined;
}

/** "TupleData" at `at`; values are views into `bytes`. */
function readTuple(bytes: Buffer, at: number): { tuple: Value[]; next: number } {
  const count = bytes.readUInt16BE(at);
  const tuple = new Array<Value>(count);
  let next = at + 2;
  for (let i = 0; i < count; i++) {
    const kind = bytes[next++];
    if (kind === 0x74) {
      const length = bytes.readUInt32BE(next);
      tuple[i] = bytes.subarray(next + 4, next + 4 + length);
      next += 4 + length;
    } else if (kind === 0x6e) {
      tuple[i] = null;
    } else if (kind !== 0x75) {
      throw new Error(`unknown kind of column value in pgoutput: ${kind}`);
    }
  }
  return { tuple, next };
}

/** Reads an INSERT, UPDATE or DELETE message. */
export function readRowChange(bytes: Buffer): RowChange {
  const relation = bytes.readUInt32BE(1);
  const type = bytes[0] === Message.insert ? 'insert' : bytes[0] === Message.update ? 'update' : 'delete';
  let marker = bytes[5];
  let at = 6;
  let old: Tuple | undefined;
  let oldIsKey = false;
  if (marker === 0x4b || marker === 0x4f) {
    oldIsKey = marker === 0x4b;
    const read = readTuple(bytes, at);
    old = read.tuple;
    if (type === 'delete') return { type, relation, old, oldIsKey, row: undefined };
    marker = bytes[read.next];
    at = read.next + 1;
  }
  return { type, relation, old, oldIsKey, row: readTuple(bytes, at).tuple };
}
