import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import {
  commitOrigin,
  noteCommitted,
  prepareLanes,
  readCommitPositions,
} from '../../src/replication/commit-origins.ts';
import { ControlClient } from '../../src/replication/control-client.ts';
import { logIndex } from '../../src/runtime/ids.ts';
import { installedBin, startPostgres, type TestPostgres } from '../support/postgres.ts';

const versions: [string, string | undefined][] = [['from npm', undefined]];
if (installedBin !== undefined) versions.push(['installed', installedBin]);

const LANES = 3;

describe.each(versions)('the origins of new committers, on PostgreSQL %s', (_name, bin) => {
  let postgres: TestPostgres;
  let control: ControlClient;
  let client: pg.Client;
  /** Stands for the database's oid: each test has origins of its own. */
  let oid = 0;

  beforeAll(async () => {
    postgres = await startPostgres({ bin, settings: { fsync: 'off', autovacuum: 'off' } });
    client = await postgres.connect();
    await client.query('CREATE TABLE t (id int)');
    control = new ControlClient({
      ...{ host: postgres.host, port: postgres.port, user: 'postgres', database: 'postgres' },
      applicationName: 'control',
    });
    await control.connect();
  });
  afterAll(async () => {
    await control.end();
    await postgres.stop();
  });
  beforeEach(() => {
    oid += 1;
  });

  const areReady = (lanes = LANES) => prepareLanes(control, String(oid), lanes);

  it('are ready at once where nothing is in progress', async () => {
    expect(await areReady()).toBe(true);
    const { rows } = await control.ask<{ roname: string }>('SELECT roname FROM pg_replication_origin');
    const names = rows.map(({ roname }) => roname);
    for (let lane = 0; lane < LANES; lane++) expect(names).toContain(commitOrigin(String(oid), lane, LANES));
  });

  it.each([
    ['an open transaction', 'ROLLBACK'],
    ['a prepared one', "ROLLBACK PREPARED 'older'"],
  ])('are not ready while %s is in progress that began before them', async (_what, end) => {
    await client.query('BEGIN; INSERT INTO t VALUES (1)');
    if (end !== 'ROLLBACK') await client.query("PREPARE TRANSACTION 'older'");
    expect(await areReady()).toBe(false);
    // Asking does not make them so.
    expect(await areReady()).toBe(false);
    await client.query(end);
    expect(await areReady()).toBe(true);
  });

  it('let it be noted how far they are, though an earlier run still holds the origin', async () => {
    await noteCommitted(control, String(oid), logIndex(3));
    const leftover = await postgres.connect();
    const ended = new Promise((resolve) => leftover.once('error', resolve));
    await leftover.query("SET application_name = 'pgmm committer'");
    await leftover.query('SELECT pg_replication_origin_session_setup($1)', [commitOrigin(String(oid), 0, 1)]);
    await noteCommitted(control, String(oid), logIndex(5));
    expect((await readCommitPositions(control, String(oid))).get(1)).toEqual([5]);
    await ended;
  });

  it('are ready when all that is in progress began after them', async () => {
    await client.query('BEGIN; INSERT INTO t VALUES (1)');
    expect(await areReady()).toBe(false);
    const younger = await postgres.connect();
    await younger.query('BEGIN; INSERT INTO t VALUES (2)');
    expect(await areReady()).toBe(false);
    await client.query('ROLLBACK');
    expect(await areReady()).toBe(true);
    await younger.query('ROLLBACK');
    await younger.end();
  });

  it('stay ready, and those of another number of committers are asked for anew', async () => {
    expect(await areReady()).toBe(true);
    await client.query('BEGIN; INSERT INTO t VALUES (1)');
    expect(await areReady()).toBe(true);
    expect(await areReady(LANES + 1)).toBe(false);
    await client.query('ROLLBACK');
    expect(await areReady(LANES + 1)).toBe(true);
  });

  it('are not ready for what began between their creation and its end', async () => {
    // As when the creation of the origins was cut off before the marker that follows it.
    await control.ask('SELECT pg_replication_origin_create(name) FROM unnest($1::text[]) name', [
      Array.from({ length: LANES }, (_, lane) => commitOrigin(String(oid), lane, LANES)),
    ]);
    await client.query('BEGIN; INSERT INTO t VALUES (1)');
    expect(await areReady()).toBe(false);
    await client.query('ROLLBACK');
    expect(await areReady()).toBe(true);
  });
});
