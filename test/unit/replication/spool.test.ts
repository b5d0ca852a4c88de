import { readdirSync, writeFileSync } from 'node:fs';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { TransactionSpool } from '../../../src/replication/spool.ts';
import { PgError } from '../../../src/runtime/errors.ts';
import type { Gid } from '../../../src/runtime/ids.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

const GID = 'pgmm:test:1:1:1:1' as Gid;

describe('TransactionSpool', () => {
  let directory: string;
  beforeEach(() => {
    directory = makeTempDir('spool');
  });
  afterEach(() => removeTempDir(directory));

  const open = (inline = 1000, memory = 1 << 20) =>
    TransactionSpool.open({ directory: `${directory}/spool`, inline, memory });
  const files = () => readdirSync(`${directory}/spool`);

  async function readAll(spool: TransactionSpool, gid: Gid, limit: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let offset = 0; ;) {
      const { bytes, last } = await spool.read(gid, offset, limit);
      pieces.push(bytes);
      offset += bytes.length;
      if (last) return Buffer.concat(pieces);
    }
  }

  it('gives a small transaction as one piece, without a file', async () => {
    const spool = await open();
    spool.begin(GID);
    spool.append(GID, Buffer.from('abc'));
    spool.append(GID, Buffer.from('def'));
    expect(spool.complete(GID)?.toString()).toBe('abcdef');
    expect((await readAll(spool, GID, 4)).toString()).toBe('abcdef');
    expect(files()).toEqual([]);
    spool.release(GID);
    expect(spool.usage.memory).toBe(0);
  });

  it('lets several readers follow a large transaction that is still coming in', async () => {
    const spool = await open();
    spool.begin(GID);
    const expected: Buffer[] = [];
    const readers = [readAll(spool, GID, 7000), readAll(spool, GID, 300_000)];
    for (let i = 0; i < 100; i++) {
      const piece = Buffer.alloc(50_000, i);
      expected.push(piece);
      if (!spool.append(GID, piece)) await spool.settled(GID);
    }
    expect(spool.complete(GID)).toBeUndefined();
    const all = Buffer.concat(expected);
    for (const read of [...(await Promise.all(readers)), await readAll(spool, GID, 65536)])
      expect(read.equals(all)).toBe(true);
    expect(spool.usage.memory).toBe(0);
    spool.release(GID);
    await expect.poll(files).toEqual([]);
    await expect(spool.read(GID, 0, 1)).rejects.toThrow();
  });

  it('holds no more in memory than it may', async () => {
    const spool = await open(1000, 5000);
    const gids = Array.from({ length: 20 }, (_, i) => `${GID}${i}` as Gid);
    for (const gid of gids) {
      spool.begin(gid);
      spool.append(gid, Buffer.alloc(900));
      spool.complete(gid);
    }
    expect(spool.usage.memory).toBeLessThanOrEqual(5000);
    for (const gid of gids) {
      expect(await readAll(spool, gid, 100)).toHaveLength(900);
      spool.release(gid);
    }
    await expect.poll(files).toEqual([]);
  });

  it('reports a disk that takes nothing to the readers of that transaction alone', async () => {
    const spool = await open();
    // Stands for a full disk: no file can be made in what is none.
    removeTempDir(`${directory}/spool`);
    writeFileSync(`${directory}/spool`, '');
    spool.begin(GID);
    const reader = readAll(spool, GID, 1000);
    const failure = expect(reader).rejects.toMatchObject({ sqlstate: '58030' });
    spool.append(GID, Buffer.alloc(2 << 20));
    spool.complete(GID);
    await failure;
    await expect(spool.settled(GID)).rejects.toMatchObject({ sqlstate: '58030' });
    const other = `${GID}2` as Gid;
    spool.begin(other);
    spool.append(other, Buffer.from('x'));
    expect(spool.complete(other)?.toString()).toBe('x');
  });

  it('does not give what there is of a transaction that was given up, however small', async () => {
    const spool = await open();
    spool.begin(GID);
    spool.append(GID, Buffer.from('a part'));
    spool.fail(GID, new PgError('58030', 'the rest is not to be had'));
    expect(spool.complete(GID)).toBeUndefined();
    await expect(spool.read(GID, 0, 10)).rejects.toMatchObject({ sqlstate: '58030' });
    spool.release(GID);
    expect(spool.usage).toEqual({ memory: 0, disk: 0 });
  });

  it('empties what an earlier run left, and begins a transaction anew', async () => {
    const first = await open();
    first.begin(GID);
    first.append(GID, Buffer.alloc(3 << 20, 1));
    first.begin(GID);
    first.append(GID, Buffer.alloc(2 << 20, 2));
    first.complete(GID);
    expect((await readAll(first, GID, 1 << 20)).equals(Buffer.alloc(2 << 20, 2))).toBe(true);
    first.release(GID);
    await expect.poll(files).toEqual([]);
    writeFileSync(`${directory}/spool/left`, '');
    const second = await open();
    expect(files()).toEqual([]);
    await expect(second.read(GID, 0, 1)).rejects.toThrow();
  });
});
