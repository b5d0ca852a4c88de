import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { canReach, runUser } from '../../../src/cli/dev/run-user.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

describe('the user that PostgreSQL runs as', () => {
  let temp: string;
  beforeEach(() => (temp = makeTempDir('user')));
  afterEach(() => removeTempDir(temp));

  function passwd(...lines: string[]): string {
    const file = join(temp, 'passwd');
    writeFileSync(file, `${lines.join('\n')}\n`);
    return file;
  }
  const ROOT = 'root:x:0:0:root:/root:/bin/sh';
  const NOBODY = 'nobody:x:65534:65533::/nonexistent:/usr/sbin/nologin';
  const POSTGRES = 'postgres:x:101:104:,,,:/var/lib/postgresql:/bin/bash';

  it('is who we are, unless we are root', () => {
    expect(runUser(1000, '/nonexistent')).toBeUndefined();
  });

  it('is postgres for root, or nobody', () => {
    expect(runUser(0, passwd(ROOT, NOBODY, POSTGRES))).toEqual({ name: 'postgres', uid: 101, gid: 104 });
    expect(runUser(0, passwd(ROOT, NOBODY))).toEqual({ name: 'nobody', uid: 65534, gid: 65533 });
    expect(() => runUser(0, passwd(ROOT))).toThrow('no user `postgres` or `nobody`');
  });

  it('reaches a directory, or the nearest parent that exists', () => {
    expect(canReach(undefined, temp)).toBe(true);
    expect(canReach(undefined, join(temp, 'not', 'there'))).toBe(true);
  });

  it.runIf(process.getuid?.() === 0)('does not reach what is closed to it', () => {
    mkdirSync(join(temp, 'closed'), { mode: 0o700 });
    expect(canReach(runUser(), join(temp, 'closed', 'below'))).toBe(false);
  });
});
