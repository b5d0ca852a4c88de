import { execFile } from 'node:child_process';
import { chown, cp, mkdir, open, readdir, readFile, rename, rm, stat } from 'node:fs/promises';
import { dirname, join, relative } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import type { Manifest } from '../../replication/base-backup/manifest.ts';
import type { Tablespace } from '../../replication/base-backup/tablespaces.ts';
import { exists, filesBelow, hashOf, sync } from './files.ts';
import { discardStaged, removeFormer, stagedFiles, stageTablespaces, swapTablespaces } from './tablespace-files.ts';

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
 * which it goes on to put in place. The copies of tablespaces grow in their locations in the same way (tablespace-files.ts); the links in the copy
 * tell where those are.
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

  /** Makes room for tablespaces, after `beginCopy`. Gives the directories that they are to be unpacked in, by OID. */
  async beginTablespaces(places: readonly Tablespace[]): Promise<ReadonlyMap<string, string>> {
    return stageTablespaces(this, places);
  }

  async discardCopy(): Promise<void> {
    await rm(this.#complete, { force: true });
    await discardStaged(this.copy);
    await rm(this.copy, { recursive: true, force: true, maxRetries: 3 });
  }

  /**
   * Holds the copy against its manifest, file by file as they are on disk, and gives it what is this node's own: configuration, certificates, and the
   * owner. Everything is durable afterwards. Throws when something is missing or differs.
   */
  async completeCopy(manifest: Manifest): Promise<void> {
    const expected = new Set(manifest.map(({ path }) => path));
    const staged = await stagedFiles(this.copy);
    const own = (await filesBelow(this.copy)).files.map((file) => relative(this.copy, file));
    for (const { path, size, sha256 } of manifest) {
      const file = staged.files.get(path) ?? join(this.copy, path);
      const { size: actual } = await stat(file);
      if (actual !== size) throw new Error(`the copy of ${path} has ${actual} bytes instead of ${size}`);
      if ((await hashOf(file)) !== sha256) throw new Error(`the copy of ${path} is damaged`);
    }
    const unknown = [...own, ...staged.files.keys()].filter((path) => !expected.has(path));
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
    const staged = await stagedFiles(this.copy);
    for (const path of [...files, ...directories, ...staged.files.values(), ...staged.directories]) {
      if (isOther) await chown(path, uid, gid);
      await sync(path);
    }
  }

  /**
   * Stops PostgreSQL, puts the complete copy in the place of the data, and starts it again. Gives where the former data is, if it still is. While the
   * tablespaces change places there is no data directory, so that no PostgreSQL can be started which has others' files there.
   */
  async install(commands: Commands, keepOld: boolean, now: Date): Promise<string | undefined> {
    const suffix = await this.#suffix(now);
    const old = `${this.path}.pgmm-old-${suffix}`;
    if (await exists(this.copy)) {
      await this.#stop(commands.stop);
      if (await exists(this.path)) await rename(this.path, old);
      await sync(dirname(this.path));
      await swapTablespaces(this.copy, suffix);
      await rename(this.copy, this.path);
      await sync(dirname(this.path));
    }
    if ((await this.#postmaster()) === undefined) await shell(commands.start);
    if (!(await exists(old))) return undefined;
    if (keepOld) return old;
    await removeFormer(old, this.path, suffix);
    await rm(old, { recursive: true });
    return undefined;
  }

  /** What the names of the former data end in: the time of the first attempt, also when it is not the last. */
  async #suffix(now: Date): Promise<string> {
    const noted = await readFile(this.#complete, 'utf8');
    if (noted !== '') return noted;
    const suffix = now.toISOString().replaceAll(/[-:]|\.\d+/g, '');
    const file = await open(`${this.#complete}.new`, 'w');
    await file.writeFile(suffix);
    await file.sync();
    await file.close();
    await rename(`${this.#complete}.new`, this.#complete);
    await sync(dirname(this.path));
    return suffix;
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
