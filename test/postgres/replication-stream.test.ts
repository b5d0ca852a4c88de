import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ReplicationStream } from '../../src/replication/replication-stream.ts';
import { connectForText } from '../../src/replication/text-settings.ts';
import type { PgError } from '../../src/runtime/errors.ts';
import { ZERO_LSN } from '../../src/runtime/ids.ts';
import { installedBin, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { ReplayCluster } from '../support/replay-cluster.ts';
import { waitFor } from '../support/wait-for.ts';

const versions: [string, string | undefined][] = [['from npm', undefined]];
if (installedBin !== undefined) versions.push(['installed', installedBin]);

describe.each(versions)('an error of the walsender while it streams, on PostgreSQL %s', (_name, bin) => {
  let postgres: TestPostgres;

  beforeAll(async () => {
    postgres = await startPostgres({ bin });
  });
  afterAll(() => postgres.stop());

  it('ends the stream, once, and lets go of the slot', async () => {
    const client = await postgres.connect();
    await client.query('CREATE PUBLICATION pgmm FOR ALL TABLES');
    await client.query(`SELECT pg_create_logical_replication_slot('live', 'pgoutput', false, true)`);
    const server = await connectForText({
      ...{ host: postgres.host, port: postgres.port, user: 'postgres', database: 'postgres' },
      ...{ applicationName: 'stream', replication: true },
    });
    const errors: PgError[] = [];
    const stream = new ReplicationStream(server, {
      message: () => undefined,
      keepalive: () => undefined,
      confirmed: () => ZERO_LSN,
      closed: (error) => errors.push(error),
    });
    await stream.start('live', { proto_version: '3', publication_names: 'pgmm' }, 1000);
    await client.query('SELECT pg_cancel_backend($1)', [server.pid]);
    await waitFor('the connection is closed', async () => {
      const { rows } = await client.query('SELECT FROM pg_stat_activity WHERE pid = $1', [server.pid]);
      return rows.length === 0;
    });
    expect(errors.map(({ sqlstate }) => sqlstate)).toEqual(['57014']);
    stream.stop();
    await client.end();
  });
});

describe('a node whose decoder is cancelled', () => {
  let c: ReplayCluster;

  beforeAll(async () => {
    c = await ReplayCluster.start();
    await c.run('CREATE TABLE t (id int PRIMARY KEY)');
  });
  afterAll(() => c.stop());

  it('connects again, and goes on taking writes', async () => {
    const before = new pg.Client({ connectionString: c.cluster.node(1).postgresUri });
    await before.connect();
    const { rowCount } = await before.query(
      `SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name LIKE '% decoder'`,
    );
    await before.end();
    expect(rowCount).toBe(1);
    let id = 0;
    await waitFor('node 1 commits a write', () => c.on(1, `INSERT INTO t VALUES (${++id})`));
    await c.on(2, `INSERT INTO t VALUES (${++id})`);
    await c.expectSame();
  });
});
