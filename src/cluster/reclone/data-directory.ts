import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { createReadStream, type Dirent } from 'node:fs';
import { chown, cp, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Manifest } from '../../replication/base-backup/manifest.ts';

/** What PostgreSQL itself keeps at the top of a data directory; everything else there is the operator's. */
const OF_POSTGRES =
  /^(base|global|pg_(?!hba\.conf$|ident\.conf$).*|PG_VERSION|postmaster\..*|backup_(label|manifest).*|tablespace_map.*|current_logfiles|(standby|recovery)\.signal|logs?)$/;
/** Milliseconds for a shutdown, and for a start with its recovery. */
const COMMAND_TIMEOUT = 120_000;

export interface Commands {
  readonly stop: string;
  readonly start: string;
}

/**
 * A data directory, and beside it the copy that is to take its place: `<path>.pgmm-copy`, and `<path>.pgmm-copy.complete` once it is whole and on
 * disk. That file goes last, so after a crash at any point the next run finds either an unfinished copy, which it throws away, or a complete one,
 * which it goes on to put in place.
 */
export class DataDirectory {
  readonly path: string;
  readonly copy: string;
  readonly #complete: string;

  constructor(path: string) {
    this.path = path;
    this.copy = `${path}.pgmm-copy`;
    this.#complete = `${this.copy}.complete`;
  }

  /** A copy is to be put in place, or has been and is not this node's yet. */
  async isDue(): Promise<boolean> {
    return exists(this.#complete);
  }

  /** Makes an empty directory for the copy, in the place of what is left of an earlier one. */
  async beginCopy(): Promise<void> {
    await this.discardCopy();
    await mkdir(this.copy, { mode: 0o700 });
  }

  async discardCopy(): Promise<void> {
    await rm(this.#complete, { force: true });
    await rm(this.copy, { recursive: true, force: true, maxRetries: 3 });
  }

  /**
   * Holds the copy against its manifest, file by file as they are on disk, and gives it what is this node's own: configuration, certificates, and the
   * owner. Everything is durable afterwards. Throws when something is missing or differs.
   */
  async completeCopy(manifest: Manifest): Promise<void> {
    const expected = new Map(manifest.map((file) => [file.path, file]));
    const found = await filesBelow(this.copy);
    for (const { path, size, sha256 } of manifest) {
      const file = join(this.copy, path);
      const { size: actual } = await stat(file);
      if (actual !== size) throw new Error(`the copy of ${path} has ${actual} bytes instead of ${size}`);
      if ((await hashOf(file)) !== sha256) throw new Error(`the copy of ${path} is damaged`);
    }
    const unknown = found.files.map((file) => relative(this.copy, file)).filter((path) => !expected.has(path));
    const strange = unknown.find((path) => !path.startsWith('pg_wal/'));
    if (strange !== undefined) throw new Error(`the copy has a file that its manifest does not know: ${strange}`);
    await this.#takeOwnFiles();
    await this.#makeDurable();
    const marker = await open(this.#complete, 'w');
    await marker.sync();
    await marker.close();
    await sync(dirname(this.path));
  }

  async #takeOwnFiles(): Promise<void> {
    for (const name of await readdir(this.copy))
      if (!OF_POSTGRES.test(name)) await rm(join(this.copy, name), { recursive: true });
    for (const name of await readdir(this.path)) {
      if (OF_POSTGRES.test(name)) continue;
      await cp(join(this.path, name), join(this.copy, name), {
        recursive: true,
        verbatimSymlinks: true,
        preserveTimestamps: true,
      });
    }
  }

  async #makeDurable(): Promise<void> {
    const { uid, gid } = await stat(this.path);
    const isOther = process.getuid?.() === 0 && uid !== 0;
    const { files, directories } = await filesBelow(this.copy);
    for (const path of [...files, ...directories]) {
      if (isOther) await chown(path, uid, gid);
      await sync(path);
    }
  }

  /** Stops PostgreSQL, puts the complete copy in the place of the data, and starts it again. Gives where the former data is, if it still is. */
  async install(commands: Commands, keepOld: boolean, now: Date): Promise<string | undefined> {
    const old = `${this.path}.pgmm-old-${now.toISOString().replaceAll(/[-:]|\.\d+/g, '')}`;
    let kept: string | undefined;
    if (await exists(this.copy)) {
      await this.#stop(commands.stop);
      if (await exists(this.path)) {
        await rename(this.path, old);
        kept = old;
      }
      await rename(this.copy, this.path);
      await sync(dirname(this.path));
    }
    if ((await this.#postmaster()) === undefined) await shell(commands.start);
    if (kept === undefined || keepOld) return kept;
    await rm(kept, { recursive: true });
    return undefined;
  }

  /** The copy is this node's data now. */
  async settle(): Promise<void> {
    await rm(this.#complete);
    await sync(dirname(this.path));
  }

  async #stop(command: string): Promise<void> {
    if ((await this.#postmaster()) === undefined) return;
    await shell(command);
    for (let waited = 0; (await this.#postmaster()) !== undefined; waited += 100) {
      if (waited >= COMMAND_TIMEOUT)
        throw new Error(`PostgreSQL still runs in ${this.path} after reclone.stop: ${command}`);
      await sleep(100);
    }
  }

  /** The process that serves the directory, as postmaster.pid says, if it lives. */
  async #postmaster(): Promise<number | undefined> {
    const file = join(this.path, 'postmaster.pid');
    if (!(await exists(file))) return undefined;
    const pid = Number.parseInt(await readFile(file, 'utf8'), 10);
    return isAlive(pid) ? pid : undefined;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
}

async function shell(command: string): Promise<void> {
  try {
    await promisify(execFile)('/bin/sh', ['-c', command], { timeout: COMMAND_TIMEOUT });
  } catch (error) {
    const { stderr = '', message } = error as Error & { stderr?: string };
    throw new Error(`${command}: ${stderr.trim() === '' ? message : stderr.trim()}`, { cause: error });
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

async function filesBelow(directory: string): Promise<{ files: string[]; directories: string[] }> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const path = (entry: Dirent): string => join(entry.parentPath, entry.name);
  return {
    files: entries.filter((entry) => entry.isFile()).map(path),
    directories: [...entries.filter((entry) => entry.isDirectory()).map(path), directory],
  };
}

async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** A file, or a directory. */
async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
