import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PgError } from '../../src/runtime/errors.ts';
import { logIndex } from '../../src/runtime/ids.ts';
import { installedBin } from '../support/postgres.ts';
import { NO_NAMES, startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';
import { RawClient, describe as lines, errorFields, extended, send } from './session-raw.ts';

const servers = [
  ['npm', undefined],
  ['Debian', installedBin],
] as const;

describe.each(servers.filter(([name, bin]) => name === 'npm' || bin !== undefined))(
  'sessions before the PostgreSQL of %s',
  (_name, bin) => {
    let proxy: SessionProxy;

    beforeAll(async () => {
      proxy = await startSessionProxy({ bin });
      const admin = await proxy.postgres.connect();
      await admin.query(`CREATE TABLE t (a int PRIMARY KEY, b text);
      CREATE TABLE child (a int REFERENCES t DEFERRABLE INITIALLY DEFERRED);
      CREATE FUNCTION hidden_write(i int) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO t VALUES (i, 'hidden') ON CONFLICT DO NOTHING; RETURN i; END $$;
      CREATE FUNCTION lift() RETURNS void LANGUAGE plpgsql AS
        $$ BEGIN PERFORM set_config('default_transaction_read_only', 'off', false); END $$;
      CREATE FUNCTION noisy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'deferred'; RETURN NULL; END $$;
      CREATE TABLE noisy (a int);
      CREATE SEQUENCE s;
      CREATE CONSTRAINT TRIGGER late AFTER INSERT ON noisy DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION noisy();`);
    });

    afterAll(async () => {
      await proxy.stop();
    });

    beforeEach(async () => {
      const admin = await proxy.postgres.connect();
      await admin.query('TRUNCATE t, child, noisy');
      await admin.end();
      proxy.names.current = NO_NAMES;
      proxy.commits.refusing = undefined;
      proxy.commits.refusingReads = undefined;
      proxy.commits.decide = () => Promise.resolve(undefined);
      proxy.commits.prepared.length = 0;
      proxy.announced.length = 0;
      proxy.events.length = 0;
    });

    it('passes reads on and prepares writes', async () => {
      const client = await proxy.connect();
      expect((await client.query('SELECT 1 AS x')).rows).toEqual([{ x: 1 }]);
      expect(proxy.commits.prepared).toHaveLength(0);
      expect((await client.query("INSERT INTO t VALUES (1, 'x')")).rowCount).toBe(1);
      expect((await client.query('INSERT INTO t VALUES ($1, $2) RETURNING a', [2, 'y'])).rows).toEqual([{ a: 2 }]);
      expect(proxy.commits.prepared).toHaveLength(2);
      expect((await client.query('SELECT count(*)::int AS n FROM t')).rows).toEqual([{ n: 2 }]);
    });

    it('prepares an explicit transaction once, and only if it wrote', async () => {
      const client = await proxy.connect();
      for (const sql of ['BEGIN', 'SELECT 1', 'COMMIT']) await client.query(sql);
      expect(proxy.commits.prepared).toHaveLength(0);
      for (const sql of ['BEGIN', 'INSERT INTO t VALUES (1)', 'SAVEPOINT s', 'INSERT INTO t VALUES (2)'])
        await client.query(sql);
      await client.query('ROLLBACK TO s');
      await client.query('COMMIT');
      expect(proxy.commits.prepared).toHaveLength(1);
      expect((await client.query('SELECT a FROM t')).rows).toEqual([{ a: 1 }]);
      await client.query('BEGIN');
      await client.query('INSERT INTO t VALUES (3)');
      await client.query('ROLLBACK');
      expect(proxy.commits.prepared).toHaveLength(1);
    });

    it('tells the outcome in place of the completion', async () => {
      const client = await proxy.connect();
      const error = new PgError('40001', 'lost against node 2', { detail: 'why' });
      proxy.commits.decide = () => Promise.resolve({ type: 'aborted', error });
      await expect(client.query('INSERT INTO t VALUES (1)')).rejects.toMatchObject({ code: '40001', detail: 'why' });
      await expect(client.query('INSERT INTO t VALUES ($1)', [1])).rejects.toMatchObject({ code: '40001' });
      await client.query('BEGIN');
      await client.query('INSERT INTO t VALUES (1)');
      await expect(client.query('COMMIT')).rejects.toMatchObject({ code: '40001' });
      proxy.commits.decide = () => Promise.resolve({ type: 'committed', index: logIndex(1) });
      await client.query('INSERT INTO t VALUES (1)');
      expect((await client.query('SELECT count(*)::int AS n FROM t')).rows).toEqual([{ n: 1 }]);
    });

    it('refuses writes that cannot be coordinated before they run, and reads never', async () => {
      const client = await proxy.connect();
      proxy.commits.refusing = new PgError('57P03', 'no majority');
      await expect(client.query('INSERT INTO t VALUES (1)')).rejects.toMatchObject({ code: '57P03' });
      await expect(client.query('INSERT INTO t VALUES ($1)', [1])).rejects.toMatchObject({ code: '57P03' });
      await client.query('SELECT 1');
      await client.query('DO $$ BEGIN PERFORM 1; END $$');
      await client.query('BEGIN');
      await client.query('SELECT hidden_write(1)');
      await expect(client.query('COMMIT')).rejects.toMatchObject({ code: '57P03' });
      for (const values of [undefined, []]) {
        await client.query('BEGIN');
        const write = client.query({ text: 'INSERT INTO t VALUES (1)', ...(values && { values }) });
        await expect(write).rejects.toMatchObject({ code: '57P03' });
        await client.query('ROLLBACK');
      }
      proxy.commits.refusing = undefined;
      expect((await client.query('SELECT * FROM t')).rows).toEqual([]);
    });

    it('repeats what looked like a read and wrote', async () => {
      const client = await proxy.connect();
      expect((await client.query('SELECT hidden_write(7) AS h')).rows).toEqual([{ h: 7 }]);
      expect((await client.query('SELECT hidden_write(7) AS h')).rows).toEqual([{ h: 7 }]);
      expect((await client.query('SELECT hidden_write($1) AS h', [8])).rows).toEqual([{ h: 8 }]);
      for (const i of [9, 10]) {
        const named = { name: 'named', text: 'SELECT hidden_write($1) AS h', values: [i] };
        expect((await client.query(named)).rows).toEqual([{ h: i }]);
      }
      expect((await client.query('SELECT count(*)::int AS n FROM t')).rows).toEqual([{ n: 4 }]);
      // Each text once, however it comes.
      expect(proxy.events.filter((event) => event === 'retried')).toHaveLength(2);
      expect(proxy.commits.prepared).toHaveLength(4);
    });

    it('knows from the catalog what writes', async () => {
      proxy.names.current = {
        volatileNames: new Set(['hidden_write']),
        taintedRelations: new Set(['v']),
        hidesLocks: false,
      };
      const client = await proxy.connect();
      await client.query('SELECT hidden_write(1)');
      expect(proxy.events).not.toContain('retried');
      expect(proxy.commits.prepared).toHaveLength(1);
    });

    it('explains a hidden write behind rows that were sent already', async () => {
      const raw = await RawClient.connect(proxy.port);
      raw.send(send.query('SELECT 1; SELECT hidden_write(1)'));
      const [error] = (await raw.ready()).filter(({ type }) => type === 'E').map(({ body }) => errorFields(body));
      expect(error).toMatchObject({ C: '25006', H: expect.stringContaining('repeat it') as string });
      raw.send(send.query('SELECT 1; SELECT hidden_write(1)'));
      expect(lines(await raw.ready()).at(-1)).toBe('Z I');
      expect(proxy.commits.prepared).toHaveLength(1);
      raw.destroy();
    });

    it('hides that reads run read-only', async () => {
      const client = await proxy.connect();
      const raw = await RawClient.connect(proxy.port);
      raw.send(send.query('SHOW default_transaction_read_only'), send.query('SHOW transaction_read_only'));
      expect(lines(await raw.ready(2)).filter((line) => line.startsWith('D'))).toEqual(['D |off', 'D |off']);
      raw.send(send.query("SELECT current_setting('transaction_read_only')"));
      expect(lines(await raw.ready())).toContain('D |off');
      expect((await client.query(extended('SHOW default_transaction_read_only'))).rows).toEqual([
        { default_transaction_read_only: 'off' },
      ]);
      expect((await client.query(extended('SHOW transaction_read_only'))).rows).toEqual([
        { transaction_read_only: 'off' },
      ]);
      await client.query('SET default_transaction_read_only = on');
      expect((await client.query(extended('SHOW transaction_read_only'))).rows).toEqual([
        { transaction_read_only: 'on' },
      ]);
      await expect(client.query('INSERT INTO t VALUES (1)')).rejects.toMatchObject({ code: '25006' });
      await client.query('BEGIN');
      await expect(client.query('INSERT INTO t VALUES (1)')).rejects.toMatchObject({ code: '25006' });
      await client.query('ROLLBACK');
      await client.query('BEGIN READ WRITE');
      await client.query('INSERT INTO t VALUES (1)');
      await client.query('COMMIT');
      expect((await client.query('SHOW default_transaction_read_only')).rows).toEqual([
        { default_transaction_read_only: 'on' },
      ]);
      await client.query('RESET ALL');
      await client.query('INSERT INTO t VALUES (2)');
      await client.query('SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY');
      await expect(client.query('INSERT INTO t VALUES (3)')).rejects.toMatchObject({ code: '25006' });
      raw.destroy();
    });

    it.each([
      ['in one Query', [send.query('SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1)')]],
      ['in one batch', [send.run('SET TRANSACTION READ WRITE'), send.run('INSERT INTO t VALUES (1)'), send.sync()]],
    ])('coordinates what a client writes %s that is read-only unless it says otherwise', async (_how, say) => {
      const raw = await RawClient.connect(proxy.port, { default_transaction_read_only: 'on' });
      raw.send(...say);
      expect(lines(await raw.ready())).toContain('C INSERT 0 1');
      expect(proxy.commits.prepared).toHaveLength(1);
      raw.destroy();
    });

    it('lets nothing out of the transaction of a client that is read-only unless it says otherwise', async () => {
      const client = await proxy.connect({ options: '-c default_transaction_read_only=on' });
      const leaving = 'DO $$ BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1); END $$';
      await expect(client.query(leaving)).rejects.toMatchObject({ code: '2D000' });
      await expect(client.query(extended(leaving))).rejects.toMatchObject({ code: '2D000' });
      expect((await client.query('SELECT a FROM t')).rows).toEqual([]);
    });

    it('announces the schema statements of a client that is read-only unless it says otherwise', async () => {
      const client = await proxy.connect({ options: '-c default_transaction_read_only=on' });
      proxy.announced.length = 0;
      const refused = { code: '25006' };
      for (const way of [(text: string) => text, extended]) {
        await expect(client.query(way('CREATE ROLE reader'))).rejects.toMatchObject(refused);
        await client.query('BEGIN');
        await expect(client.query(way('CREATE ROLE reader'))).rejects.toMatchObject(refused);
        await client.query('ROLLBACK');
        await client.query('BEGIN READ WRITE');
        await client.query(way('CREATE ROLE reader'));
        await client.query(way('DROP ROLE reader'));
        await client.query('COMMIT');
      }
      expect(proxy.commits.prepared).toHaveLength(2);
      const done = proxy.announced.map(({ statement }) => statement).filter((text) => text.startsWith('DROP'));
      expect(done).toHaveLength(2);
    });

    it('reports the client its own value at startup', async () => {
      const seen: string[] = [];
      const ways: Record<string, string>[] = [
        {},
        { options: '-c default_transaction_read_only=on' },
        { default_transaction_read_only: 'on' },
      ];
      for (const parameters of ways) {
        const raw = await RawClient.connect(proxy.port, parameters);
        raw.send(send.query('SHOW default_transaction_read_only'));
        seen.push(...lines(await raw.ready()).filter((line) => line.startsWith('D')));
        raw.destroy();
      }
      expect(seen).toEqual(['D |off', 'D |on', 'D |on']);
    });

    it('arms the net again after a function has lifted it', async () => {
      const client = await proxy.connect();
      await client.query('SELECT lift()');
      await client.query('SELECT hidden_write(1)');
      expect(proxy.commits.prepared).toHaveLength(1);
      expect((await client.query('SHOW default_transaction_read_only')).rows).toEqual([
        { default_transaction_read_only: 'off' },
      ]);
    });

    it('announces schema statements in their transaction', async () => {
      const client = await proxy.connect();
      await client.query('CREATE TABLE made (a int)');
      await client.query('BEGIN');
      await client.query('ALTER TABLE made ADD COLUMN b int');
      await client.query(extended('CREATE INDEX ON made (b)'));
      await client.query('INSERT INTO made VALUES (1, 2)');
      await client.query('COMMIT');
      await client.query('INSERT INTO made VALUES (2, 3); DROP TABLE made; SELECT 1');
      expect(proxy.announced.map(({ statement }) => statement)).toEqual([
        'CREATE TABLE made (a int)',
        'ALTER TABLE made ADD COLUMN b int',
        'CREATE INDEX ON made (b)',
        'DROP TABLE made',
      ]);
      expect(proxy.announced[0]).toMatchObject({ role: 'postgres', settings: { search_path: '"$user", public' } });
      expect(proxy.commits.prepared).toHaveLength(3);
    });

    it('refuses what it cannot replicate, and fails the transaction it stands in', async () => {
      const client = await proxy.connect();
      for (const sql of [
        'CREATE TEMP TABLE x ()',
        'SELECT 1 INTO x',
        "SELECT setval('s', 1)",
        'NOTIFY n',
        "PREPARE TRANSACTION 'x'",
      ]) {
        await expect(client.query(sql)).rejects.toMatchObject({ code: '0A000' });
        await expect(client.query(extended(sql))).rejects.toMatchObject({ code: '0A000' });
      }
      await client.query('BEGIN');
      await client.query('INSERT INTO t VALUES (1)');
      await expect(client.query('CREATE TABLE x AS SELECT 1')).rejects.toMatchObject({ code: '0A000' });
      await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '25P02' });
      expect((await client.query('COMMIT')).command).toBe('ROLLBACK');
    });

    it('forwards what PREPARE TRANSACTION refuses, with a hint', async () => {
      const client = await proxy.connect();
      await client.query('BEGIN');
      await client.query('INSERT INTO t VALUES (1)');
      await client.query('LISTEN x');
      await expect(client.query('COMMIT')).rejects.toMatchObject({
        code: '0A000',
        hint: expect.stringContaining('LISTEN') as string,
      });
      await client.query('BEGIN');
      await client.query('INSERT INTO child VALUES (99)');
      await expect(client.query('COMMIT')).rejects.toMatchObject({ code: '23503' });
      await expect(client.query('INSERT INTO child VALUES (99)')).rejects.toMatchObject({ code: '23503' });
      await client.query('SELECT 1');
      expect(proxy.commits.failures.map(({ sqlstate }) => sqlstate).slice(-3)).toEqual(['0A000', '23503', '23503']);
    });

    it.each([
      ['lo_create', 'PERFORM lo_create(991)'],
      ['lo_from_bytea', "PERFORM lo_from_bytea(991, 'x')"],
      ['lo_put', "PERFORM lo_put(990, 0, 'y')"],
      ['lo_unlink', 'PERFORM lo_unlink(990)'],
      ['a subtransaction', 'BEGIN PERFORM lo_create(991); EXCEPTION WHEN division_by_zero THEN NULL; END'],
    ])('refuses large objects changed inside of a block, and nothing after it: %s', async (_what, statement) => {
      const admin = await proxy.postgres.connect();
      await admin.query("SELECT lo_from_bytea(990, 'kept') WHERE NOT EXISTS (SELECT FROM pg_largeobject_metadata)");
      const client = await proxy.connect();
      const hidden = `DO $$ BEGIN ${statement}; END $$`;
      for (const text of [hidden, `INSERT INTO t VALUES (1); ${hidden}`]) {
        await expect(client.query(text)).rejects.toMatchObject({ code: '0A000', message: /large objects/ });
      }
      await client.query('BEGIN');
      await client.query(hidden);
      await client.query('ROLLBACK');
      await client.query('INSERT INTO t VALUES (2)');
      const objects = await admin.query('SELECT oid::int, lo_get(oid)::text AS data FROM pg_largeobject_metadata');
      expect(objects.rows).toEqual([{ oid: 990, data: `\\x${Buffer.from('kept').toString('hex')}` }]);
      expect((await admin.query('SELECT a FROM t')).rows).toEqual([{ a: 2 }]);
      await admin.end();
    });

    it('lets no cursor WITH HOLD write at the end of a transaction that wrote nothing', async () => {
      const client = await proxy.connect();
      for (const way of [(text: string) => text, extended]) {
        await client.query('BEGIN');
        await client.query('DECLARE c CURSOR WITH HOLD FOR SELECT hidden_write(i) FROM generate_series(1, 3) i');
        await expect(client.query(way('COMMIT'))).rejects.toMatchObject({ code: '25006' });
        // Where it can't be told whether it would.
        await client.query('BEGIN');
        await client.query(way('SAVEPOINT s'));
        await client.query('DECLARE c CURSOR WITH HOLD FOR SELECT hidden_write(i) FROM generate_series(1, 3) i');
        await expect(client.query(way('COMMIT'))).rejects.toMatchObject({ code: '0A000' });
        expect((await client.query('SELECT a FROM t')).rows).toEqual([]);
        await client.query('BEGIN');
        await client.query('DECLARE c CURSOR WITH HOLD FOR SELECT 1 AS a');
        await client.query(way('COMMIT AND CHAIN'));
        expect((await client.query('SHOW transaction_read_only')).rows).toEqual([{ transaction_read_only: 'off' }]);
        await client.query('COMMIT');
        // One that is there already does not matter.
        await client.query('BEGIN; SAVEPOINT s; COMMIT');
        expect((await client.query('FETCH ALL FROM c')).rows).toEqual([{ a: 1 }]);
        await client.query('CLOSE c');
      }
    });

    it('lets notices of deferred triggers through', async () => {
      const client = await proxy.connect();
      const notices: (string | undefined)[] = [];
      client.on('notice', ({ message }) => notices.push(message));
      await client.query('INSERT INTO noisy VALUES (1)');
      expect(notices).toEqual(['deferred']);
    });

    it('runs local maintenance and session commands straight', async () => {
      const client = await proxy.connect();
      for (const sql of [
        'VACUUM t',
        'ANALYZE t',
        'CHECKPOINT',
        'REINDEX TABLE t',
        'LISTEN x',
        'UNLISTEN *',
        'SET work_mem = 1000',
        'DISCARD ALL',
      ]) {
        await client.query(sql);
      }
      expect(proxy.commits.prepared).toHaveLength(0);
      await client.query('INSERT INTO t VALUES ($1)', [1]);
      expect(proxy.commits.prepared).toHaveLength(1);
    });

    it('keeps AND CHAIN and the modes of the transaction', async () => {
      const client = await proxy.connect();
      await client.query('BEGIN ISOLATION LEVEL REPEATABLE READ');
      await client.query('INSERT INTO t VALUES (1)');
      await client.query('COMMIT AND CHAIN');
      expect((await client.query('SHOW transaction_isolation')).rows).toEqual([
        { transaction_isolation: 'repeatable read' },
      ]);
      await client.query('INSERT INTO t VALUES (2)');
      await client.query('COMMIT');
      expect(proxy.commits.prepared).toHaveLength(2);
    });

    it('refuses to write in a SERIALIZABLE transaction, and lets it read', async () => {
      const client = await proxy.connect();
      await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE');
      await client.query('SELECT count(*) FROM t');
      await client.query('COMMIT');
      await client.query('BEGIN ISOLATION LEVEL SERIALIZABLE');
      await client.query('INSERT INTO t VALUES (1)');
      await expect(client.query('COMMIT')).rejects.toMatchObject({ code: '0A000' });
      expect(proxy.commits.prepared).toHaveLength(0);
    });

    it('waits for every member when the session asks for remote_apply', async () => {
      const levels: string[] = [];
      const begin = proxy.commits.begin.bind(proxy.commits);
      proxy.commits.begin = (gid, ...rest: unknown[]) => {
        levels.push(String(rest[1]));
        return begin(gid);
      };
      const client = await proxy.connect();
      await client.query('INSERT INTO t VALUES (1)');
      await client.query('SET synchronous_commit = remote_apply');
      await client.query('INSERT INTO t VALUES (2)');
      expect(levels).toEqual(['on', 'remote_apply']);
      proxy.commits.begin = begin;
    });

    it('refuses reads, too, where the configuration says so, and keeps the connection', async () => {
      const client = await proxy.connect();
      await client.query('BEGIN');
      await client.query('SELECT 1');
      proxy.commits.refusingReads = new PgError('57P03', 'cut off');
      await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '57P03' });
      // As after any other error.
      await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '25P02' });
      expect((await client.query('ROLLBACK')).command).toBe('ROLLBACK');
      await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '57P03' });
      await expect(client.query('SELECT $1::int', [1])).rejects.toMatchObject({ code: '57P03' });
      const raw = await RawClient.connect(proxy.port);
      raw.send(send.run('SELECT 1'), send.run('SELECT 2'), send.sync(), send.query('SELECT 3'));
      expect(lines(await raw.ready(2))).toEqual(['E ERROR 57P03 cut off', 'Z I', 'E ERROR 57P03 cut off', 'Z I']);
      proxy.commits.refusingReads = undefined;
      expect((await client.query('SELECT $1::int AS one', [1])).rows).toEqual([{ one: 1 }]);
      raw.send(send.run('SELECT 1'), send.sync());
      expect(lines(await raw.ready(1)).at(-1)).toBe('Z I');
      raw.destroy();
    });

    it('wraps a function call', async () => {
      const admin = await proxy.postgres.connect();
      const { rows } = await admin.query<{ oid: number }>("SELECT 'hidden_write'::regproc::oid::int AS oid");
      const raw = await RawClient.connect(proxy.port);
      raw.send(send.functionCall(rows[0]?.oid ?? 0, '5'), send.functionCall(957, '1'));
      const answer = lines(await raw.ready(2));
      expect(answer[0]).toMatch(/^V /);
      expect(answer.slice(1, 3)).toEqual(['Z I', expect.stringContaining('0A000')]);
      expect(proxy.commits.prepared).toHaveLength(1);
      raw.destroy();
    });

    it('refuses databases that are not coordinated', async () => {
      await expect(proxy.connect({ database: 'template1' })).rejects.toMatchObject({ code: '0A000' });
    });

    it('says why when the server goes away', async () => {
      const client = await proxy.connect();
      const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
      const ended = new Promise<Error>((resolve) => client.once('error', resolve));
      const admin = await proxy.postgres.connect();
      await admin.query('SELECT pg_terminate_backend($1)', [rows[0]?.pid]);
      expect(await ended).toMatchObject({ code: '57P01' });
    });
  },
);
