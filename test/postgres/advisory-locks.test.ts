import pg from 'pg';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { cancelOnServer } from '../../src/session/cancel.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { installedBin } from '../support/postgres.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const FAILOVER = { timeoutMs: 60_000 };

describe.each([
  ['the PostgreSQL from npm', undefined],
  ['PostgreSQL 15', installedBin],
])(
  'advisory locks of a cluster, %s',
  (_name, postgresBin) => {
    let cluster: TestCluster;
    const open = new Set<pg.Client>();

    beforeAll(async () => {
      cluster = await (await startCluster({ postgresBin })).ready();
      const client = await connect(1);
      await client.query('CREATE TABLE t (id int PRIMARY KEY, n int)');
      await client.query('SET synchronous_commit = remote_apply');
      await client.query('INSERT INTO t VALUES (1, 0)');
      await client.end();
    });
    afterEach(async () => {
      await Promise.all([...open].map((client) => client.end().catch(() => undefined)));
      open.clear();
    });
    afterAll(async () => {
      await cluster.stop();
    });

    async function connect(node: number): Promise<pg.Client> {
      const { hostname: host, port } = new URL(cluster.node(node).uri);
      const client = new pg.Client({ host, port: Number(port), user: 'postgres', database: 'postgres' });
      client.on('error', () => undefined);
      open.add(client);
      await client.connect();
      return client;
    }

    const value = async (client: pg.Client, sql: string, parameters?: unknown[]): Promise<unknown> =>
      (await client.query<{ v: unknown }>(sql, parameters)).rows[0].v;
    const tries = (client: pg.Client, key: string) => value(client, `SELECT pg_try_advisory_lock(${key}) AS v`);
    const failure = (work: Promise<unknown>): Promise<pg.DatabaseError> =>
      work.then(
        () => Promise.reject(new Error('it did not fail')),
        (error: unknown) => error as pg.DatabaseError,
      );

    /** What a statement came to, and whether it has. */
    function begin(work: Promise<unknown>): { done: boolean; readonly result: Promise<unknown> } {
      const state = { done: false, result: work.finally(() => (state.done = true)) };
      state.result.catch(() => undefined);
      return state;
    }

    /** The key is waited for by one session at least: one that tries is refused, and would be anyway; the log tells the rest. */
    async function isFree(key: string, node = 3): Promise<boolean> {
      const client = await connect(node);
      const free = (await tries(client, key)) === true;
      await client.end();
      open.delete(client);
      return free;
    }

    async function leading(asked = 1): Promise<number> {
      const response = await fetch(new URL('/status', cluster.node(asked).metrics));
      return ((await response.json()) as { leader: number | null }).leader ?? 0;
    }

    it('exclude sessions on all nodes, in both protocols, with constants and parameters', async () => {
      const [a, b, c] = [await connect(1), await connect(2), await connect(3)];
      await a.query('SELECT pg_advisory_lock(7)');
      for (const client of [b, c]) {
        expect(await tries(client, '7')).toBe(false);
        expect(await value(client, 'SELECT pg_try_advisory_lock($1) AS v', [7])).toBe(false);
        expect(await value(client, 'SELECT pg_try_advisory_lock($1::int8 + 0) AS v', ['7'])).toBe(false);
        expect(await value(client, 'SELECT pg_try_advisory_xact_lock(7) AS v')).toBe(false);
        expect(await value(client, 'SELECT pg_try_advisory_lock_shared(7) AS v')).toBe(false);
      }
      // Another key, and a key of two numbers.
      expect(await tries(b, '8')).toBe(true);
      expect(await tries(b, '0, 7')).toBe(true);
      expect(await value(c, 'SELECT pg_try_advisory_lock($1, $2) AS v', [0, 7])).toBe(false);
      expect(await value(a, 'SELECT pg_advisory_unlock($1) AS v', [7])).toBe(true);
      expect(await value(c, 'SELECT pg_try_advisory_lock($1) AS v', [7])).toBe(true);
      expect(await tries(b, '7')).toBe(false);
    });

    it('have the key that the server reads in the encoding of the client', async () => {
      const [a, b] = [await connect(1), await connect(2)];
      await a.query('SET client_encoding = LATIN1');
      await b.query('SET client_encoding = LATIN1');
      // The driver sends UTF-8, two bytes, which are two letters of LATIN1.
      await a.query("SELECT pg_advisory_lock(hashtext('é'))");
      expect(await value(b, "SELECT pg_try_advisory_lock(hashtext('é')) AS v", [])).toBe(false);
      await b.query('SET client_encoding = UTF8');
      expect(await tries(b, "hashtext('é')")).toBe(true);
      expect(await tries(b, "hashtext('Ã©')")).toBe(false);
    });

    it('keep the names and types of what a statement answers', async () => {
      const [a, b] = [await connect(1), await connect(2)];
      await a.query("SELECT pg_advisory_lock(hashtext('migration')), pg_advisory_lock(2)");
      for (const parameters of [undefined, []]) {
        const { rows, fields } = await b.query({
          text: "SELECT pg_try_advisory_lock(hashtext('migration')), pg_try_advisory_lock(3) AS mine, pg_try_advisory_lock(2)::text, 5 AS five",
          values: parameters,
          ...(parameters !== undefined && { name: 'prepared' }),
        });
        expect(rows).toEqual([{ pg_try_advisory_lock: 'false', mine: true, five: 5 }]);
        expect(fields.map(({ name, dataTypeID }) => [name, dataTypeID])).toEqual([
          ['pg_try_advisory_lock', 16],
          ['mine', 16],
          ['pg_try_advisory_lock', 25],
          ['five', 23],
        ]);
      }
      expect(await tries(await connect(3), '3')).toBe(false);
      expect((await b.query('SELECT * FROM pg_advisory_unlock(3) AS v')).rows).toEqual([{ v: true }]);
    });

    it('count how often a session has a lock, and warn as PostgreSQL does', async () => {
      const [a, b] = [await connect(1), await connect(2)];
      const warnings: string[] = [];
      a.on('notice', ({ message }) => warnings.push(message ?? ''));
      await a.query('SELECT pg_advisory_lock(20); SELECT pg_advisory_lock(20)');
      expect(await value(a, 'SELECT pg_advisory_unlock(20) AS v')).toBe(true);
      expect(await tries(b, '20')).toBe(false);
      expect(await value(a, 'SELECT pg_advisory_unlock(20) AS v')).toBe(true);
      expect(await tries(b, '20')).toBe(true);
      expect(await value(a, 'SELECT pg_advisory_unlock(20) AS v')).toBe(false);
      expect(warnings).toEqual(["you don't own a lock of type ExclusiveLock"]);
      await a.query('SELECT pg_advisory_lock(21), pg_advisory_lock(22), pg_advisory_lock_shared(23)');
      for (const key of [21, 22]) expect(await tries(b, String(key))).toBe(false);
      await a.query('SELECT pg_advisory_unlock_all()');
      for (const key of [21, 22, 23]) expect(await tries(b, String(key))).toBe(true);
    });

    it('are shared, or not', async () => {
      const [a, b, c] = [await connect(1), await connect(2), await connect(3)];
      await a.query('SELECT pg_advisory_lock_shared(30)');
      await b.query('SELECT pg_advisory_lock_shared($1)', [30]);
      expect(await tries(c, '30')).toBe(false);
      await a.query('SELECT pg_advisory_unlock_shared(30)');
      expect(await tries(c, '30')).toBe(false);
      // The only holder may have both.
      expect(await tries(b, '30')).toBe(true);
      await b.query('SELECT pg_advisory_unlock_shared(30)');
      expect(await value(c, 'SELECT pg_try_advisory_lock_shared(30) AS v')).toBe(false);
      await b.query('SELECT pg_advisory_unlock(30)');
      expect(await value(c, 'SELECT pg_try_advisory_lock_shared(30) AS v')).toBe(true);
    });

    it('end with the transaction, or the savepoint, that they belong to', async () => {
      const [a, b] = [await connect(1), await connect(2)];
      const tx = (key: number) => value(b, `SELECT pg_try_advisory_xact_lock(${key}) AS v`);
      await a.query('BEGIN');
      await a.query('SELECT pg_advisory_xact_lock(40)');
      await a.query('UPDATE t SET n = n + 1 WHERE id = 1');
      expect(await tx(40)).toBe(false);
      await a.query('COMMIT');
      expect(await tx(40)).toBe(true);

      await a.query('BEGIN; SELECT pg_advisory_xact_lock(40); SELECT pg_advisory_lock(41)');
      await a.query('ROLLBACK');
      expect([await tx(40), await tx(41)]).toEqual([true, false]);
      await a.query('SELECT pg_advisory_unlock(41)');

      await a.query('BEGIN');
      await a.query('SELECT pg_advisory_xact_lock($1)', [42]);
      await a.query('SAVEPOINT s');
      await a.query('SELECT pg_advisory_xact_lock($1)', [43]);
      await a.query('SELECT pg_advisory_lock($1)', [44]);
      expect([await tx(42), await tx(43), await tx(44)]).toEqual([false, false, false]);
      await a.query('ROLLBACK TO s');
      await waitFor('what was taken after the savepoint is free', () => tx(43));
      expect([await tx(42), await tx(44)]).toEqual([false, false]);
      // A failed transaction keeps its locks until it is rolled back.
      await failure(a.query('SELECT 1/0'));
      expect(await tx(42)).toBe(false);
      await a.query('ROLLBACK');
      expect([await tx(42), await tx(44)]).toEqual([true, false]);
      await a.query('DISCARD ALL');
      await waitFor('DISCARD ALL frees what is left', () => tx(44));

      // An implicit transaction of several statements, and one of a single one.
      await a.query('SELECT pg_advisory_xact_lock(45); INSERT INTO t VALUES (45, 0)');
      await a.query('SELECT pg_advisory_xact_lock(46)');
      expect([await tx(45), await tx(46)]).toEqual([true, true]);
    });

    it('are granted in order, with all that the one before has committed', async () => {
      const [a, b, c] = [await connect(1), await connect(2), await connect(3)];
      await a.query('SELECT pg_advisory_lock(50)');
      const order: string[] = [];
      const take = async (client: pg.Client, name: string): Promise<void> => {
        await client.query('SELECT pg_advisory_lock($1)', [50]);
        order.push(`${name} ${String(await value(client, 'SELECT n AS v FROM t WHERE id = 1'))}`);
        await client.query('UPDATE t SET n = n + 1 WHERE id = 1');
        await client.query('SELECT pg_advisory_unlock(50)');
      };
      await a.query('UPDATE t SET n = 100 WHERE id = 1');
      const second = take(b, 'b');
      // It waits: a session that shares nothing with it is refused behind it even when the holder only shares.
      await waitFor('b waits', () => waits(2, 50));
      const third = take(c, 'c');
      await waitFor('c waits', () => waits(3, 50));
      await a.query('SELECT pg_advisory_unlock(50)');
      await Promise.all([second, third]);
      expect(order).toEqual(['b 100', 'c 101']);
    });

    /** What the proxies' status says of who waits. */
    async function waits(node: number, key: number): Promise<boolean> {
      const response = await fetch(new URL('/status', cluster.node(1).metrics));
      const { advisoryLocks } = (await response.json()) as {
        advisoryLocks: { lock: string; waiters: { node: number }[] }[];
      };
      return advisoryLocks.some(
        (one) => one.lock === `postgres:${key}` && one.waiters.some((who) => who.node === node),
      );
    }

    it('let a wait end by lock_timeout, statement_timeout or a cancel request', async () => {
      const [a, b, c] = [await connect(1), await connect(2), await connect(3)];
      await a.query('SELECT pg_advisory_lock(60)');
      await b.query("SET lock_timeout = '100ms'");
      expect(await failure(b.query('SELECT pg_advisory_lock(60)'))).toMatchObject({ code: '55P03' });
      await b.query('BEGIN');
      expect(await failure(b.query('SELECT pg_advisory_xact_lock($1)', [60]))).toMatchObject({ code: '55P03' });
      expect(await failure(b.query('SELECT 1'))).toMatchObject({ code: '25P02' });
      await b.query('ROLLBACK');
      await b.query("RESET lock_timeout; SET statement_timeout = '100ms'");
      expect(await failure(b.query('SELECT pg_advisory_lock(60)'))).toMatchObject({ code: '57014' });
      await b.query('RESET statement_timeout');
      const waiting = begin(c.query('SELECT pg_advisory_lock(60)'));
      await waitFor('c waits', () => waits(3, 60));
      const { processID, secretKey } = c as unknown as { processID: number; secretKey: number };
      const key = Buffer.alloc(4);
      key.writeInt32BE(secretKey);
      const { hostname, port } = new URL(cluster.node(3).uri);
      await cancelOnServer({ host: hostname, port: Number(port) }, processID, key);
      expect(await failure(waiting.result)).toMatchObject({ code: '57014' });
      // Nobody waits any more, and none of them got it.
      await a.query('SELECT pg_advisory_unlock(60)');
      expect(await tries(a, '60')).toBe(true);
      await a.query('SELECT pg_advisory_unlock(60)');
      expect([await tries(c, '60'), await tries(b, '60')]).toEqual([true, false]);
    });

    it('find deadlocks', async () => {
      const [a, b, c] = [await connect(1), await connect(2), await connect(3)];
      await a.query('SELECT pg_advisory_lock(70)');
      await b.query('SELECT pg_advisory_lock(71)');
      await c.query('BEGIN; SELECT pg_advisory_xact_lock(72)');
      const one = begin(a.query('SELECT pg_advisory_lock(71)'));
      await waitFor('a waits', () => waits(1, 71));
      const two = begin(b.query('SELECT pg_advisory_lock(72)'));
      await waitFor('b waits', () => waits(2, 72));
      const error = await failure(c.query('SELECT pg_advisory_xact_lock(70)'));
      expect(error).toMatchObject({ code: '40P01' });
      expect(error.detail).toMatch(/^Session \d+ of node 3 waits for ExclusiveLock on advisory lock postgres:70\./);
      await c.query('ROLLBACK');
      await two.result;
      await b.query('SELECT pg_advisory_unlock_all()');
      await one.result;
    });

    it('find deadlocks with locks of rows and tables', async () => {
      const [a, b, c] = [await connect(1), await connect(1), await connect(1)];
      await a.query('SELECT pg_advisory_lock(73)');
      for (const [held, wanted] of [
        ['UPDATE t SET n = n + 1 WHERE id = 1', 'UPDATE t SET n = n + 1 WHERE id = 1'],
        ['LOCK TABLE t IN SHARE MODE', 'UPDATE t SET n = n + 1 WHERE id = 1'],
      ]) {
        await b.query('BEGIN');
        await b.query(held);
        const one = begin(a.query(wanted));
        const two = begin(failure(b.query('SELECT pg_advisory_xact_lock($1)', [73])));
        const error = (await two.result) as pg.DatabaseError;
        expect(error).toMatchObject({ code: '40P01', message: 'deadlock detected' });
        expect(error.detail).toMatch(
          /^Session \d+ of node 1 waits for ExclusiveLock on advisory lock postgres:73\. Session \d+ of node 1 waits in PostgreSQL for session \d+ of that node\.$/,
        );
        // As on one server, the other goes on before the transaction that failed is rolled back.
        await one.result;
        await b.query('ROLLBACK');
      }

      // Through a third one in PostgreSQL, and a fourth that only waits for the lock as well.
      await c.query('BEGIN');
      await c.query('LOCK TABLE t IN ROW EXCLUSIVE MODE');
      await b.query('BEGIN');
      await b.query('SELECT * FROM t WHERE id = 1 FOR UPDATE');
      const third = begin(c.query('UPDATE t SET n = n + 1 WHERE id = 1'));
      const one = begin(a.query('BEGIN; LOCK TABLE t'));
      const other = await connect(2);
      const bystander = begin(other.query('SELECT pg_advisory_lock(73)'));
      await waitFor('a bystander waits', () => waits(2, 73));
      expect(await failure(b.query('SELECT pg_advisory_xact_lock(73)'))).toMatchObject({ code: '40P01' });
      await third.result;
      await b.query('ROLLBACK');
      await c.query('COMMIT');
      await one.result;
      await a.query('ROLLBACK');
      expect(bystander.done).toBe(false);
      await a.query('SELECT pg_advisory_unlock_all()');
      await bystander.result;
    });

    it('find deadlocks with locks of rows on two nodes', async () => {
      const [a, b, c, d] = [await connect(1), await connect(1), await connect(2), await connect(2)];
      await a.query('CREATE TABLE IF NOT EXISTS u (id int PRIMARY KEY)');
      await a.query('SET synchronous_commit = remote_apply');
      await a.query('INSERT INTO u VALUES (1), (2) ON CONFLICT DO NOTHING');
      await a.query('SELECT pg_advisory_lock(74)');
      await c.query('SELECT pg_advisory_lock(75)');
      await b.query('BEGIN');
      await b.query('SELECT * FROM u WHERE id = 1 FOR UPDATE');
      await d.query('BEGIN');
      await d.query('SELECT * FROM u WHERE id = 2 FOR UPDATE');
      // a → b → c → d → a
      const [holders, waiters] = [
        [
          begin(a.query('SELECT * FROM u WHERE id = 1 FOR UPDATE')),
          begin(c.query('SELECT * FROM u WHERE id = 2 FOR UPDATE')),
        ],
        [begin(b.query('SELECT pg_advisory_xact_lock(75)')), begin(d.query('SELECT pg_advisory_xact_lock(74)'))],
      ];
      const error = await failure(Promise.all(waiters.map(({ result }) => result)));
      expect(error).toMatchObject({ code: '40P01' });
      expect(error.detail?.split('. ')).toHaveLength(4);
      await Promise.race(holders.map(({ result }) => result));
      // Of the rest each goes on when the one before it has ended.
      await Promise.all([
        ...[a, c].map((one) => one.query('SELECT pg_advisory_unlock_all()')),
        ...[b, d].map((one) => one.query('ROLLBACK')),
      ]);
      const outcomes = await Promise.allSettled(waiters.map(({ result }) => result));
      expect(outcomes.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    });

    it('are freed when their session ends, however it does', async () => {
      const [a, b] = [await connect(1), await connect(2)];
      await a.query('SELECT pg_advisory_lock(80)');
      const waiting = begin(b.query('SELECT pg_advisory_lock(80)'));
      await waitFor('b waits', () => waits(2, 80));
      const { stream } = (a as unknown as { connection: { stream: { destroy(): void } } }).connection;
      stream.destroy();
      await waiting.result;
      const pid = await value(b, 'SELECT pg_backend_pid() AS v');
      const direct = new pg.Client({ connectionString: cluster.node(2).postgresUri });
      await direct.connect();
      await direct.query('SELECT pg_terminate_backend($1)', [pid]);
      await direct.end();
      await waitFor('the lock of a terminated session is free', () => isFree('80'));
      const leaves = await connect(1);
      await leaves.query('SELECT pg_advisory_lock(80)');
      await leaves.end();
      await waitFor('the lock of a session that left is free', () => isFree('80'));
    });

    it.each([['simple'], ['extended']])(
      'are waited for by transactions that can lose a conflict, %s',
      async (protocol) => {
        const [a, b, c] = [await connect(1), await connect(2), await connect(3)];
        await a.query('SELECT pg_advisory_lock(85)');
        await b.query('BEGIN');
        await b.query('UPDATE t SET n = n + 1 WHERE id = 1');
        const waiting = begin(
          protocol === 'simple' ? b.query('SELECT pg_advisory_lock(85)') : b.query('SELECT pg_advisory_lock($1)', [85]),
        );
        await waitFor('b waits', () => waits(2, 85));
        await c.query('UPDATE t SET n = n + 1 WHERE id = 1');
        expect(await failure(waiting.result)).toMatchObject({ code: '40001' });
        expect(await failure(b.query('SELECT 1'))).toMatchObject({ code: '25P02' });
        await b.query('ROLLBACK');
        await a.query('SELECT pg_advisory_unlock(85)');
        expect(await tries(c, '85')).toBe(true);
      },
    );

    it('are had by a session across its transactions, which write', async () => {
      const [a, b] = [await connect(1), await connect(2)];
      await a.query('SELECT pg_advisory_lock(86)');
      for (const sql of ['INSERT INTO t VALUES (86, 0)', 'BEGIN; DELETE FROM t WHERE id = 86; COMMIT', 'ANALYZE t'])
        await a.query(sql);
      await a.query('CREATE TABLE made (id int)');
      await a.query('BEGIN; DROP TABLE made; ROLLBACK');
      await a.query('DROP TABLE made');
      expect(await tries(b, '86')).toBe(false);
      const held = `SELECT objid::int AS v FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()`;
      expect(await value(a, held)).toBe(86);
    });

    it('refuse what they cannot follow', async () => {
      const a = await connect(1);
      await a.query(
        'CREATE FUNCTION takes() RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_advisory_xact_lock(1); END $$',
      );
      await a.query(
        'CREATE FUNCTION fires() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM takes(); RETURN new; END $$',
      );
      await a.query('CREATE TABLE watched (id int PRIMARY KEY)');
      await a.query('CREATE TRIGGER fires BEFORE INSERT ON watched FOR EACH ROW EXECUTE FUNCTION fires()');
      const refused = [
        'SELECT pg_advisory_lock(id) FROM t',
        'SELECT pg_try_advisory_lock(1) WHERE false',
        'WITH x AS (SELECT pg_try_advisory_lock(1)) SELECT * FROM x',
        'SELECT pg_advisory_lock((SELECT 1))',
        'SELECT pg_advisory_lock((random() * 10)::int)',
        'INSERT INTO t SELECT 5, pg_try_advisory_lock(1)::int',
        'DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$',
        'PREPARE p AS SELECT pg_advisory_lock(1)',
      ];
      for (const sql of refused) expect(await failure(a.query(sql)), sql).toMatchObject({ code: '0A000' });
      await waitFor('the proxy knows the function', async () => {
        const error = await failure(a.query('SELECT takes()'));
        return error.code === '0A000' && error.hint?.includes('advisory_locks');
      });
      expect(await failure(a.query('INSERT INTO watched VALUES (1)'))).toMatchObject({ code: '0A000' });
      expect(await value(a, 'SELECT count(*)::int AS v FROM watched')).toBe(0);
      expect(await value(a, `SELECT 'pg_advisory_lock(1)' AS v`)).toBe('pg_advisory_lock(1)');
      await a.query('DROP TABLE watched; DROP FUNCTION fires; DROP FUNCTION takes');
    });

    // No version of PostgreSQL has a part in these.
    if (postgresBin === undefined) {
      it('wait on while another node takes the lead', async () => {
        const leader = await leading();
        const [holder, waiter] = [1, 2, 3].filter((node) => node !== leader);
        const [a, b] = [await connect(holder), await connect(waiter)];
        await a.query('SELECT pg_advisory_lock(90)');
        const waiting = begin(b.query('SELECT pg_advisory_lock(90)'));
        await waitFor('it waits', () => waits(waiter, 90));
        await cluster.dev('kill', String(leader), 'proxy');
        await waitFor('another node leads', async () => ![0, leader].includes(await leading(holder)), FAILOVER);
        expect(waiting.done).toBe(false);
        expect(await value(a, 'SELECT pg_advisory_unlock(90) AS v')).toBe(true);
        await waiting.result;
        await cluster.dev('start', String(leader), 'proxy');
        await waitFor('all nodes are back', () => isReady(cluster, leader), FAILOVER);
      });

      it('are freed when the proxy of their session is killed', async () => {
        const [a, b] = [await connect(1), await connect(2)];
        await a.query('SELECT pg_advisory_lock(100)');
        const waiting = begin(b.query('SELECT pg_advisory_lock(100)'));
        await waitFor('b waits', () => waits(2, 100));
        await cluster.dev('kill', '1', 'proxy');
        await waiting.result;
        await cluster.dev('start', '1', 'proxy');
        await waitFor('node 1 is back', () => isReady(cluster, 1), FAILOVER);
      });

      it('end with their session on a node that is cut off, before another one gets them', async () => {
        const [a, b] = [await connect(3), await connect(1)];
        await a.query('SELECT pg_advisory_lock(110)');
        const ended = new Promise<Error>((resolve) => a.on('error', resolve));
        const events: string[] = [];
        void ended.then(() => events.push('ended'));
        const waiting = begin(b.query('SELECT pg_advisory_lock(110)').then(() => events.push('granted')));
        await waitFor('b waits', () => waits(1, 110));
        await cluster.dev('partition', '3', '1,2');
        await waiting.result;
        expect(await ended).toMatchObject({ code: '57P01' });
        expect(events).toEqual(['ended', 'granted']);
        const late = await connect(3);
        expect(await failure(late.query('SELECT pg_try_advisory_lock(111)'))).toMatchObject({ code: '57P03' });
        await cluster.dev('heal');
        await waitFor('node 3 is back', () => isReady(cluster, 3), FAILOVER);
        // It may not have heard yet that it was excluded.
        await waitFor('node 3 takes locks again', () => tries(late, '111'), FAILOVER);
        expect(await tries(late, '110')).toBe(false);
      });
    }
  },
  600_000,
);

describe('advisory locks by setting', () => {
  async function withCluster(settings: object, work: (connect: Connect) => Promise<void>): Promise<void> {
    const cluster = await (await startCluster({ nodes: 2, witness: true, settings: { ...settings } })).ready();
    const clients: pg.Client[] = [];
    try {
      await work(async (node, database) => {
        const { hostname: host, port } = new URL(cluster.node(node).uri);
        const client = new pg.Client({ host, port: Number(port), user: 'postgres', database });
        clients.push(client);
        await client.connect();
        return client;
      });
    } finally {
      for (const client of clients) await client.end();
      await cluster.stop();
    }
  }
  type Connect = (node: number, database: string) => Promise<pg.Client>;
  const tries = async (client: pg.Client) =>
    (await client.query<{ v: boolean }>('SELECT pg_try_advisory_lock(1) AS v')).rows[0].v;

  it('belong to a database', async () => {
    await withCluster({ databases: ['postgres', 'template1'] }, async (connect) => {
      expect(await tries(await connect(1, 'postgres'))).toBe(true);
      expect(await tries(await connect(2, 'template1'))).toBe(true);
      expect(await tries(await connect(2, 'postgres'))).toBe(false);
      expect(await tries(await connect(1, 'template1'))).toBe(false);
    });
  }, 300_000);

  it('are each node’s own where that is the setting', async () => {
    await withCluster({ advisory_locks: 'local' }, async (connect) => {
      expect(await tries(await connect(1, 'postgres'))).toBe(true);
      expect(await tries(await connect(2, 'postgres'))).toBe(true);
      expect(await tries(await connect(1, 'postgres'))).toBe(false);
      const client = await connect(2, 'postgres');
      await client.query('SELECT pg_advisory_lock(i) FROM generate_series(2, 3) i');
    });
  }, 300_000);
});
