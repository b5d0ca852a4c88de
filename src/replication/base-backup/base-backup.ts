import { randomBytes } from 'node:crypto';
import type { PgError } from '../../runtime/errors.ts';
import { readDataRow } from '../../wire/backend-messages.ts';
import { Backend } from '../../wire/codes.ts';
import { ServerConnection, type ConnectionOptions } from '../../wire/connection.ts';
import { FrontendWriter } from '../../wire/frontend.ts';
import { UnlikeServer, type CopyPiece, type CopySource } from '../copy-source.ts';
import { TABLESPACES } from './tablespaces.ts';

/** Bytes read ahead of whoever takes them. */
const READ_AHEAD = 4 * 1024 * 1024;
const SLOT_PREFIX = 'pgmm_copy_';
/** Of the second result set, which has the tablespaces and the data directory: kB. */
const SIZE = 2;

/**
 * A running PostgreSQL's data directory as a stream of bytes ("Streaming Replication Protocol": BASE_BACKUP), with the WAL that makes it consistent and
 * a manifest with checksums. As slow as it is taken: PostgreSQL waits, and nobody else does. That WAL comes last, and a slot keeps it
 * until then: a temporary one, which goes with the connection, however that ends. The bytes are frames `[u32 length][CopyData of BASE_BACKUP]`;
 * where there are tablespaces the first frame is `t` and a JSON array of their OIDs, names and locations, as BASE_BACKUP itself does not tell names.
 */
export class BaseBackup implements CopySource {
  readonly #server: ServerConnection;
  #queue: Buffer[] = [];
  #bytes = 0;
  #resultSets = 0;
  #total = 0;
  /** The first frame, which waits for the others: with them comes the size of everything. */
  #first: Buffer | undefined;
  #ended = false;
  #error: Error | undefined;
  #wake: (() => void) | undefined;

  /**
   * `rate`: bytes per second at most. `forMajor`: the major version of the server that the copy is for, where that is known. Rejects with the
   * server's error, or UnlikeServer.
   */
  static async begin(options: ConnectionOptions, rate: number, forMajor?: number): Promise<BaseBackup> {
    const server = await ServerConnection.connect({ ...options, replication: true });
    try {
      const major = Math.floor(server.serverVersion / 10_000);
      if (forMajor !== undefined && forMajor !== major)
        throw new UnlikeServer(`it runs PostgreSQL ${major}, and a physical copy for PostgreSQL ${forMajor} is needed`);
      const slot = `${SLOT_PREFIX}${randomBytes(8).toString('hex')}`;
      await server.query(`CREATE_REPLICATION_SLOT ${slot} TEMPORARY PHYSICAL (RESERVE_WAL true)`);
      const tablespaces = await server.query(TABLESPACES);
      return new BaseBackup(server, rate, tablespaces);
    } catch (error) {
      server.destroy();
      throw error;
    }
  }

  private constructor(server: ServerConnection, rate: number, tablespaces: readonly (readonly (string | null)[])[]) {
    this.#server = server;
    if (tablespaces.length > 0) this.#first = Buffer.from(`t${JSON.stringify(tablespaces)}`);
    const kilobytes = Math.min(1024 * 1024, Math.max(32, Math.floor(rate / 1024)));
    const command =
      "BASE_BACKUP (LABEL 'pgmm', PROGRESS, CHECKPOINT 'fast', WAL, WAIT 0, MANIFEST 'yes', MANIFEST_CHECKSUMS 'SHA256', " +
      `MAX_RATE ${kilobytes})`;
    server.request(new FrontendWriter().query(command).take(), {
      message: (type, bytes, start, end) => this.#message(type, bytes, start, end),
      done: (error) => this.#done(error),
    });
  }

  #message(type: number, bytes: Buffer, start: number, end: number): void {
    if (type === Backend.rowDescription) this.#resultSets += 1;
    else if (type === Backend.dataRow && this.#resultSets === 2)
      this.#total += Number(readDataRow(bytes.subarray(start, end))[SIZE] ?? 0) * 1024;
    else if (type === Backend.copyData) {
      if (this.#first !== undefined) this.#push(this.#first);
      this.#first = undefined;
      this.#push(bytes.subarray(start + 5, end));
    }
  }

  #push(data: Buffer): void {
    const frame = Buffer.allocUnsafe(4 + data.length);
    frame.writeUInt32BE(data.length);
    data.copy(frame, 4);
    this.#queue.push(frame);
    this.#bytes += frame.length;
    if (this.#bytes > READ_AHEAD) this.#server.pause();
    this.#wake?.();
  }

  #done(error: PgError | undefined): void {
    if (error !== undefined) this.#fail(error);
    this.#ended = true;
    this.#server.end();
    this.#wake?.();
  }

  #fail(error: Error): void {
    this.#error ??= error;
    this.#server.destroy();
    this.#wake?.();
  }

  /** About `limit` bytes. Rejects with what went wrong, and then always. */
  async take(limit: number): Promise<CopyPiece> {
    while (this.#queue.length === 0 && !this.#ended && this.#error === undefined) {
      await new Promise<void>((resolve) => (this.#wake = resolve));
      this.#wake = undefined;
    }
    if (this.#error !== undefined) throw this.#error;
    const taken: Buffer[] = [];
    let size = 0;
    for (let next = this.#queue.shift(); next !== undefined; next = size < limit ? this.#queue.shift() : undefined) {
      taken.push(next);
      size += next.length;
    }
    this.#bytes -= size;
    if (this.#bytes < READ_AHEAD) this.#server.resume();
    return { bytes: Buffer.concat(taken), end: this.#ended && this.#queue.length === 0, total: this.#total };
  }

  stop(): void {
    this.#fail(new Error('nobody takes the copy any more'));
  }
}
