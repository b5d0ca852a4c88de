import { existsSync } from 'node:fs';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { installedBin } from '../support/postgres.ts';
import { isReady } from '../support/ready.ts';
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
CREATE TABLE shop.big (id int PRIMARY KEY, filler text)`;

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

  beforeAll(async () => {
    const reclone = { mode: 'automatic', method: 'logical', max_rate: '20MB', keep_old: false };
    cluster = await startCluster({
      relays: false,
      postgresBin: installedBin,
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
    const surrendered = (node: number) => cluster.log(node, 'proxy').includes('retention is exceeded');
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

  it('takes writes again, and has what the others have', { timeout: 600_000 }, async () => {
    await cluster.dev('kill', '3', 'both');
    await waitFor('the others go on', () => postgres.query('INSERT INTO t DEFAULT VALUES').then(() => true), PATIENCE);
    await app.query(`INSERT INTO shop.big SELECT i, md5(i::text) FROM generate_series(1, ${ROWS}) i`);
    await app.query('DELETE FROM shop.child WHERE id % 16 = 0');
    await fillBeyondRetention();
    await cluster.dev('start', '3', 'both');
    await waitFor(
      'node 3 puts a copy in place',
      () => cluster.log(3, 'proxy').includes('goes on with a copy'),
      PATIENCE,
    );
    await back(3);
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
    expect(existsSync('/')).toBe(true);
    expect((await statusOf(3)).nodes[2].state).toBe('member');
  });
});
