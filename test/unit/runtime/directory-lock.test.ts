import { spawn } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { DirectoryInUse, lockDirectory } from '../../../src/runtime/directory-lock.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

describe('the lock of a directory', () => {
  let dir = '';
  beforeEach(() => (dir = makeTempDir('lock')));
  afterEach(() => removeTempDir(dir));
  const file = () => join(dir, 'pgmm.lock');

  it('is taken and given back', () => {
    const release = lockDirectory(join(dir, 'new'));
    release();
    lockDirectory(join(dir, 'new'))();
  });

  it('is refused while another process lives that holds it', async () => {
    const child = spawn(process.execPath, ['-e', 'setInterval(() => {}, 1000)']);
    const pid = child.pid!;
    const began = readFileSync(`/proc/${pid}/stat`, 'latin1').split(') ')[1].split(' ')[19];
    writeFileSync(file(), JSON.stringify({ pid, began }));
    expect(() => lockDirectory(dir)).toThrow(DirectoryInUse);
    // The number is another process's now.
    writeFileSync(file(), JSON.stringify({ pid, began: `${began}0` }));
    lockDirectory(dir)();
    writeFileSync(file(), JSON.stringify({ pid, began }));
    const ended = new Promise((resolve) => child.once('exit', resolve));
    child.kill('SIGKILL');
    await ended;
    lockDirectory(dir)();
  });

  it('is taken over when it was left half written', () => {
    writeFileSync(file(), '{"pid"');
    lockDirectory(dir)();
  });
});
