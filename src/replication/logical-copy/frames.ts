import type { LogIndex } from '../../runtime/ids.ts';
import type { Acl, CopiedRole, Membership, RoleSetting } from './roles.ts';

/**
 * A logical copy as a stream of frames, `[u32 length][u8 kind][payload]`, in the order in which they are needed: the header; for each database its
 * definition, its schema without indexes, constraints and triggers, then its tables one by one; then for each database what was left out of its
 * schema; and the end. A frame is either JSON or a piece of what COPY sends.
 */
export type CopyFrame =
  | { readonly type: 'header'; readonly header: CopyHeader }
  | { readonly type: 'database'; readonly database: DatabaseDefinition }
  /** Statements for the database that was named last. */
  | { readonly type: 'sql'; readonly sql: string }
  | { readonly type: 'table'; readonly table: CopiedTable }
  | { readonly type: 'data'; readonly bytes: Buffer }
  /** `rows`: as many as COPY says that it has sent. */
  | { readonly type: 'table-end'; readonly rows: number }
  /** What is to be run in the database once all data are there. */
  | { readonly type: 'rest'; readonly database: string; readonly sql: string }
  | { readonly type: 'end' };

/** What is known before anything is copied, and what a node needs to judge whether it can take the copy. */
export interface CopyHeader {
  readonly format: typeof COPY_FORMAT;
  /** The donor's. */
  readonly node: number;
  readonly major: number;
  /** The copy has all that is committed up to this entry of the log, in all databases, and nothing beyond. */
  readonly index: LogIndex;
  readonly databases: readonly string[];
  readonly extensions: readonly { readonly name: string; readonly version: string }[];
  readonly roles: readonly CopiedRole[];
  readonly memberships: readonly Membership[];
  readonly settings: readonly RoleSetting[];
}

export interface DatabaseDefinition {
  readonly name: string;
  /** Names of options of CREATE DATABASE, and their values as SQL. */
  readonly options: readonly (readonly [name: string, value: string])[];
  readonly owner: string;
  readonly acl: Acl;
  readonly comment: string | null;
  readonly hasPublic: boolean;
}

export interface CopiedTable {
  readonly schema: string;
  readonly name: string;
  /** A materialized view is written as a table for a moment. */
  readonly kind: 'table' | 'materialized view';
  /** Without generated ones. */
  readonly columns: readonly string[];
}

export const COPY_FORMAT = 1;

const KIND = { json: 0, data: 1 } as const;
/** Statements come in one frame, and a schema has no more. */
const MAX_FRAME = 1024 * 1024 * 1024;

/** A frame of JSON; data go through `encodeData`. */
export function encodeFrame(frame: Exclude<CopyFrame, { type: 'data' }>): Buffer {
  return encode(KIND.json, Buffer.from(JSON.stringify(frame)));
}

export function encodeData(bytes: Uint8Array): Buffer {
  return encode(KIND.data, bytes);
}

function encode(kind: number, payload: Uint8Array): Buffer {
  const frame = Buffer.allocUnsafe(5 + payload.length);
  frame.writeUInt32BE(1 + payload.length);
  frame[4] = kind;
  frame.set(payload, 5);
  return frame;
}

/** Puts frames together again from pieces that were cut anywhere. */
export class FrameSplitter {
  #held: Buffer[] = [];
  #heldLength = 0;
  #needed = 4;

  /** Nothing of a frame is held. */
  get isEmpty(): boolean {
    return this.#heldLength === 0;
  }

  /** The frames that are complete now. Data are views into the bytes. Throws on what is no logical copy. */
  push(bytes: Buffer): CopyFrame[] {
    this.#held.push(bytes);
    this.#heldLength += bytes.length;
    if (this.#heldLength < this.#needed) return [];
    let rest = this.#held.length === 1 ? bytes : Buffer.concat(this.#held);
    const frames: CopyFrame[] = [];
    this.#needed = 4;
    while (rest.length >= 4) {
      const length = rest.readUInt32BE();
      if (length === 0 || length > MAX_FRAME) throw new Error('what the donor sends is not a logical copy');
      this.#needed = 4 + length;
      if (rest.length < this.#needed) break;
      frames.push(decode(rest.subarray(4, this.#needed)));
      rest = rest.subarray(this.#needed);
      this.#needed = 4;
    }
    this.#held = rest.length === 0 ? [] : [rest];
    this.#heldLength = rest.length;
    return frames;
  }
}

function decode(body: Buffer): CopyFrame {
  switch (body[0]) {
    case KIND.data:
      return { type: 'data', bytes: body.subarray(1) };
    case KIND.json:
      return JSON.parse(body.toString('utf8', 1)) as CopyFrame;
    default:
      throw new Error('what the donor sends is not a logical copy');
  }
}
