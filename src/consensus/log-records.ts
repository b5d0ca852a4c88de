/**
 * The bytes of the log. A record is, little-endian and padded with zeros to 8 bytes:
 *
 *     u32 length of body · u32 crc32 of length and body · body: u8 kind · 3 zeros · u32 batch · fields
 *
 * `batch` is the offset in the file at which the batch began that the record was written with. A batch is written only
 * when the one before is durable, so a sound record whose batch begins after a broken one proves that the broken one was
 * durable once: the file is damaged. Without such a proof the broken record was never acknowledged, and is dropped.
 */
import { crc32 } from 'node:zlib';
import type { LogIndex, NodeId } from '../runtime/ids.ts';
import type { Entry, HardState } from './core/types.ts';

export type LogRecord =
  /** The first of every segment. `previousIndex` is the log's end when the segment was begun. */
  | {
      readonly kind: 'header';
      readonly segment: number;
      readonly previousIndex: LogIndex;
      readonly hardState: HardState;
    }
  | { readonly kind: 'hardState'; readonly hardState: HardState }
  | { readonly kind: 'truncate'; readonly from: LogIndex }
  | { readonly kind: 'entry'; readonly entry: Entry }
  /** The last of a segment that another follows. */
  | { readonly kind: 'seal' };

const VERSION = 1;
const FRAME = 8;
const BODY_HEAD = 8;
const KINDS = ['header', 'hardState', 'truncate', 'entry', 'seal'] as const;
/** A kind's byte is its place in KINDS plus one, so that zeros are no record. */
const kindOf = (byte: number): LogRecord['kind'] | undefined => (byte === 0 ? undefined : KINDS.at(byte - 1));
const FIELD_BYTES = { header: 4 + 4 + 8 + 12, hardState: 12, truncate: 8, entry: 16, seal: 0 } as const;

const aligned = (n: number): number => (n + 7) & ~7;

export function recordBytes(record: LogRecord): number {
  const payload = record.kind === 'entry' ? record.entry.payload.length : 0;
  return aligned(FRAME + BODY_HEAD + FIELD_BYTES[record.kind] + payload);
}

export const SEAL_BYTES = recordBytes({ kind: 'seal' });

/** One batch, to be written at `offset` of a segment. */
export function encodeBatch(records: readonly LogRecord[], offset: number): Buffer {
  const size = records.reduce((sum, record) => sum + recordBytes(record), 0);
  const bytes = Buffer.alloc(size);
  let position = 0;
  for (const record of records) {
    encodeRecord(bytes, position, record, offset);
    position += recordBytes(record);
  }
  return bytes;
}

function encodeRecord(bytes: Buffer, start: number, record: LogRecord, batch: number): void {
  bytes.writeUInt8(KINDS.indexOf(record.kind) + 1, start + FRAME);
  bytes.writeUInt32LE(batch, start + FRAME + 4);
  const fields = start + FRAME + BODY_HEAD;
  let length = BODY_HEAD + FIELD_BYTES[record.kind];
  switch (record.kind) {
    case 'header':
      bytes.writeUInt32LE(VERSION, fields);
      bytes.writeUInt32LE(record.segment, fields + 4);
      writeInteger(bytes, fields + 8, record.previousIndex);
      writeHardState(bytes, fields + 16, record.hardState);
      break;
    case 'hardState':
      writeHardState(bytes, fields, record.hardState);
      break;
    case 'truncate':
      writeInteger(bytes, fields, record.from);
      break;
    case 'entry':
      writeInteger(bytes, fields, record.entry.index);
      writeInteger(bytes, fields + 8, record.entry.term);
      bytes.set(record.entry.payload, fields + 16);
      length += record.entry.payload.length;
      break;
    case 'seal':
      break;
  }
  bytes.writeUInt32LE(length, start);
  bytes.writeUInt32LE(checksum(bytes, start, length), start + 4);
}

export interface Decoded {
  readonly record: LogRecord;
  readonly batch: number;
  readonly next: number;
}

