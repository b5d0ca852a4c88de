import { chmodSync, mkdirSync, readFileSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { PlaygroundDirectory, defaultDirectory, nodeIds, replaceFile } from '../../../src/cli/dev/directory.ts';
import { runUser } from '../../../src/cli/dev/run-user.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

const isRoot = process.getuid?.() === 0;

describe("a playground's directory", () => {
  let temp: string;
  beforeEach(() => (temp = makeTempDir('directory')));
  afterEach(() => removeTempDir(temp));

  it('keeps nodes, port and secret from one start to the next', () => {
    const directory = new PlaygroundDirectory(temp);
    const first = directory.decideSettings({ nodes: undefined, port: undefined });
    expect(first).toMatchObject({ nodes: 3, port: 6001 });
    expect(first.secret).toMatch(/^[0-9a-f]{64}$/);
    directory.saveSettings(first);
    expect(statSync(directory.settingsFile).mode & 0o777).toBe(0o600);
    expect(directory.decideSettings({ nodes: undefined, port: undefined })).toEqual(first);
    expect(directory.decideSettings({ nodes: 3, port: 7001 })).toEqual({ ...first, port: 7001 });
  });

  it('refuses another number of nodes than its data is for', () => {
    const directory = new PlaygroundDirectory(temp);
    directory.saveSettings({ nodes: 3, witness: false, port: 6001, secret: 'x' });
    expect(() => directory.decideSettings({ nodes: 5, port: undefined })).toThrow('holds a playground of 3 nodes');
  });

  it('keeps the third vote, of which there is one', () => {
    const directory = new PlaygroundDirectory(temp);
    const asked = { nodes: 2, port: undefined };
    const first = directory.decideSettings({ ...asked, referee: 'redis://h' });
    directory.saveSettings(first);
    expect(directory.decideSettings(asked)).toEqual(first);
    expect(() => directory.decideSettings({ ...asked, witness: true })).toThrow('exactly two nodes and no witness');
    expect(nodeIds({ nodes: 2, witness: true })).toEqual([1, 2, 3]);
  });

  it('says which file is damaged', () => {
    const directory = new PlaygroundDirectory(temp);
    writeFileSync(directory.settingsFile, '{');
    expect(() => directory.settings()).toThrow(/playground\.json can't be read/);
  });

  it('replaces a file as a whole', () => {
    const file = join(temp, 'file');
    replaceFile(file, 'long old content');
    replaceFile(file, 'new');
    expect(readFileSync(file, 'utf8')).toBe('new');
  });

  it('is in the working directory by default', () => {
    expect(defaultDirectory(undefined, temp)).toEqual({ path: join(temp, 'pgmm-dev'), elsewhere: false });
  });

  it.runIf(isRoot)("is under /var/tmp when the servers' user can't reach the working directory", () => {
    const closed = join(temp, 'closed');
    mkdirSync(closed, { mode: 0o700 });
    const user = runUser();
    const { path, elsewhere } = defaultDirectory(user, closed);
    expect(elsewhere).toBe(true);
    expect(path).toMatch(/^\/var\/tmp\/pgmm-dev-closed-[0-9a-f]{8}$/);
    expect(defaultDirectory(user, closed).path).toBe(path);
    chmodSync(closed, 0o711);
    expect(defaultDirectory(user, closed).elsewhere).toBe(false);
  });

  it.runIf(isRoot)("names the user and the cure when --dir can't be reached", () => {
    const closed = join(temp, 'closed');
    mkdirSync(closed, { mode: 0o700 });
    const user = runUser()!;
    const directory = new PlaygroundDirectory(join(closed, 'playground'));
    expect(() => directory.create([1], user)).toThrow(
      new RegExp(`runs as user ${user.name}, and that user can't reach ${directory.path}: choose a --dir below`),
    );
    expect(statSync(directory.path, { throwIfNoEntry: false })).toBeUndefined();
  });
});
