import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DataDirectory } from '../../../src/cluster/reclone/data-directory.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

const NOW = new Date('2026-01-02T03:04:05.678Z');
const COMMANDS = { stop: 'exit 9', start: 'true' };

describe('putting a copy in the place of the data', () => {
  let root: string;
  let data: DataDirectory;

  beforeEach(() => {
    root = makeTempDir('data-directory');
    data = new DataDirectory(join(root, 'pg'));
    fill(data.path, { 'base/1/2': 'old', PG_VERSION: '18', 'postgresql.conf': 'port = 1', 'conf.d/x.conf': 'own' });
  });
  afterEach(() => {
    removeTempDir(root);
  });

  function fill(directory: string, files: Record<string, string>): void {
    for (const [path, content] of Object.entries(files)) {
      mkdirSync(join(directory, path, '..'), { recursive: true });
      writeFileSync(join(directory, path), content);
    }
  }

  const manifestOf = (files: Record<string, string>) =>
    Object.entries(files).map(([path, content]) => ({
      path,
      size: content.length,
      sha256: createHash('sha256').update(content).digest('hex'),
    }));

  const SENT = { 'base/1/2': 'new', PG_VERSION: '18', 'postgresql.conf': 'port = 2', backup_label: 'from here' };

  async function complete(): Promise<void> {
    await data.beginCopy();
    fill(data.copy, { ...SENT, 'pg_wal/000000010000000000000001': 'wal' });
    await data.completeCopy(manifestOf(SENT));
  }

  const read = (path: string): string => readFileSync(join(data.path, path), 'utf8');

  it("brings the donor's data and keeps the node's own files", async () => {
    await complete();
    expect(read('base/1/2')).toBe('old');
    const old = await data.install(COMMANDS, true, NOW);
    expect(old).toBe(`${data.path}.pgmm-old-20260102T030405Z`);
    expect(readFileSync(join(old!, 'base/1/2'), 'utf8')).toBe('old');
    expect(read('base/1/2')).toBe('new');
    expect(read('postgresql.conf')).toBe('port = 1');
    expect(read('conf.d/x.conf')).toBe('own');
    expect(read('backup_label')).toBe('from here');
    expect(await data.isDue()).toBe(true);
    await data.settle();
    expect(await data.isDue()).toBe(false);
  });

  it('leaves nothing of the former data where that is asked for', async () => {
    await complete();
    expect(await data.install(COMMANDS, false, NOW)).toBeUndefined();
    await data.settle();
    expect(readdirSync(root)).toEqual(['pg']);
  });

  it.each([
    ['is missing', { 'base/1/2': undefined }],
    ['is shorter', { 'base/1/2': 'ne' }],
    ['is damaged', { 'base/1/2': 'nwe' }],
    ['was not sent for', { 'base/1/3': 'more' }],
  ])('takes no copy in which a file %s', async (_what, change) => {
    await data.beginCopy();
    const files = Object.entries({ ...SENT, ...change }).filter(([, content]) => content !== undefined);
    fill(data.copy, Object.fromEntries(files) as Record<string, string>);
    await expect(data.completeCopy(manifestOf(SENT))).rejects.toThrow();
    expect(await data.isDue()).toBe(false);
    await data.discardCopy();
    expect(readdirSync(root)).toEqual(['pg']);
    expect(read('base/1/2')).toBe('old');
  });

  it('goes on after a crash before, between and after the renames', async () => {
    await complete();
    // Between: the old directory has gone to its place, the new one has not come yet.
    renameSync(data.path, `${data.path}.pgmm-old-crashed`);
    const again = new DataDirectory(data.path);
    expect(await again.isDue()).toBe(true);
    await again.install(COMMANDS, true, NOW);
    expect(read('base/1/2')).toBe('new');
    // After: only starting is left.
    expect(await new DataDirectory(data.path).isDue()).toBe(true);
    await new DataDirectory(data.path).install(COMMANDS, true, NOW);
    expect(read('base/1/2')).toBe('new');
    expect(existsSync(data.copy)).toBe(false);
  });

  it('leaves the data alone while PostgreSQL cannot be stopped', async () => {
    await complete();
    writeFileSync(join(data.path, 'postmaster.pid'), `${process.pid}\n`);
    await expect(data.install({ ...COMMANDS, stop: 'echo no >&2; exit 1' }, true, NOW)).rejects.toThrow('no');
    expect(read('base/1/2')).toBe('old');
    expect(await data.isDue()).toBe(true);
  });
});
