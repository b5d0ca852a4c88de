import { lsn, type Lsn } from '../../runtime/ids.ts';

/**
 * "Logical Replication Message Formats" of the protocol chapter, protocol versions 3 and 4 without streaming. Tuples are left
 * as bytes; `tuples.ts` cuts them, once, where they are applied.
 */
export const Message = {
  begin: 0x42, // B
  commit: 0x43, // C
  origin: 0x4f, // O
  relation: 0x52, // R
  type: 0x59, // Y
  insert: 0x49, // I
  update: 0x55, // U
  delete: 0x44, // D
  truncate: 0x54, // T
  message: 0x4d, // M
  beginPrepare: 0x62, // b
  prepare: 0x50, // P
  commitPrepared: 0x4b, // K
  rollbackPrepared: 0x72, // r
} as const;

export interface Column {
  readonly name: string;
  /** Part of the replica identity. */
  readonly key: boolean;
  readonly typeOid: number;
}

export interface Relation {
  readonly id: number;
  readonly schema: string;
  readonly name: string;
  /** pg_class.relreplident: d(efault), f(ull), i(ndex), n(othing). */
  readonly identity: string;
  readonly columns: readonly Column[];
}

function cstring(bytes: Buffer, at: number): { text: string; next: number } {
  const end = bytes.indexOf(0, at);
  return { text: bytes.toString('utf8', at, end), next: end + 1 };
}

export function readLsn(bytes: Buffer, at: number): Lsn {
  return lsn(bytes.readBigUInt64BE(at));
}

/** BEGIN PREPARE: two positions, a time, the transaction id, the gid. */
export function readBeginPrepare(
  bytes: Buffer,
  at: number,
): { prepareLsn: Lsn; endLsn: Lsn; xid: number; gid: string } {
  return {
    prepareLsn: readLsn(bytes, at + 1),
    endLsn: readLsn(bytes, at + 9),
    xid: bytes.readUInt32BE(at + 25),
    gid: cstring(bytes, at + 29).text,
  };
}

/** The transaction id and the gid of COMMIT PREPARED, after flags, two positions and a time. */
export function readCommitPrepared(bytes: Buffer, at: number): { xid: number; gid: string } {
  return { xid: bytes.readUInt32BE(at + 26), gid: cstring(bytes, at + 30).text };
}

/** The same of ROLLBACK PREPARED, which has two times. */
export function readRollbackPrepared(bytes: Buffer, at: number): { xid: number; gid: string } {
  return { xid: bytes.readUInt32BE(at + 34), gid: cstring(bytes, at + 38).text };
}

/** The transaction id of BEGIN. */
export function readBeginXid(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at + 17);
}

/** A relation's id in INSERT, UPDATE and DELETE. */
export function readRelationId(bytes: Buffer, at: number): number {
  return bytes.readUInt32BE(at + 1);
}

export function readRelation(bytes: Buffer): Relation {
  const schema = cstring(bytes, 5);
  const name = cstring(bytes, schema.next);
  const identity = String.fromCharCode(bytes[name.next]);
  const count = bytes.readUInt16BE(name.next + 1);
  const columns: Column[] = [];
  let at = name.next + 3;
  for (let i = 0; i < count; i++) {
    const key = (bytes[at] & 1) === 1;
    const column = cstring(bytes, at + 1);
    columns.push({ name: column.text, key, typeOid: bytes.readUInt32BE(column.next) });
    at = column.next + 8;
  }
  // An empty schema name stands for pg_catalog.
  return {
    id: bytes.readUInt32BE(1),
    schema: schema.text === '' ? 'pg_catalog' : schema.text,
    name: name.text,
    identity,
    columns,
  };
}

export interface Truncate {
  readonly relations: readonly number[];
  readonly cascade: boolean;
  readonly restartIdentity: boolean;
}

export function readTruncate(bytes: Buffer): Truncate {
  const count = bytes.readUInt32BE(1);
  const relations = Array.from({ length: count }, (_, i) => bytes.readUInt32BE(6 + 4 * i));
  return { relations, cascade: (bytes[5] & 1) !== 0, restartIdentity: (bytes[5] & 2) !== 0 };
}

export interface LogicalMessage {
  readonly transactional: boolean;
  readonly prefix: string;
  readonly content: Buffer;
}

export function readLogicalMessage(bytes: Buffer): LogicalMessage {
  const prefix = cstring(bytes, 10);
  const length = bytes.readUInt32BE(prefix.next);
  return {
    transactional: (bytes[1] & 1) === 1,
    prefix: prefix.text,
    content: bytes.subarray(prefix.next + 4, prefix.next + 4 + length),
  };
}