/** Null if there is no sound record at `start`. Payloads are copied, so that they don't keep the whole file alive. */
export function decodeRecord(bytes: Buffer, start: number): Decoded | null {
  const length = frameLength(bytes, start);
  if (length === null || bytes.readUInt32LE(start + 4) !== checksum(bytes, start, length)) return null;
  const fields = start + FRAME + BODY_HEAD;
  const end = start + FRAME + length;
  const record = decodeFields(bytes, KINDS[bytes.readUInt8(start + FRAME) - 1], fields, end);
  return record && { record, batch: bytes.readUInt32LE(start + FRAME + 4), next: start + aligned(FRAME + length) };
}

/** A sound record after `broken` that proves that what is at `broken` was durable once: its offset, or null. */
export function findProofOfDamage(bytes: Buffer, broken: number): number | null {
  for (let at = broken + 8; at + FRAME + BODY_HEAD <= bytes.length; at += 8) {
    if (frameLength(bytes, at) === null) continue;
    const batch = bytes.readUInt32LE(at + FRAME + 4);
    if (batch > broken && batch <= at && decodeRecord(bytes, at) !== null) return at;
  }
  return null;
}

/** The length of the body, if what is at `start` could be a record at all: cheap, before any checksum. */
function frameLength(bytes: Buffer, start: number): number | null {
  if (start + FRAME + BODY_HEAD > bytes.length) return null;
  const length = bytes.readUInt32LE(start);
  if (length < BODY_HEAD || start + FRAME + length > bytes.length) return null;
  const kind = kindOf(bytes.readUInt8(start + FRAME));
  if (kind === undefined || length < BODY_HEAD + FIELD_BYTES[kind]) return null;
  return kind === 'entry' || length === BODY_HEAD + FIELD_BYTES[kind] ? length : null;
}

function decodeFields(bytes: Buffer, kind: LogRecord['kind'], at: number, end: number): LogRecord | null {
  switch (kind) {
    case 'header': {
      if (bytes.readUInt32LE(at) !== VERSION) throw new Error(`log format ${bytes.readUInt32LE(at)} is not known`);
      const previousIndex = readInteger(bytes, at + 8) as LogIndex;
      return { kind, segment: bytes.readUInt32LE(at + 4), previousIndex, hardState: readHardState(bytes, at + 16) };
    }
    case 'hardState':
      return { kind, hardState: readHardState(bytes, at) };
    case 'truncate':
      return { kind, from: readInteger(bytes, at) as LogIndex };
    case 'entry': {
      const index = readInteger(bytes, at) as LogIndex;
      const payload = new Uint8Array(bytes.subarray(at + 16, end));
      return { kind, entry: { index, term: readInteger(bytes, at + 8), payload } };
    }
    case 'seal':
      return { kind };
  }
}

function checksum(bytes: Buffer, start: number, length: number): number {
  const body = bytes.subarray(start + FRAME, start + FRAME + length);
  return crc32(body, crc32(bytes.subarray(start, start + 4)));
}

function writeHardState(bytes: Buffer, at: number, { term, votedFor }: HardState): void {
  writeInteger(bytes, at, term);
  bytes.writeUInt32LE(votedFor ?? 0, at + 8);
}

function readHardState(bytes: Buffer, at: number): HardState {
  const votedFor = bytes.readUInt32LE(at + 8);
  return { term: readInteger(bytes, at), votedFor: votedFor === 0 ? null : (votedFor as NodeId) };
}

/** 64 bits, of which JavaScript's integers use 53. */
function writeInteger(bytes: Buffer, at: number, value: number): void {
  bytes.writeUInt32LE(value % 2 ** 32, at);
  bytes.writeUInt32LE(Math.floor(value / 2 ** 32), at + 4);
}

function readInteger(bytes: Buffer, at: number): number {
  return bytes.readUInt32LE(at) + bytes.readUInt32LE(at + 4) * 2 ** 32;
}
