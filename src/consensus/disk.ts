/**
 * The few file operations that durable storage rests on, behind an interface so that tests can put a disk there that
 * forgets what wasn't synced.
 */
import { closeSync, fdatasync, fdatasyncSync, ftruncate, open, writeSync } from 'node:fs';
import { mkdir, open as openHandle, readdir, readFile, rename, unlink } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { SyncPace } from './sync-pace.ts';

const fdatasyncAsync = promisify(fdatasync);
const ftruncateAsync = promisify(ftruncate);
const openAsync = promisify(open);

export interface DiskFile {
  /** Into the page cache, which takes microseconds; a round trip through the thread pool costs more. */
  write(data: Uint8Array, position: number): void;
  truncate(size: number): Promise<void>;
  /** What was written so far is durable. A failure must be taken as fatal: the kernel may have dropped the pages. */
  sync(): Promise<void>;
  /** The same for a few kilobytes that others wait for: without the detour through another thread where the disk is quick. */
  syncSoon(): Promise<void>;
  close(): Promise<void>;
}

/** Paths of files are `directory/name`. */
export interface Disk {
  makeDirectory(path: string): Promise<void>;
  list(directory: string): Promise<string[]>;
  read(path: string): Promise<Uint8Array>;
  /** For reading and writing. With `create` the file is emptied if it exists. */
  open(path: string, create: boolean): Promise<DiskFile>;
  rename(from: string, to: string): Promise<void>;
  remove(path: string): Promise<void>;
  /** Makes names durable: files created, renamed and removed in this directory. */
  syncDirectory(path: string): Promise<void>;
}

class NodeFile implements DiskFile {
  readonly #fd: number;
  readonly #pace = new SyncPace();

  constructor(fd: number) {
    this.#fd = fd;
  }

  write(data: Uint8Array, position: number): void {
    for (let done = 0; done < data.length;) {
      done += writeSync(this.#fd, data, done, data.length - done, position + done);
    }
  }

  truncate(size: number): Promise<void> {
    return ftruncateAsync(this.#fd, size);
  }

  sync(): Promise<void> {
    return fdatasyncAsync(this.#fd);
  }

  // Asynchronous, so that a failure rejects like any other.
  async syncSoon(): Promise<void> {
    if (!this.#pace.inPlace()) return this.sync();
    const begun = performance.now();
    fdatasyncSync(this.#fd);
    this.#pace.took(performance.now() - begun);
  }

  close(): Promise<void> {
    closeSync(this.#fd);
    return Promise.resolve();
  }
}

export const nodeDisk: Disk = {
  async makeDirectory(path) {
    const created = await mkdir(path, { recursive: true });
    if (created !== undefined) await nodeDisk.syncDirectory(dirname(created));
  },
  list: (directory) => readdir(directory),
  read: (path) => readFile(path),
  open: async (path, create) => new NodeFile(await openAsync(path, create ? 'w+' : 'r+')),
  rename,
  remove: unlink,
  async syncDirectory(path) {
    const handle = await openHandle(join(path, '.'), 'r');
    try {
      await handle.sync();
    } finally {
      await handle.close();
    }
  },
};
