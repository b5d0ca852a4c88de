import { createHash } from 'node:crypto';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DataDirectory } from '../../../src/cluster/reclone/data-directory.ts';
import { placeTablespaces } from '../../../src/cluster/reclone/tablespace-places.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

const COMMANDS = { stop: 'exit 9', start: 'true' };
const [FIRST, LATER] = [new Date('2026-01-02T03:04:05Z'), new Date('2026-01-02T04:00:00Z')];
const SUFFIX = '20260102T030405Z';
const VERSION = 'PG_18_202506291';

describe('where a tablespace goes', () => {
  const donors = [
    { oid: '16384', name: 'fast', location: '/donor/fast' },
    { oid: '16385', name: 'slow', location: '/donor/slow' },
  ];
  const locations = (set: [string, string][], present: [string, string][]) => {
    const places = (list: [string, string][]) => list.map(([name, location]) => ({ name, location }));
    return placeTablespaces(donors, { set: places(set), present: places(present) }).map(({ location }) => location);
  };

  it("is where the configuration says, else where the node has its own, else the donor's path", () => {
    expect(locations([], [])).toEqual(['/donor/fast', '/donor/slow']);
    expect(locations([], [['fast', '/own/fast']])).toEqual(['/own/fast', '/donor/slow']);
    expect(locations([['fast', '/set']], [['fast', '/own/fast']])).toEqual(['/set', '/donor/slow']);
  });

  it('is not guessed where it is not known, nor shared', () => {
    const present = { problem: 'connection refused' };
    expect(() => placeTablespaces(donors, { set: [{ name: 'fast', location: '/set' }], present })).toThrow(
      /"slow".*reclone\.tablespaces.*connection refused/,
    );
    expect(() => locations([['slow', '/donor/fast']], [])).toThrow('both go to /donor/fast');
    const inPlace = [{ oid: '1', name: 'here', location: 'pg_tblspc/1' }];
    expect(() => placeTablespaces(inPlace, { set: [], present: [] })).toThrow('lies in the data directory');
  });
});

