import { pack, unpack } from 'msgpackr';

/** Type of the record; no message of pgoutput has it, so that nobody can forge one by way of the WAL. */
export const LOCKS_RECORD = 0x4c; // L

export type LockMode = 'KEY SHARE' | 'SHARE' | 'NO KEY UPDATE' | 'UPDATE';

/** Rows of one table that a transaction has locked. */
export interface RowLocks {
  readonly schema: string;
  readonly table: string;
  /** Names of the columns that the rows are found by. */
  readonly columns: readonly string[];
  /** Those are a key; else they are all columns, and any row with these values is as good as another. */
  readonly byKey: boolean;
  readonly mode: LockMode;
  /** Values as text, in the order of `columns`. */
  readonly rows: readonly (readonly (Uint8Array | null)[])[];
}

/** A table that a transaction has locked by LOCK TABLE or the like. */
export interface TableLock {
  readonly schema: string;
  readonly table: string;
  /** As LOCK TABLE spells it: SHARE ROW EXCLUSIVE. */
  readonly mode: string;
}

export interface Locks {
  readonly tables: readonly TableLock[];
  readonly rows: readonly RowLocks[];
}

/** A record for the end of a transaction's changes, in the form that TransactionRecords gives them: `[u32 length][L][msgpack]`. */
export function encodeLocks(locks: Locks): Buffer {
  const body = pack(locks);
  const head = Buffer.alloc(5);
  head.writeUInt32BE(1 + body.length, 0);
  head[4] = LOCKS_RECORD;
  return Buffer.concat([head, body]);
}

/** `bytes`: the record without its length. */
export function decodeLocks(bytes: Buffer): Locks {
  return unpack(bytes.subarray(1)) as Locks;
}
