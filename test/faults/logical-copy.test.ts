import { existsSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { LOGICAL_COPY_NOTE } from '../../src/cluster/reclone/logical-target.ts';
import { REQUEST_FILE } from '../../src/cluster/reclone/recloner.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { installedBin } from '../support/postgres.ts';
import { isReady } from '../support/ready.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };
const ROWS = 300_000;

const SCHEMA = `
CREATE ROLE keeper LOGIN PASSWORD 'open sesame' CONNECTION LIMIT 7;
CREATE ROLE clerk NOLOGIN;
GRANT clerk TO keeper WITH ADMIN OPTION;
ALTER ROLE keeper SET search_path = '', "a b", public;
ALTER ROLE keeper IN DATABASE app SET work_mem = '7MB';
ALTER DATABASE app SET statement_timeout = '1h';
CREATE SCHEMA shop AUTHORIZATION clerk;
COMMENT ON SCHEMA shop IS 'what is sold';
CREATE EXTENSION hstore SCHEMA shop;
CREATE TYPE shop.mood AS ENUM ('good', 'bad');
CREATE DOMAIN shop.price AS numeric CHECK (VALUE >= 0);
CREATE FUNCTION shop.shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.note := upper(NEW.note); RETURN NEW; END';
CREATE TABLE shop.parent (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text UNIQUE, note text);
CREATE TABLE shop.child (id serial PRIMARY KEY, parent int REFERENCES shop.parent ON DELETE CASCADE, cost shop.price,
  double numeric GENERATED ALWAYS AS (cost * 2) STORED, mood shop.mood, more shop.hstore, t timestamptz DEFAULT now());
CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON shop.parent FOR EACH ROW EXECUTE FUNCTION shop.shout();
CREATE TABLE shop.part (at int, filler text) PARTITION BY RANGE (at);
CREATE TABLE shop.part_1 PARTITION OF shop.part FOR VALUES FROM (0) TO (100);
CREATE TABLE shop.part_2 PARTITION OF shop.part FOR VALUES FROM (100) TO (200);
CREATE INDEX ON shop.part (at);
CREATE TABLE shop.no_key (a float8, b bytea, c "char");
CREATE TABLE shop.nothing ();
CREATE TABLE shop.late (id int, UNIQUE (id) DEFERRABLE INITIALLY DEFERRED);
CREATE VIEW shop.dear AS SELECT * FROM shop.child WHERE cost > 5;
GRANT SELECT ON shop.dear TO keeper WITH GRANT OPTION;
ALTER TABLE shop.child OWNER TO clerk;
ALTER TABLE shop.parent ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON shop.parent FOR SELECT TO keeper USING (id > 1);
CREATE ROLE leaver LOGIN;
CREATE TABLE shop.big (id int PRIMARY KEY, filler text);
CREATE TABLE shop.zoo (id int PRIMARY KEY)`;

/** What the cluster does not let clients make, and may find. */
const BEFORE = `
CREATE UNLOGGED TABLE scratch (a int);
CREATE TABLE base AS SELECT i FROM generate_series(1, 5) i;
CREATE MATERIALIZED VIEW stale AS SELECT i, i * i AS square FROM base;
CREATE UNIQUE INDEX ON stale (i);
CREATE MATERIALIZED VIEW empty AS SELECT i FROM stale WITH NO DATA;
DELETE FROM base WHERE i < 3;
CREATE SEQUENCE loose INCREMENT BY -3 MINVALUE -1000000 CYCLE;
INSERT INTO scratch VALUES (1);
SELECT lo_from_bytea(4711, convert_to(repeat('large', 1000), 'UTF8'));
COMMENT ON LARGE OBJECT 4711 IS 'a large one'`;

const CONTENTS = `
INSERT INTO shop.parent (name, note) SELECT 'n' || i, 'quiet' FROM generate_series(1, 50) i;
UPDATE shop.parent SET note = note || '!' WHERE id % 2 = 0;
INSERT INTO shop.child (parent, cost, mood, more) SELECT id, id, 'good', 'a=>1, b=>NULL' FROM shop.parent;
INSERT INTO shop.part SELECT i, repeat(E'tab\\there \\\\N', i % 3) FROM generate_series(0, 199) i;
INSERT INTO shop.no_key VALUES ('NaN', '\\x00ff', 'x'), (1e-300, NULL, NULL), (1e-300, NULL, NULL);
INSERT INTO shop.nothing DEFAULT VALUES;
INSERT INTO shop.late VALUES (1), (2);
SELECT nextval('loose')`;

describe.skipIf(installedBin === undefined)('a node whose data are replaced by a logical copy', () => {
  let cluster: TestCluster;
  let postgres: pg.Client;
  let app: pg.Client;
  let faults: string;

  beforeAll(async () => {
    faults = makeTempDir('faults');
    const reclone = { mode: 'automatic', method: 'logical', max_rate: '12MB', keep_old: false };
    cluster = await startCluster({
      relays: false,
      postgresBin: installedBin,
      env: { PGMM_FAULT_DIR: faults },
      settings: { databases: ['postgres', 'app'], retention: { wal: '32MB' }, reclone },
    });
    await Promise.all([1, 2, 3].map((node) => createDatabase(node)));
    await cluster.ready();
    postgres = await connect(1);
    app = await connect(1, 'app');
    await app.query('CREATE TABLE plain (id serial PRIMARY KEY, filler text)');
    await postgres.query('CREATE TABLE t (id serial PRIMARY KEY, filler text)');
    for (const statement of `${SCHEMA};\n${CONTENTS}`.split(';\n')) await app.query(statement);
  });
  afterAll(async () => {
    await postgres.end();
    await app.end();
    await cluster.stop();
    removeTempDir(faults);
  });

  const databaseUri = (uri: string, database: string) => Object.assign(new URL(uri), { pathname: `/${database}` }).href;

  async function connect(node: number, database = 'postgres'): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: databaseUri(cluster.node(node).uri, database) });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  /** Straight on the node's PostgreSQL. */
  async function locally<Row extends pg.QueryResultRow>(
    node: number,
    sql: string,
    database = 'postgres',
  ): Promise<Row[]> {
    const client = new pg.Client({ connectionString: databaseUri(cluster.node(node).postgresUri, database) });
    await client.connect();
    try {
      return (await client.query<Row>(sql)).rows;
    } finally {
      await client.end();
    }
  }

  async function createDatabase(node: number): Promise<void> {
    await waitFor(
      `node ${node} has its databases`,
      async () => {
        const [{ found }] = await locally<{ found: boolean }>(
          node,
          `SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'app') AS found`,
        );
        if (found) return true;
        await locally(node, 'CREATE DATABASE app');
        await locally(node, BEFORE, 'app');
        return true;
      },
      PATIENCE,
    );
  }

  const back = (node: number) => waitFor(`node ${node} is back`, () => isReady(cluster, node), PATIENCE);
  const statusOf = async (node: number) =>
    (await (await fetch(new URL('/status', cluster.node(node).metrics))).json()) as ClusterStatus;

  async function fillBeyondRetention(): Promise<void> {
    const surrendered = (node: number) =>
      /"database":"postgres".*retention is exceeded/.test(cluster.log(node, 'proxy'));
    await waitFor(
      'both give it up',
      async () => {
        if (!surrendered(1) || !surrendered(2))
          await postgres.query(
            `INSERT INTO t (filler) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 5000) i`,
          );
        return surrendered(1) && surrendered(2);
      },
      { ...PATIENCE, everyMs: 500 },
    );
  }

  /** Kills a node's processes, and lets the others go on past what they keep for it. */
  async function leaveBehind(node: number): Promise<void> {
    // What it lacks then is all of the database whose history is gone.
    await waitFor('it has what there is', async () => (await statusOf(1)).nodes[node - 1].lag === 0, PATIENCE);
    await cluster.dev('kill', String(node), 'both');
    await waitFor('the others go on', () => postgres.query('INSERT INTO t DEFAULT VALUES').then(() => true), PATIENCE);
    await fillBeyondRetention();
  }

  /** The donor, once some of the copy has come. */
  async function isCopying(): Promise<number> {
    let donor = 0;
    await waitFor(
      'node 3 fetches a copy',
      async () => {
        const { reclone } = await statusOf(3);
        donor = reclone?.donor ?? 0;
        return reclone?.state === 'copying' && reclone.method === 'logical' && reclone.bytes > 1e6;
      },
      PATIENCE,
    );
    return donor;
  }

  const note = () => join(cluster.dir, 'node3', 'pgmm', LOGICAL_COPY_NOTE);

  async function expectSame(): Promise<void> {
    await back(3);
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
    const left = await locally<{ name: string }>(3, `SELECT datname AS name FROM pg_database WHERE datname ~ 'pgmm'`);
    expect(left).toEqual([]);
    expect(existsSync(note())).toBe(false);
  }

  it('has what the others have, whoever dies and whatever is written meanwhile', { timeout: 900_000 }, async () => {
    await app.query(`INSERT INTO shop.big SELECT i, md5(i::text) FROM generate_series(1, ${ROWS}) i`);
    await app.query('DELETE FROM shop.child WHERE id % 16 = 0');
    await leaveBehind(3);
    await app.query('CREATE ROLE newcomer');
    await app.query('DROP ROLE leaver');

    await cluster.dev('start', '3', 'both');
    await isCopying();
    await cluster.dev('kill', '3', 'proxy');
    await cluster.dev('start', '3', 'proxy');
    await isCopying();
    await cluster.dev('kill', '3', 'postgres');
    await cluster.dev('start', '3', 'postgres');
    const first = await isCopying();
    // The donor does not wait for the copy: what is in its way ends, and is begun again.
    const other = await connect(3 - first, 'app');
    await other.query('ALTER TABLE shop.zoo ADD COLUMN more int DEFAULT 5');
    await other.end();
    const gaveWay = () => /still to be copied|due to administrator command/.test(cluster.log(3, 'proxy'));
    await waitFor('the copy is given up', gaveWay, PATIENCE);

    const donor = await isCopying();
    const writer = await connect(3 - donor, 'app');
    await cluster.dev('kill', String(donor), 'both');
    await waitFor('the other one takes over', async () => (await isCopying()) === 3 - donor, PATIENCE);
    const writing = new AbortController();
    let written = 0;
    const load = (async () => {
      for (let attempt = 1; !writing.signal.aborted; attempt++) {
        try {
          await writer.query('INSERT INTO shop.parent (name) VALUES ($1)', [`later ${attempt}`]);
          written += 1;
        } catch (error) {
          // Refused, as long as there is no majority; the connection itself stays.
          if (!(error instanceof pg.DatabaseError)) throw error;
        }
      }
    })();
    load.catch(() => writing.abort());
    await cluster.dev('start', String(donor), 'both');
    await waitFor('a copy is in place', () => cluster.log(3, 'proxy').includes('goes on with a copy'), PATIENCE);
    await back(3);
    await back(donor);
    writing.abort();
    await load;
    expect(written).toBeGreaterThan(10);
    await writer.end();
    await expectSame();
    expect(await locally(3, 'SELECT a FROM scratch', 'app')).toEqual([]);
    expect(await locally(3, `SELECT DISTINCT note FROM shop.parent WHERE name ~ '^n'`, 'app')).toEqual([
      { note: 'QUIET' },
    ]);
    const keeper = new pg.Client({ connectionString: databaseUri(cluster.node(3).uri, 'app') });
    await keeper.connect();
    for (let i = 0; i < 3; i++) await keeper.query('INSERT INTO shop.child DEFAULT VALUES');
    await keeper.end();
    await expectSame();
    // The copies that follow need not be large.
    const client = await connect(1);
    await client.query('TRUNCATE t');
    await client.end();
  });

  const isStopped = async (what: 'proxy' | 'postgres') =>
    (await cluster.status()).nodes.find(({ id }) => id === 3)?.[what] === 'stopped';

  it.each([
    ['proxy', 'copy.noted'],
    ['proxy', 'copy.first-replaced'],
    ['postgres', 'copy.first-replaced'],
    ['postgres', 'copy.adopted'],
  ] as const)('goes on when its %s was killed at %s', { timeout: 600_000 }, async (victim, point) => {
    const pid = victim === 'postgres' ? ` ${cluster.node(3).pids.postgres}` : '';
    writeFileSync(join(faults, '3'), `${point}${pid}`);
    writeFileSync(join(cluster.dir, 'node3', 'pgmm', REQUEST_FILE), '');
    await waitFor(`its ${victim} dies`, () => isStopped(victim), PATIENCE);
    await cluster.dev('start', '3', victim);
    await waitFor('the copy is this node’s own', () => !existsSync(note()), PATIENCE);
    await back(3);
    const client = await connect(3, 'app');
    await client.query('INSERT INTO shop.parent (name) VALUES ($1)', [`${victim} ${point}`]);
    await client.end();
    await expectSame();
  });
});
