import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { BackupReceiver } from '../../src/replication/base-backup/backup-receiver.ts';
import { BaseBackup } from '../../src/replication/base-backup/base-backup.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';
import { waitFor } from '../support/wait-for.ts';

const LIMIT = 1024 * 1024;
const FASTEST = 1024 * 1024 * 1024;

describe('a base backup that takes its time', () => {
  let server: TestPostgres;
  let client: pg.Client;
  let root: string;

  beforeAll(async () => {
    root = makeTempDir('base-backup');
    server = await startPostgres({ settings: { max_wal_size: '32MB', min_wal_size: '32MB', wal_keep_size: '0' } });
    client = await server.connect();
  });
  afterAll(async () => {
    await server.stop();
    removeTempDir(root);
  });

  const begin = () =>
    BaseBackup.begin(
      { host: server.host, port: server.port, user: 'postgres', database: 'postgres', applicationName: 'copy' },
      FASTEST,
    );

  const slots = async () =>
    (
      await client.query<{ kind: string }>(
        `SELECT format('%s %s %s', slot_type, CASE WHEN temporary THEN 'temporary' END, wal_status) AS kind
         FROM pg_replication_slots WHERE slot_name LIKE 'pgmm_copy%'`,
      )
    ).rows.map(({ kind }) => kind);

  const wal = async () =>
    (await client.query<{ name: string }>('SELECT name FROM pg_ls_waldir() ORDER BY name')).rows.map(
      ({ name }) => name,
    );

  /** More than PostgreSQL keeps by itself. */
  async function writeMuch(): Promise<void> {
    await client.query('CREATE TABLE IF NOT EXISTS filler (t text)');
    for (let i = 0; i < 6; i++) {
      await client.query("INSERT INTO filler SELECT repeat('x', 1000) FROM generate_series(1, 16000)");
      await client.query('TRUNCATE filler');
      await client.query('SELECT pg_switch_wal()');
      await client.query('CHECKPOINT');
    }
  }

  it('keeps the WAL that it needs until it ends, and nothing afterwards', async () => {
    const backup = await begin();
    const directory = join(root, 'copy');
    mkdirSync(directory);
    const receiver = new BackupReceiver(directory, () => Promise.resolve(new Map()));
    const first = await backup.take(1);
    await receiver.push(first.bytes);
    expect(await slots()).toEqual(['physical temporary reserved']);
    const oldest = (await wal())[0];
    await writeMuch();
    expect(await wal()).toContain(oldest);
    for (let end = false; !end;) {
      const piece = await backup.take(LIMIT);
      await receiver.push(piece.bytes);
      end = piece.end;
    }
    expect((await receiver.finish()).length).toBeGreaterThan(0);
    await waitFor('the slot is gone', async () => (await slots()).length === 0);
    await writeMuch();
    expect(await wal()).not.toContain(oldest);
  });

  it('leaves no slot when it is given up', async () => {
    const backup = await begin();
    await backup.take(1);
    expect(await slots()).toHaveLength(1);
    backup.stop();
    await waitFor('the slot is gone', async () => (await slots()).length === 0);
  });
});
