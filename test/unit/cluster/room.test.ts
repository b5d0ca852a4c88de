import { statfs } from 'node:fs/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { checkRoom } from '../../../src/cluster/reclone/room.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

const MIB = 1024 * 1024;

describe('room for a copy', () => {
  let directory: string;

  beforeEach(() => {
    directory = makeTempDir('room');
  });
  afterEach(() => {
    removeTempDir(directory);
  });

  it('is there for what is small', () => expect(checkRoom(MIB, [directory])).resolves.toBeUndefined());

  it('is counted once for two directories of one file system', async () => {
    const { bavail, bsize } = await statfs(directory);
    await expect(checkRoom(bavail * bsize * 1.5, [directory, directory])).rejects.toThrow(
      new RegExp(
        `^there is no room for it: \\d+ MiB are to come and 64 to be left, ${directory} and ${directory} have \\d+$`,
      ),
    );
  });
});
