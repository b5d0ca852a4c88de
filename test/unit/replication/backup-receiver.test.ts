import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { create } from 'tar';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { BackupReceiver } from '../../../src/replication/base-backup/backup-receiver.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

const frame = (type: string, body: Buffer | string): Buffer => {
  const data = Buffer.concat([Buffer.from(type), Buffer.from(body)]);
  const length = Buffer.alloc(4);
  length.writeUInt32BE(data.length);
  return Buffer.concat([length, data]);
};

const files = [{ path: 'base/1/2', content: 'x'.repeat(3000) }];

function manifest(): string {
  const entries = files.map(
    ({ path, content }) =>
      `{ "Path": "${path}", "Size": ${content.length}, "Checksum-Algorithm": "SHA256", "Checksum": "${createHash('sha256').update(content).digest('hex')}" }`,
  );
  const text = `{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n${entries.join(',\n')}\n],\n`;
  return `${text}"Manifest-Checksum": "${createHash('sha256').update(text).digest('hex')}"}\n`;
}

describe('what BASE_BACKUP sends', () => {
  let root: string;
  let to: string;
  let sent: Buffer;

  beforeEach(async () => {
    root = makeTempDir('backup');
    to = join(root, 'to');
    mkdirSync(to);
    mkdirSync(join(root, 'from/base/1'), { recursive: true });
    for (const { path, content } of files) writeFileSync(join(root, 'from', path), content);
    await create({ cwd: join(root, 'from'), file: join(root, 'base.tar') }, ['base']);
    const archive = readFileSync(join(root, 'base.tar'));
    sent = Buffer.concat([
      frame('n', 'base.tar\0\0'),
      frame('d', archive.subarray(0, 700)),
      frame('p', Buffer.alloc(8)),
      frame('d', archive.subarray(700)),
      frame('m', ''),
      frame('d', manifest().slice(0, 50)),
      frame('d', manifest().slice(50)),
    ]);
  });
  afterEach(() => {
    removeTempDir(root);
  });

  async function receive(bytes: Buffer, pieces: number) {
    const receiver = new BackupReceiver(to, (tablespaces) =>
      Promise.resolve(new Map(tablespaces.map(({ oid, name }) => [oid, join(root, name)]))),
    );
    for (let at = 0; at < bytes.length; at += pieces) await receiver.push(bytes.subarray(at, at + pieces));
    return receiver.finish();
  }

  it.each([1, 7, 512, 1_000_000])('is unpacked from pieces of %d bytes', async (size) => {
    expect(await receive(sent, size)).toMatchObject([{ path: 'base/1/2', size: 3000 }]);
    expect(readFileSync(join(to, 'base/1/2'), 'utf8')).toBe(files[0].content);
  });

  it('has tablespaces in archives of their own, and a link to each, which is of no use here', async () => {
    mkdirSync(join(root, 'fast'));
    mkdirSync(join(root, 'donor/PG_18_1/5'), { recursive: true });
    writeFileSync(join(root, 'donor/PG_18_1/5/7'), 'in it');
    await create({ cwd: join(root, 'donor'), file: join(root, '16384.tar') }, ['PG_18_1']);
    mkdirSync(join(root, 'from/pg_tblspc'));
    symlinkSync(join(root, 'donor'), join(root, 'from/pg_tblspc/16384'));
    await create({ cwd: join(root, 'from'), file: join(root, 'base.tar') }, ['base', 'pg_tblspc']);
    const bytes = Buffer.concat([
      frame('t', JSON.stringify([['16384', 'fast', join(root, 'donor')]])),
      frame('n', `16384.tar\0${join(root, 'donor')}\0`),
      frame('d', readFileSync(join(root, '16384.tar'))),
      frame('n', 'base.tar\0\0'),
      frame('d', readFileSync(join(root, 'base.tar'))),
      frame('m', ''),
      frame('d', manifest()),
    ]);
    expect(await receive(bytes, 1000)).toHaveLength(1);
    expect(readFileSync(join(root, 'fast/PG_18_1/5/7'), 'utf8')).toBe('in it');
    expect(readFileSync(join(to, 'base/1/2'), 'utf8')).toBe(files[0].content);
    expect(existsSync(join(to, 'pg_tblspc'))).toBe(true);
    expect(existsSync(join(to, 'pg_tblspc/16384'))).toBe(false);
  });

  it('is not taken when it ends early, has a damaged manifest, or a tablespace that was not announced', async () => {
    await expect(receive(sent.subarray(0, -1), 512)).rejects.toThrow('in the middle of a message');
    await expect(receive(sent.subarray(0, 4 + 1 + 10), 512)).rejects.toThrow();
    const damaged = Buffer.from(sent.toString('latin1').replace('"Size": 3000', '"Size": 3001'), 'latin1');
    await expect(receive(damaged, 512)).rejects.toThrow('the manifest of the copy is damaged');
    await expect(receive(frame('n', '16384.tar\0/ts\0'), 512)).rejects.toThrow('tablespace');
    await expect(receive(frame('?', ''), 512)).rejects.toThrow('unknown type');
  });
});
