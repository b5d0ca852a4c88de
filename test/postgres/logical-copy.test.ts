import type pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installCatalog } from '../../src/catalog/install.ts';
import type { CopyHeader } from '../../src/replication/logical-copy/frames.ts';
import { CopyLoader, type TargetServer } from '../../src/replication/logical-copy/loader.ts';
import { LogicalCopy } from '../../src/replication/logical-copy/logical-copy.ts';
import { dropCopies, dropFormer, putInPlace } from '../../src/replication/logical-copy/swap.ts';
import { logIndex, nodeId } from '../../src/runtime/ids.ts';
import { installedBin, startPostgres, type TestPostgres } from '../support/postgres.ts';
import { waitFor } from '../support/wait-for.ts';

const INDEX = logIndex(4711);
const PIECE = 64 * 1024;
const TIME = '20260102T030405Z';

const CONTENTS = `
CREATE ROLE owner NOLOGIN;
CREATE TABLE plain (id serial PRIMARY KEY, twice int GENERATED ALWAYS AS (v * 2) STORED, v int);
INSERT INTO plain (v) SELECT i FROM generate_series(1, 1000) i;
ALTER TABLE plain OWNER TO owner;
CREATE TABLE noticed (at int REFERENCES plain);
CREATE FUNCTION notice() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO noticed VALUES (NEW.id); RETURN NEW; END';
CREATE TRIGGER notice AFTER INSERT ON plain FOR EACH ROW EXECUTE FUNCTION notice();
CREATE MATERIALIZED VIEW stale AS SELECT count(*) FROM plain;
INSERT INTO plain (v) VALUES (0);
SELECT lo_from_bytea(99, decode(repeat('00ff', 3000), 'hex'));
`;

/** PostgreSQL 15 of the machine is the donor; what it is loaded into is what other tests run on, and may be newer. */
describe.skipIf(installedBin === undefined)('a logical copy between two servers', () => {
  let donor: TestPostgres;
  let target: TestPostgres;
  let client: pg.Client;

  beforeAll(async () => {
    [donor, target] = await Promise.all([startPostgres({ bin: installedBin }), startPostgres()]);
    const [at, to] = await Promise.all([donor.connect(), target.connect()]);
    await Promise.all([at.query('CREATE DATABASE app'), to.query('CREATE DATABASE app')]);
    client = await donor.connect({ database: 'app' });
    await client.query(CONTENTS);
    await installCatalog(client, { nodeId: 1, stride: 16 });
    const old = await target.connect({ database: 'app' });
    await old.query('CREATE TABLE old (i int)');
    await to.query('CREATE ROLE former LOGIN');
    await old.query('ALTER TABLE old OWNER TO former');
    await old.end();
  });
  afterAll(() => Promise.all([donor.stop(), target.stop()]));

  const at = ({ host, port }: TestPostgres) => ({ host, port, user: 'postgres' });

  const begin = () =>
    LogicalCopy.begin({
      ...{ server: at(donor), node: nodeId(1), databases: ['app'], rate: 1e9, forMajor: target.major },
      toolsDirectory: installedBin,
      environment: { PGHOST: donor.host, PGPORT: String(donor.port), PGUSER: 'postgres' },
      hold: async (_, look) => ({ index: INDEX, found: await look() }),
    });

  const server = (): TargetServer => ({
    ...{ server: at(target), databases: ['app'], maintenance: 'postgres' },
    ...{ node: nodeId(2), cluster: 'c', stride: 16 },
  });

  async function load(): Promise<CopyHeader> {
    const copy = await begin();
    const loader = new CopyLoader(server());
    for (let end = false; !end;) {
      const piece = await copy.take(PIECE);
      await loader.push(piece.bytes);
      end = piece.end;
    }
    return loader.finish();
  }

  const databases = async () => {
    const one = await target.connect();
    const { rows } = await one.query<{ name: string }>(
      `SELECT datname AS name FROM pg_database WHERE datname LIKE 'app%' ORDER BY 1`,
    );
    await one.end();
    return rows.map(({ name }) => name);
  };

  it('that is given up leaves nothing', async () => {
    const copy = await begin();
    const loader = new CopyLoader(server());
    await loader.push((await copy.take(4096)).bytes);
    await expect(loader.finish()).rejects.toThrow('ended before it was complete');
    copy.stop();
    loader.abandon();
    await dropCopies(server());
    expect(await databases()).toEqual(['app']);
    const one = await target.connect();
    expect((await one.query(`SELECT FROM pg_roles WHERE rolname = 'owner'`)).rowCount).toBe(0);
    await one.end();
  });

  it('gives way to whoever changes a table that it has not read', async () => {
    const copy = await begin();
    await copy.take(1);
    // As a replay would.
    await client.query('SET session_replication_role = replica');
    const change = client.query('ALTER TABLE plain ADD COLUMN later int');
    await waitFor('it has ended', () =>
      copy.take(1).then(
        () => false,
        (error: unknown) => /to be changed/.test((error as Error).message),
      ),
    );
    await change;
    await client.query('ALTER TABLE plain DROP COLUMN later');
  });

  it('takes the place of what was there, as often as it is tried', async () => {
    const header = await load();
    expect(header.index).toBe(INDEX);
    await putInPlace(server(), header, TIME);
    await putInPlace(server(), header, TIME);
    expect(await databases()).toEqual(['app', `app_pgmm_old_${TIME}`]);
    const left = await dropFormer(server(), header, TIME, true);
    expect(left).toHaveLength(2);
    const one = await target.connect({ database: 'app' });
    const ask = async (sql: string) => (await one.query<{ v: unknown }>(sql)).rows.map(({ v }) => v);
    expect(await ask('SELECT sum(twice) AS v FROM plain')).toEqual(['1001000']);
    expect(await ask('SELECT count(*) AS v FROM noticed')).toEqual(['1']);
    expect(await ask('SELECT count AS v FROM stale')).toEqual(['1000']);
    expect(await ask('SELECT length(lo_get(99)) AS v')).toEqual([6000]);
    expect(await ask(`SELECT relkind AS v FROM pg_class WHERE relname = 'stale'`)).toEqual(['m']);
    expect(await ask(`SELECT tableowner AS v FROM pg_tables WHERE tablename = 'plain'`)).toEqual(['owner']);
    // Of the class of node 2, beyond all that any node has handed out.
    const [next] = await ask(`SELECT nextval('plain_id_seq')::int AS v`);
    expect((next as number) % 16).toBe(2);
    expect(next).toBeGreaterThan(1001);
    expect(
      await ask(`SELECT pg_replication_origin_progress(roname, true)::text AS v FROM pg_replication_origin`),
    ).toEqual(['0/1267']);
    expect(await ask(`SELECT node AS v FROM multimaster.membership`)).toEqual([1]);
    expect(await ask(`SELECT rolname AS v FROM pg_roles WHERE rolname ~ '^former' AND NOT rolcanlogin`)).toEqual([
      `former_pgmm_old_${TIME}`,
    ]);
    await one.end();
    await dropFormer(server(), header, TIME, false);
    expect(await databases()).toEqual(['app']);
  });
});