describe('putting tablespaces in place', () => {
  let root: string;
  let data: DataDirectory;

  beforeEach(() => {
    root = makeTempDir('tablespaces');
    data = new DataDirectory(join(root, 'pg'));
    fill({
      'pg/PG_VERSION': '18\n',
      'pg/base/1': 'old',
      [`own/${VERSION}/5/7`]: 'old',
      [`gone/${VERSION}/5/8`]: 'old',
    });
    mkdirSync(join(root, 'pg/pg_tblspc'));
    symlinkSync(join(root, 'own'), join(root, 'pg/pg_tblspc/20000'));
    symlinkSync(join(root, 'gone'), join(root, 'pg/pg_tblspc/20001'));
  });
  afterEach(() => {
    removeTempDir(root);
  });

  function fill(files: Record<string, string>): void {
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(dirname(join(root, path)), { recursive: true });
      writeFileSync(join(root, path), content);
    }
  }

  const read = (path: string) => readFileSync(join(root, path), 'utf8');
  const place = (oid: string, directory: string) => ({ oid, name: directory, location: join(root, directory) });
  const SENT = {
    PG_VERSION: '18\n',
    'base/1': 'new',
    [`pg_tblspc/16384/${VERSION}/5/9`]: 'new',
    [`pg_tblspc/16385/${VERSION}/5/10`]: 'new',
  };
  const manifest = () =>
    Object.entries(SENT).map(([path, content]) => ({
      path,
      size: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
    }));

  /** One that this node has under another OID, and one that is new. */
  async function copy(): Promise<void> {
    await data.beginCopy();
    const staged = await data.beginTablespaces([place('16384', 'own'), place('16385', 'new')]);
    for (const [path, content] of Object.entries(SENT)) {
      const inTablespace = /^pg_tblspc\/(\d+)\/(.*)$/.exec(path);
      const file = inTablespace ? join(staged.get(inTablespace[1])!, inTablespace[2]) : join(data.copy, path);
      mkdirSync(dirname(file), { recursive: true });
      writeFileSync(file, content);
    }
  }

  function expectInstalled(): void {
    expect(read('pg/base/1')).toBe('new');
    expect(readlinkSync(join(root, 'pg/pg_tblspc/16384'))).toBe(join(root, 'own'));
    expect(read(`pg/pg_tblspc/16384/${VERSION}/5/9`)).toBe('new');
    expect(read(`pg/pg_tblspc/16385/${VERSION}/5/10`)).toBe('new');
    expect(existsSync(join(root, `own/${VERSION}/5/7`))).toBe(false);
    expect(existsSync(data.copy)).toBe(false);
  }

  it('keeps what was there beside it, where that is asked for', async () => {
    await copy();
    await data.completeCopy(manifest());
    expect(read(`own/${VERSION}/5/7`)).toBe('old');
    const old = await data.install(COMMANDS, true, FIRST);
    expectInstalled();
    expect(old).toBe(`${data.path}.pgmm-old-${SUFFIX}`);
    expect(read(`own/pgmm-old-${SUFFIX}/${VERSION}/5/7`)).toBe('old');
    expect(read(`gone/${VERSION}/5/8`)).toBe('old');
  });

  it('leaves nothing of it where it is not', async () => {
    await copy();
    await data.completeCopy(manifest());
    expect(await data.install(COMMANDS, false, FIRST)).toBeUndefined();
    await data.settle();
    expectInstalled();
    expect(readdirSync(root).sort()).toEqual(['gone', 'new', 'own', 'pg']);
    expect(readdirSync(join(root, 'own'))).toEqual([VERSION]);
    expect(readdirSync(join(root, 'gone'))).toEqual([]);
  });

  /** What `install` does to the disk, in this order; a crash comes after the first few of it. */
  const old = () => `${data.path}.pgmm-old-${SUFFIX}`;
  const kept = () => join(root, `own/pgmm-old-${SUFFIX}`);
  const steps: [string, () => void][] = [
    ['the suffix is noted', () => writeFileSync(`${data.copy}.complete`, SUFFIX)],
    ['the data directory is moved away', () => renameSync(data.path, old())],
    ['a place for the old files of a tablespace is made', () => mkdirSync(kept())],
    ['the old files are there', () => renameSync(join(root, 'own', VERSION), join(kept(), VERSION))],
    ['the new ones are in place', () => renameSync(join(root, 'own/pgmm-copy', VERSION), join(root, 'own', VERSION))],
    [
      'those of the other tablespace, too',
      () => renameSync(join(root, 'new/pgmm-copy', VERSION), join(root, 'new', VERSION)),
    ],
    ['the new data directory is in place', () => renameSync(data.copy, data.path)],
  ];

  it.each(steps.map(([what], i) => [what, i + 1] as const))('goes on after a crash when %s', async (_what, count) => {
    await copy();
    await data.completeCopy(manifest());
    for (const [, step] of steps.slice(0, count)) step();
    const again = new DataDirectory(data.path);
    expect(await again.isDue()).toBe(true);
    await again.install(COMMANDS, false, LATER);
    await again.settle();
    expectInstalled();
    expect(readdirSync(root).sort()).toEqual(['gone', 'new', 'own', 'pg']);
    expect(readdirSync(join(root, 'own'))[0]).toBe(VERSION);
  });

  it('throws away a copy that is not complete, in the tablespaces too', async () => {
    await copy();
    writeFileSync(join(root, `own/pgmm-copy/${VERSION}/5/9`), 'nwe');
    await expect(data.completeCopy(manifest())).rejects.toThrow(`pg_tblspc/16384/${VERSION}/5/9 is damaged`);
    writeFileSync(join(root, `own/pgmm-copy/${VERSION}/5/9`), 'new');
    writeFileSync(join(root, `own/pgmm-copy/${VERSION}/5/99`), 'more');
    await expect(data.completeCopy(manifest())).rejects.toThrow('does not know');
    await new DataDirectory(data.path).discardCopy();
    expect(readdirSync(join(root, 'own'))).toEqual([VERSION]);
    expect(readdirSync(join(root, 'new'))).toEqual([]);
    expect(read(`own/${VERSION}/5/7`)).toBe('old');
  });

  it.each([
    ['another PostgreSQL uses', 'taken', 'which another PostgreSQL uses'],
    ['has no parent', 'a/b', 'there is no'],
    ['is in the data directory', 'pg/inside', 'in the data directory'],
  ])('takes no location that %s', async (_what, directory, message) => {
    fill({ [`taken/${VERSION}/5/1`]: 'theirs' });
    await data.beginCopy();
    await expect(data.beginTablespaces([place('16384', directory)])).rejects.toThrow(message);
    await data.discardCopy();
    expect(readdirSync(join(root, 'taken'))).toEqual([VERSION]);
  });
});
