import { mkdir, open, rm, type FileHandle } from 'node:fs/promises';
import { join } from 'node:path';
import { PgError } from '../runtime/errors.ts';
import type { Gid } from '../runtime/ids.ts';

export interface Piece {
  readonly bytes: Buffer;
  /** Nothing follows. */
  readonly last: boolean;
}

/** A transaction's changes; in memory until they pass the limit, then in a file. */
interface Spooled {
  /** Of the file, once there is one. */
  path: string;
  parts: Buffer[];
  length: number;
  /** Bytes that can be read from the file. */
  written: number;
  file: FileHandle | undefined;
  /** Writes one after the other; rejects with the first failure. */
  writing: Promise<void>;
  complete: boolean;
  failure: PgError | undefined;
  readers: (() => void)[];
}

export interface SpoolOptions {
  readonly directory: string;
  /** Bytes up to which a transaction stays in memory. */
  readonly inline: number;
  /** Bytes of all transactions in memory together, above which also smaller ones go to files. */
  readonly memory: number;
}

/** Bytes that are gathered before they are written to the file. */
const WRITE_SIZE = 1 << 20;

/**
 * Keeps the changes of this node's own prepared transactions until nobody needs them: small ones in memory, large ones in
 * files under data_dir, which are gone after a restart, as is the need for them (a new run has a new epoch). Several
 * readers read at their own pace, also while the transaction is still coming in.
 */
export class TransactionSpool {
  readonly #options: SpoolOptions;
  readonly #transactions = new Map<Gid, Spooled>();
  #inMemory = 0;
  #count = 0;

  private constructor(options: SpoolOptions) {
    this.#options = options;
  }

  /** Empties the directory: nothing of an earlier run is needed. */
  static async open(options: SpoolOptions): Promise<TransactionSpool> {
    await rm(options.directory, { recursive: true, force: true });
    await mkdir(options.directory, { recursive: true, mode: 0o700 });
    return new TransactionSpool(options);
  }

  /** Bytes in memory and in files, for metrics. */
  get usage(): { memory: number; disk: number } {
    let disk = 0;
    for (const { written } of this.#transactions.values()) disk += written;
    return { memory: this.#inMemory, disk };
  }

  /** Begins a transaction anew: what an interrupted decoding left of it is dropped. */
  begin(gid: Gid): void {
    this.release(gid);
    this.#transactions.set(gid, {
      path: '',
      parts: [],
      length: 0,
      written: 0,
      file: undefined,
      writing: Promise.resolve(),
      complete: false,
      failure: undefined,
      readers: [],
    });
  }

  /** Adds bytes. False when so much waits for the disk that the caller should wait for `settled`. */
  append(gid: Gid, bytes: Buffer): boolean {
    const t = this.#transactions.get(gid);
    if (t === undefined || t.failure !== undefined) return true;
    t.parts.push(bytes);
    t.length += bytes.length;
    this.#inMemory += bytes.length;
    const held = t.length - t.written;
    if (t.length <= this.#options.inline && this.#inMemory <= this.#options.memory) return true;
    if (held >= WRITE_SIZE) this.#write(gid, t);
    return held < 8 * WRITE_SIZE;
  }

  /** Everything is here. Gives the bytes when they are in memory as a whole; never those of a transaction that failed, which readers are to hear of. */
  complete(gid: Gid): Buffer | undefined {
    const t = this.#transactions.get(gid);
    if (t === undefined) return undefined;
    t.complete = true;
    if (t.failure !== undefined) return undefined;
    if (
      t.file === undefined &&
      t.parts.length > 0 &&
      t.length <= this.#options.inline &&
      this.#inMemory <= this.#options.memory
    ) {
      const all = t.parts.length === 1 ? t.parts[0] : Buffer.concat(t.parts);
      t.parts = [all];
      return all;
    }
    this.#write(gid, t);
    return undefined;
  }

  /** What there is of it is not all, and no more comes: readers get the error. */
  fail(gid: Gid, error: PgError): void {
    const t = this.#transactions.get(gid);
    if (t === undefined) return;
    t.failure ??= error;
    this.#wake(t);
  }

  /** Waits for the disk. Rejects when it failed, so that the transaction can be given up. */
  async settled(gid: Gid): Promise<void> {
    const t = this.#transactions.get(gid);
    if (t === undefined) return;
    await t.writing;
    if (t.failure !== undefined) throw t.failure;
  }

  /** Up to `limit` bytes from `offset`; waits while the reader is ahead of what came in. Rejects once it's released. */
  async read(gid: Gid, offset: number, limit: number): Promise<Piece> {
    for (;;) {
      const t = this.#transactions.get(gid);
      if (t === undefined) throw new Error('they are not kept any more');
      if (t.failure !== undefined) throw t.failure;
      if (t.file === undefined && t.complete && t.parts.length === 1 && t.written === 0) {
        const bytes = t.parts[0].subarray(offset, offset + limit);
        return { bytes, last: offset + bytes.length === t.length };
      }
      const available = Math.min(limit, t.written - offset);
      if (t.file !== undefined && (available > 0 || (t.complete && offset === t.length))) {
        const bytes = Buffer.allocUnsafe(Math.max(available, 0));
        const { bytesRead } = await t.file.read(bytes, 0, bytes.length, offset);
        return { bytes: bytes.subarray(0, bytesRead), last: t.complete && offset + bytesRead === t.length };
      }
      await new Promise<void>((resolve) => t.readers.push(resolve));
    }
  }

  release(gid: Gid): void {
    const t = this.#transactions.get(gid);
    if (t === undefined) return;
    this.#transactions.delete(gid);
    this.#inMemory -= t.parts.reduce((sum, part) => sum + part.length, 0);
    this.#wake(t);
    void t.writing.then(() => this.#drop(t));
  }

  async #drop(t: Spooled): Promise<void> {
    if (t.file === undefined) return;
    await t.file.close();
    await rm(t.path, { force: true });
  }

  #write(gid: Gid, t: Spooled): void {
    const bytes = Buffer.concat(t.parts);
    t.parts = [];
    this.#inMemory -= bytes.length;
    t.writing = t.writing
      .then(async () => {
        if (t.failure !== undefined) return;
        if (t.file === undefined) {
          // One that is begun anew may still be being written under its old name.
          t.path = join(this.#options.directory, `${gid.replaceAll(':', '-')}.${++this.#count}`);
          t.file = await open(t.path, 'wx+', 0o600);
        }
        let done = 0;
        while (done < bytes.length)
          done += (await t.file.write(bytes, done, bytes.length - done, t.written + done)).bytesWritten;
        t.written += bytes.length;
      })
      .catch((error: unknown) => {
        t.failure = spoolFailure(error as NodeJS.ErrnoException);
      })
      .finally(() => this.#wake(t));
  }

  #wake(t: Spooled): void {
    for (const wake of t.readers.splice(0)) wake();
  }
}

/** A full disk ends the transaction that filled it, and nothing else. */
function spoolFailure({ code, message }: NodeJS.ErrnoException): PgError {
  const full = code === 'ENOSPC' || code === 'EDQUOT';
  return new PgError(full ? '53100' : '58030', `could not keep the changes of a large transaction: ${message}`, {
    ...(full && { hint: 'Free disk space under data_dir on the node where the transaction ran.' }),
  });
}
