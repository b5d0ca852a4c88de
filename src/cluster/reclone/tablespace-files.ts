import { chown, mkdir, readdir, readFile, readlink, realpath, rename, rm, stat, symlink } from 'node:fs/promises';
import { dirname, join, relative, sep } from 'node:path';
import type { Tablespace } from '../../replication/base-backup/tablespaces.ts';
import { exists, filesBelow, sync } from './files.ts';

/** In a tablespace's location, beside PostgreSQL's own PG_<version> directory: a copy that is to take its place, and what was there before. */
const COPY = 'pgmm-copy';
const oldName = (suffix: string): string => `pgmm-old-${suffix}`;

/** Where the tablespaces of a data directory are, by OID: pg_tblspc has a symbolic link to each. */
async function linksOf(directory: string): Promise<ReadonlyMap<string, string>> {
  const links = join(directory, 'pg_tblspc');
  const found = new Map<string, string>();
  if (!(await exists(links))) return found;
  for (const entry of await readdir(links, { withFileTypes: true }))
    if (entry.isSymbolicLink()) found.set(entry.name, await readlink(join(links, entry.name)));
  return found;
}

/**
 * Makes room for the copies of tablespaces in their locations, and notes the latter down as the links that the copy of the data directory will have.
 * Gives the directories that the copies go to, by OID. Throws where a location can't be used.
 */
export async function stageTablespaces(
  data: { readonly path: string; readonly copy: string },
  places: readonly Tablespace[],
): Promise<ReadonlyMap<string, string>> {
  const present = new Set<string>();
  for (const location of (await linksOf(data.path)).values()) present.add(await realPath(location));
  const prefix = await versionPrefix(data.path);
  await mkdir(join(data.copy, 'pg_tblspc'), { mode: 0o700 });
  const staged = new Map<string, string>();
  for (const { oid, name, location } of places) {
    const real = await makeLocation(location, name, data.path);
    if (isWithin(real, await realPath(data.path)))
      throw new Error(`tablespace "${name}" would go to ${location}, in the data directory: set reclone.tablespaces`);
    const isTaken = !present.has(real) && (await readdir(real)).some((entry) => entry.startsWith(prefix));
    if (isTaken)
      throw new Error(
        `tablespace "${name}" would go to ${location}, which another PostgreSQL uses: set reclone.tablespaces`,
      );
    await symlink(location, join(data.copy, 'pg_tblspc', oid));
    const to = join(location, COPY);
    await rm(to, { recursive: true, force: true });
    await mkdir(to, { mode: 0o700 });
    staged.set(oid, to);
  }
  return staged;
}

/** The directory need not be there, but the one that it is in. */
async function makeLocation(location: string, name: string, data: string): Promise<string> {
  if (!(await exists(location))) {
    if (!(await exists(dirname(location))))
      throw new Error(
        `tablespace "${name}" would go to ${location}, and there is no ${dirname(location)}: set reclone.tablespaces`,
      );
    await mkdir(location, { mode: 0o700 });
    const { uid, gid } = await stat(data);
    if (process.getuid?.() === 0) await chown(location, uid, gid);
  }
  return realpath(location);
}

const realPath = async (path: string): Promise<string> => ((await exists(path)) ? realpath(path) : path);
const isWithin = (path: string, directory: string): boolean => path === directory || path.startsWith(directory + sep);

/** How the names of the directories begin that PostgreSQL of this major version has in tablespaces; of any, where there are no data to say which. */
async function versionPrefix(directory: string): Promise<string> {
  if (!(await exists(join(directory, 'PG_VERSION')))) return 'PG_';
  return `PG_${(await readFile(join(directory, 'PG_VERSION'), 'utf8')).trim()}_`;
}

/** Removes what has come of copies of tablespaces. */
export async function discardStaged(copy: string): Promise<void> {
  for (const location of (await linksOf(copy)).values())
    await rm(join(location, COPY), { recursive: true, force: true, maxRetries: 3 });
}

/** What copies of tablespaces consist of: the path of each file, and in a manifest. */
export async function stagedFiles(
  copy: string,
): Promise<{ files: ReadonlyMap<string, string>; directories: readonly string[] }> {
  const files = new Map<string, string>();
  const directories: string[] = [];
  for (const [oid, location] of await linksOf(copy)) {
    const found = await filesBelow(join(location, COPY));
    for (const file of found.files) files.set(join('pg_tblspc', oid, relative(join(location, COPY), file)), file);
    directories.push(...found.directories);
  }
  return { files, directories };
}

/**
 * Puts the copies of tablespaces in the place of what their locations have, which is kept under the suffix. May be called again after it was interrupted
 * at any point. No server that has one of the locations may run, or be started, meanwhile.
 */
export async function swapTablespaces(copy: string, suffix: string): Promise<void> {
  for (const location of (await linksOf(copy)).values()) {
    const staged = join(location, COPY);
    if (!(await exists(staged))) continue;
    for (const version of await readdir(staged)) {
      const place = join(location, version);
      if (await exists(place)) {
        await mkdir(join(location, oldName(suffix)), { recursive: true, mode: 0o700 });
        await rename(place, join(location, oldName(suffix), version));
        await sync(join(location, oldName(suffix)));
      }
      await rename(join(staged, version), place);
    }
    await sync(location);
    await rm(staged, { recursive: true });
  }
}

/**
 * Removes what a former data directory had in tablespaces: from under the suffix, and from where the present one, of the same major version, has nothing.
 * The former may be half gone already.
 */
export async function removeFormer(former: string, present: string, suffix: string): Promise<void> {
  const inUse = new Set((await linksOf(present)).values());
  const left = new Set((await linksOf(former)).values());
  for (const location of new Set([...inUse, ...left]))
    await rm(join(location, oldName(suffix)), { recursive: true, force: true });
  const prefix = await versionPrefix(present);
  for (const location of left) {
    if (inUse.has(location) || !(await exists(location))) continue;
    for (const version of await readdir(location))
      if (version.startsWith(prefix)) await rm(join(location, version), { recursive: true });
  }
}
