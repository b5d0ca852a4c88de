/**
 * A disk in memory that loses power after a given number of operations. What wasn't synced then survives by halves: any
 * subset of the written sectors, and any prefix of the changes of names.
 */
import type { Disk, DiskFile } from '../../../src/consensus/disk.ts';
import { Prng } from '../../../src/consensus/core/random.ts';

const SECTOR = 64;

interface Inode {
  now: Buffer;
  durable: Buffer;
  /** Byte ranges written since the last sync. */
  dirty: { readonly from: number; readonly to: number }[];
}

type Names = Map<string, Inode>;

export class PowerLoss extends Error {}

export class FakeDisk implements Disk {
  #names: Names = new Map();
  #durableNames: Names = new Map();
  #pendingNames: ((names: Names) => void)[] = [];
  #inodes = new Set<Inode>();
  #prng: Prng;
  /** Operations until the power fails. */
  budget = Infinity;
  syncs = 0;
  /** There is no room for another file. */
  isFull = false;
  /** The next sync fails once, as a disk does. */
  failNextSync = false;

  constructor(seed: number) {
    this.#prng = new Prng(seed);
  }

  /** Power comes back. */
  restart(): void {
    for (const change of this.#pendingNames.slice(0, this.#prng.below(this.#pendingNames.length + 1))) {
      change(this.#durableNames);
    }
    this.#pendingNames = [];
    this.#names = new Map(this.#durableNames);
    for (const inode of this.#inodes) this.#crash(inode);
    this.budget = Infinity;
  }

  /** The bytes of a file, to damage them. */
  bytes(path: string): Buffer {
    return this.#inode(path).now;
  }

  files(): string[] {
    return [...this.#names.keys()].sort();
  }

  makeDirectory(): Promise<void> {
    return Promise.resolve();
  }

  async list(directory: string): Promise<string[]> {
    await this.#spend();
    return [...this.#names.keys()]
      .filter((path) => path.startsWith(`${directory}/`))
      .map((path) => path.slice(directory.length + 1));
  }

  async read(path: string): Promise<Uint8Array> {
    await this.#spend();
    return Buffer.from(this.#inode(path).now);
  }

  async open(path: string, create: boolean): Promise<DiskFile> {
    await this.#spend();
    if (create) {
      if (this.isFull) throw new Error('ENOSPC: no space left on device, open');
      const inode = { now: Buffer.alloc(0), durable: Buffer.alloc(0), dirty: [] };
      this.#inodes.add(inode);
      this.#rename((names) => names.set(path, inode));
    }
    return this.#fileOf(this.#inode(path));
  }

  async rename(from: string, to: string): Promise<void> {
    await this.#spend();
    const inode = this.#inode(from);
    this.#rename((names) => {
      names.set(to, inode);
      names.delete(from);
    });
  }

  async remove(path: string): Promise<void> {
    await this.#spend();
    this.#inode(path);
    this.#rename((names) => names.delete(path));
  }

  async syncDirectory(): Promise<void> {
    await this.#spend();
    for (const change of this.#pendingNames.splice(0)) change(this.#durableNames);
  }

  #fileOf(inode: Inode): DiskFile {
    const sync = async (): Promise<void> => {
      await this.#spend();
      this.syncs++;
      if (this.failNextSync) {
        this.failNextSync = false;
        throw new Error('EIO: i/o error, fdatasync');
      }
      inode.durable = Buffer.from(inode.now);
      inode.dirty = [];
    };
    return {
      write: (data, position) => {
        this.#spendNow();
        const size = Math.max(inode.now.length, position + data.length);
        inode.now = Buffer.concat([inode.now, Buffer.alloc(size - inode.now.length)]);
        inode.now.set(data, position);
        inode.dirty.push({ from: position, to: position + data.length });
      },
      truncate: async (size) => {
        await this.#spend();
        inode.now = Buffer.from(inode.now.subarray(0, size));
        inode.dirty.push({ from: size, to: inode.durable.length });
      },
      sync,
      syncSoon: sync,
      close: () => Promise.resolve(),
    };
  }

  #crash(inode: Inode): void {
    const size = this.#prng.below(2) === 0 ? inode.durable.length : inode.now.length;
    const image = Buffer.alloc(inode.dirty.length === 0 ? inode.durable.length : size);
    inode.durable.copy(image);
    for (const { from, to } of inode.dirty) {
      for (let at = from; at < to;) {
        const end = Math.min(to, (Math.floor(at / SECTOR) + 1) * SECTOR, image.length);
        if (end <= at) break;
        if (this.#prng.below(2) === 0) inode.now.copy(image, at, at, end);
        at = end;
      }
    }
    inode.now = image;
    inode.durable = Buffer.from(image);
    inode.dirty = [];
  }

  #rename(change: (names: Names) => void): void {
    change(this.#names);
    this.#pendingNames.push(change);
  }

  #inode(path: string): Inode {
    const inode = this.#names.get(path);
    if (inode === undefined) throw new Error(`ENOENT: ${path}`);
    return inode;
  }

  async #spend(): Promise<void> {
    await Promise.resolve();
    this.#spendNow();
  }

  #spendNow(): void {
    if (this.budget-- <= 0) throw new PowerLoss('the power is off');
  }
}
