import { closeSync, fsyncSync, openSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Logger } from '../runtime/log.ts';

/** A transaction that wrote to PostgreSQL without going through the proxy. */
export interface Bypass {
  readonly database: string;
  readonly xid: number;
  readonly tables: readonly string[];
  readonly at: string;
}

/** WAL of a database that was gone before it was looked at for such writes. */
export interface Unseen {
  readonly database: string;
  /** Where it begins in the WAL; null where that is not known, either. */
  readonly from: string | null;
  readonly at: string;
}

export interface Bypasses {
  readonly count: number;
  readonly last: Bypass | null;
  /** Of each database the first. */
  readonly unseen: readonly Unseen[];
}

const NONE: Bypasses = { count: 0, last: null, unseen: [] };

const FILE = 'bypasses.json';
/** Milliseconds for which a count that has risen is only in memory. */
const SAVE_AFTER = 1000;

/**
 * Writes that this node's data have and no other node's, or may have, since the data were last replaced by a copy: kept in `data_dir`, as a restart does not
 * undo them. That there are any is durable before the slot is moved past the first of them, unless it can't be written: that is tried again every
 * second. The count may lag by a second, and rises once more for what is read again after a crash.
 */
export class BypassRecord {
  readonly #path: string;
  readonly #log: Logger;
  #current: Bypasses;
  #saving: NodeJS.Timeout | undefined;

  constructor(directory: string, log: Logger) {
    this.#path = join(directory, FILE);
    this.#log = log;
    this.#current = read(this.#path);
  }

  get current(): Bypasses {
    return this.#current;
  }

  /** It is certain that this node's data have nothing that no other node's have. */
  get isEmpty(): boolean {
    return this.#current.count === 0 && this.#current.unseen.length === 0;
  }

  add(last: Bypass): void {
    const isFirst = this.#current.count === 0;
    this.#current = { ...this.#current, count: this.#current.count + 1, last };
    if (isFirst) this.#save();
    else this.#saveLater();
  }

  /** Durable when it returns; throws if it can't be made so. */
  addUnseen(unseen: Unseen): void {
    if (this.#current.unseen.some(({ database }) => database === unseen.database)) return;
    const current = { ...this.#current, unseen: [...this.#current.unseen, unseen] };
    replaceFile(this.#path, JSON.stringify(current));
    this.#current = current;
  }

  #saveLater(): void {
    this.#saving ??= setTimeout(() => this.#save(), SAVE_AFTER).unref();
  }

  #save(): void {
    this.#saving = undefined;
    try {
      replaceFile(this.#path, JSON.stringify(this.#current));
    } catch (error) {
      this.#log.error({ err: error }, `writes past the proxy could not be noted down in ${this.#path}`);
      this.#saveLater();
    }
  }

  stop(): void {
    if (this.#saving === undefined) return;
    clearTimeout(this.#saving);
    this.#save();
    clearTimeout(this.#saving);
  }
}

/** The data are another node's now. */
export function forgetBypasses(directory: string): void {
  rmSync(join(directory, FILE), { force: true });
}

function replaceFile(path: string, text: string): void {
  const file = openSync(`${path}.new`, 'w', 0o600);
  try {
    writeFileSync(file, `${text}\n`);
    fsyncSync(file);
  } finally {
    closeSync(file);
  }
  renameSync(`${path}.new`, path);
  const directory = openSync(join(path, '..'), 'r');
  try {
    fsyncSync(directory);
  } finally {
    closeSync(directory);
  }
}

/** Throws on a file that can't be understood: it must not be taken for a clean record. */
function read(path: string): Bypasses {
  try {
    return { ...NONE, ...(JSON.parse(readFileSync(path, 'utf8')) as Partial<Bypasses>) };
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return NONE;
    throw new Error(`${path} is damaged: ${(error as Error).message}`, { cause: error });
  }
}
