import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest';
import { ApplyPool } from '../../src/replication/apply/apply-pool.ts';
import type { ApplyResult } from '../../src/replication/apply/apply-session.ts';
import { findBlockers } from '../../src/replication/apply/blockers.ts';
import { TransactionReplay } from '../../src/replication/apply/transaction-replay.ts';
import { holdOrigin } from '../../src/replication/origins.ts';
import { PgError } from '../../src/runtime/errors.ts';
import type { Gid } from '../../src/runtime/ids.ts';
import { installedBin } from '../support/postgres.ts';
import { ReplicationPair } from './replication-pair.ts';

const versions = [
  { name: '15', bin: installedBin },
  { name: '18', bin: undefined },
].filter(({ name, bin }) => name === '18' || bin !== undefined);

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe.each(versions)('replay, PostgreSQL $name', ({ bin }) => {
  let pair: ReplicationPair;

  beforeAll(async () => {
    pair = await ReplicationPair.start({ originBin: bin, targetBin: bin });
  });
  afterEach(() => pair.clear());
  afterAll(() => pair.stop());

  async function expectSame(table: string): Promise<string[]> {
    const [a, b] = await pair.tables(table);
    expect(b).toEqual(a);
    return a;
  }

  /** Resolves once the target's backend waits for a lock. */
  async function waiting(pid = pair.session.pid): Promise<void> {
    await expect
      .poll(async () => {
        const sql = `SELECT wait_event_type FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'`;
        return (await pair.control.ask(sql, [pid])).rowCount;
      })
      .toBe(1);
  }

  const failure = (result: ApplyResult) =>
    result.type === 'prepared' ? undefined : [result.type, result.error.sqlstate];

  describe('foreign keys', () => {
    beforeAll(() =>
      pair.both(`
        CREATE TABLE p (a int PRIMARY KEY, v text);
        CREATE TABLE p2 (a int, b text, UNIQUE (a, b), id int PRIMARY KEY);
        CREATE TABLE c (id int PRIMARY KEY, a int REFERENCES p DEFERRABLE, a2 int, b2 text, v text,
          CONSTRAINT two FOREIGN KEY (a2, b2) REFERENCES p2 (a, b));
        CREATE TABLE self (id int PRIMARY KEY, up int REFERENCES self);
        CREATE TABLE pp (a int PRIMARY KEY) PARTITION BY RANGE (a);
        CREATE TABLE pp1 PARTITION OF pp FOR VALUES FROM (0) TO (100);
        CREATE TABLE pp2 PARTITION OF pp FOR VALUES FROM (100) TO (200);
        CREATE TABLE pc (id int PRIMARY KEY, a bigint REFERENCES pp) PARTITION BY HASH (id);
        CREATE TABLE pc1 PARTITION OF pc FOR VALUES WITH (MODULUS 1, REMAINDER 0);
        INSERT INTO p VALUES (1), (2), (3); INSERT INTO p2 VALUES (1, 'x', 1), (2, 'y', 2); INSERT INTO pp VALUES (1), (150)`),
    );

    it('lets children in whose parents are there, or come later in the transaction', async () => {
      await pair.run(`INSERT INTO c VALUES (1, 1, 1, 'x'), (2, NULL, NULL, 'nobody'), (3, 3, 2, 'y')`);
      await pair.run('SET CONSTRAINTS ALL DEFERRED', 'INSERT INTO c VALUES (4, 40)', 'INSERT INTO p VALUES (40)');
      await pair.run('INSERT INTO self VALUES (1, 1), (2, 3), (3, 2)', 'UPDATE self SET up = 1 WHERE id = 3');
      await pair.run('INSERT INTO pc VALUES (1, 1), (2, 150)', 'UPDATE pc SET a = 150 WHERE id = 1');
      await pair.run('SET CONSTRAINTS ALL DEFERRED', 'UPDATE c SET a = 41 WHERE id = 4', 'INSERT INTO p VALUES (41)');
      for (const table of ['c', 'self', 'pc']) await expectSame(table);
    });

    it('asks for no parent of a row that the transaction removed again', async () => {
      await pair.run(
        'INSERT INTO p VALUES (50)',
        'INSERT INTO c VALUES (50, 50)',
        'DELETE FROM c WHERE id = 50',
        'DELETE FROM p WHERE a = 50',
      );
      await pair.run(
        'SET CONSTRAINTS ALL DEFERRED',
        'INSERT INTO c VALUES (51, 999)',
        'UPDATE c SET a = 1 WHERE id = 51',
      );
      await expectSame('c');
    });

    it('refuses a child whose parent is gone on this node, in PostgreSQL’s words', async () => {
      await pair.run('INSERT INTO c VALUES (100, 1)');
      await pair.b.query('DELETE FROM p WHERE a = 2');
      for (const sql of ['INSERT INTO c VALUES (9, 2)', 'UPDATE c SET a = 2 WHERE id = 100']) {
        await expect(pair.run(sql)).rejects.toMatchObject({
          sqlstate: '23503',
          message: 'insert or update on table "c" violates foreign key constraint "c_a_fkey"',
          detail: 'Key (a)=(2) is not present in table "p".',
          fields: { s: 'public', t: 'c', n: 'c_a_fkey' },
        });
      }
      await pair.b.query('INSERT INTO p VALUES (2)');
      await pair.b.query('DELETE FROM pp WHERE a = 1');
      await expect(pair.run('INSERT INTO pc VALUES (9, 1)')).rejects.toMatchObject({ sqlstate: '23503' });
      await pair.b.query('INSERT INTO pp VALUES (1)');
      await pair.run('INSERT INTO c VALUES (9, 2)');
    });

    it('locks the parent when the key is new, and only then', async () => {
      const locked = async () => {
        const { rows } = await pair.control.ask<{ n: number }>('SELECT count(*)::int AS n FROM p WHERE xmax <> 0');
        return rows[0]?.n;
      };
      await pair.b.query('DELETE FROM c; DELETE FROM p; INSERT INTO p VALUES (1), (2), (3)');
      await pair.a.query('DELETE FROM c; DELETE FROM p; INSERT INTO p VALUES (1), (2), (3)');
      await pair.both('INSERT INTO c (id, a, v) VALUES (1, 1, $$v$$)');
      await pair.both('VACUUM FREEZE p');
      const same = await pair.replay(`UPDATE c SET v = 'w' WHERE id = 1`);
      expect(await locked()).toBe(0);
      await pair.commit(same.gid);
      const other = await pair.replay('UPDATE c SET a = 2 WHERE id = 1');
      expect(await locked()).toBe(1);
      const deletion = pair.b.query('DELETE FROM p WHERE a = 2').catch((e: unknown) => (e as { code: string }).code);
      await pause(50);
      await Promise.all([pair.a, pair.control].map((client) => client.query(`COMMIT PREPARED '${other.gid}'`)));
      pair.finish(other.gid);
      // The child is there when the deletion goes on.
      expect(await deletion).toBe('23503');
    });

    it('waits for a parent that a prepared transaction deletes: a conflict that is seen', async () => {
      await pair.b.query(`BEGIN; DELETE FROM p WHERE a = 3; PREPARE TRANSACTION 'deletes'`);
      const gid = await pair.prepare(['INSERT INTO c VALUES (70, 3)']);
      const replay = pair.session.apply(gid, await pair.decoded(gid));
      await waiting();
      expect(await findBlockers(pair.control, [pair.session.pid])).toMatchObject([
        { pid: pair.session.pid, holder: { type: 'prepared', gid: 'deletes' } },
      ]);
      await pair.b.query(`COMMIT PREPARED 'deletes'`);
      expect(failure(await replay)).toEqual(['failed', '23503']);
      await pair.rollback(gid);
      await pair.b.query('INSERT INTO p VALUES (3)');
    });

    it('notices a key that is added while a replay waits', async () => {
      await pair.both('CREATE TABLE np (a int PRIMARY KEY); CREATE TABLE nc (id int PRIMARY KEY, a int)');
      await pair.run('INSERT INTO nc VALUES (1, NULL)');
      await pair.b.query(`BEGIN; ALTER TABLE nc ADD FOREIGN KEY (a) REFERENCES np; PREPARE TRANSACTION 'adds'`);
      const gid = await pair.prepare(['INSERT INTO nc VALUES (2, 5)']);
      const replay = pair.session.apply(gid, await pair.decoded(gid));
      await waiting();
      pair.session.schemaChanged(true);
      await pair.b.query(`COMMIT PREPARED 'adds'`);
      expect(failure(await replay)).toEqual(['failed', '23503']);
      pair.session.schemaChanged();
      await pair.rollback(gid);
    });

    it.runIf(bin === undefined)(
      'covers a period by all its parents together, and leaves keys alone that are not enforced',
      async () => {
        await pair.both(`CREATE EXTENSION btree_gist;
        CREATE TABLE room (id int, at daterange, PRIMARY KEY (id, at WITHOUT OVERLAPS));
        CREATE TABLE stay (n int PRIMARY KEY, id int, at daterange, FOREIGN KEY (id, PERIOD at) REFERENCES room (id, PERIOD at));
        CREATE TABLE loose (n int PRIMARY KEY, a int, FOREIGN KEY (a) REFERENCES p NOT ENFORCED)`);
        await pair.run(`INSERT INTO room VALUES (1, '[2024-01-01,2024-02-01)'), (1, '[2024-02-01,2024-03-01)')`);
        await pair.run(
          `INSERT INTO stay VALUES (1, 1, '[2024-01-15,2024-02-15)')`,
          'INSERT INTO loose VALUES (1, 12345)',
        );
        await pair.b.query(`DELETE FROM stay; DELETE FROM room WHERE at @> '2024-02-10'::date`);
        await expect(pair.run(`INSERT INTO stay VALUES (2, 1, '[2024-01-16,2024-02-16)')`)).rejects.toMatchObject({
          sqlstate: '23503',
        });
      },
    );
  });

  it('refuses to skip a row that is not there', async () => {
    await pair.both(
      'CREATE TABLE d (id int PRIMARY KEY, v text); CREATE TABLE df (id int, v text); ALTER TABLE df REPLICA IDENTITY FULL',
    );
    await pair.run(`INSERT INTO d VALUES (1, 'a'), (2, 'b')`, `INSERT INTO df VALUES (1, 'a')`);
    await pair.b.query('DELETE FROM d WHERE id = 2; DELETE FROM df');
    for (const sql of [
      `UPDATE d SET v = 'x'`,
      'DELETE FROM d WHERE id = 2',
      `UPDATE df SET v = 'x'`,
      'DELETE FROM df',
    ]) {
      const { gid, result } = await pair.replay(sql);
      expect(failure(result)).toEqual(['failed', 'XX001']);
      expect((await pair.b.query('SELECT FROM pg_prepared_xacts')).rowCount).toBe(0);
      await pair.rollback(gid);
    }
    expect((await pair.tables('d'))[1]).toEqual(['(1,a)']);
  });

  it('refuses to change several rows in the place of one', async () => {
    await pair.a.query('CREATE TABLE m (id int PRIMARY KEY, v text)');
    await pair.b.query(`CREATE TABLE m (id int, v text); INSERT INTO m VALUES (1, 'b')`);
    await pair.run(`INSERT INTO m VALUES (1, 'a'), (2, 'b')`);
    for (const sql of [`UPDATE m SET v = 'x' WHERE id = 1`, 'DELETE FROM m WHERE id = 1']) {
      const { gid, result } = await pair.replay(sql);
      expect(failure(result)).toEqual(['failed', 'XX001']);
      await pair.rollback(gid);
    }
    expect((await pair.tables('m'))[1]).toEqual(['(1,a)', '(1,b)', '(2,b)']);
  });

  it('leaves nothing prepared when it is cancelled while it looks at what it has prepared', async () => {
    await pair.both('CREATE TABLE look (id int PRIMARY KEY)');
    const gid = await pair.prepare(['INSERT INTO look VALUES (1)']);
    const source = await pair.decoded(gid);
    pair.session.schemaChanged(true);
    const look = vi.spyOn(TransactionReplay.prototype, 'tablesChanged').mockImplementationOnce(() => {
      pair.session.cancel();
      return Promise.reject(new PgError('57014', 'canceling statement due to user request'));
    });
    expect(failure(await pair.session.apply(gid, source))).toEqual(['failed', '57014']);
    expect((await pair.b.query('SELECT FROM pg_prepared_xacts')).rowCount).toBe(0);
    look.mockRestore();
    pair.session.schemaChanged();
    await pair.rollback(gid);
  });

  it('takes another of several equal rows when one is being deleted', async () => {
    await pair.both('CREATE TABLE dup (v text); ALTER TABLE dup REPLICA IDENTITY FULL');
    await pair.run(`INSERT INTO dup SELECT 'x' FROM generate_series(1, 3)`);
    const first = await pair.replay('DELETE FROM dup WHERE ctid = (SELECT min(ctid) FROM dup)');
    const gid = await pair.prepare([`DELETE FROM dup WHERE ctid = (SELECT max(ctid) FROM dup)`]);
    const replay = pair.session.apply(gid, await pair.decoded(gid));
    await waiting();
    await pair.commit(first.gid);
    expect(failure(await replay)).toBeUndefined();
    await pair.commit(gid);
    expect(await expectSame('dup')).toHaveLength(1);
  });

  it('changes only the row of the table itself, not of one that inherits from it', async () => {
    await pair.both(
      'CREATE TABLE base (id int PRIMARY KEY, v text); CREATE TABLE derived (PRIMARY KEY (id)) INHERITS (base)',
    );
    await pair.run(`INSERT INTO base VALUES (1, 'a'), (2, 'a')`, `INSERT INTO derived VALUES (1, 'b'), (2, 'b')`);
    await pair.run(`UPDATE ONLY base SET v = 'c' WHERE id = 1`, 'DELETE FROM ONLY base WHERE id = 2');
    expect(await expectSame('base')).toEqual(['(1,b)', '(1,c)', '(2,b)']);
  });

  it('fails with the server’s own error, and the session goes on', async () => {
    await pair.both('CREATE TABLE u (id int PRIMARY KEY, v int UNIQUE CHECK (v < 100))');
    await pair.b.query('INSERT INTO u VALUES (1, 1)');
    await expect(pair.run('INSERT INTO u VALUES (2, 1)')).rejects.toMatchObject({
      sqlstate: '23505',
      fields: { n: 'u_v_key' },
    });
    await pair.b.query('DROP TABLE u');
    await expect(pair.run('INSERT INTO u VALUES (3, 3)')).rejects.toMatchObject({ sqlstate: '42P01' });
    await pair.b.query('CREATE TABLE u (id int PRIMARY KEY)');
    await expect(pair.run('INSERT INTO u VALUES (3, 3)')).rejects.toMatchObject({ sqlstate: '42703' });
    await pair.b.query('ALTER TABLE u ADD v int');
    pair.session.schemaChanged();
    await pair.run('INSERT INTO u VALUES (4, 4)');
  });

  it('refuses a deferrable constraint that replay would not check, until its trigger fires always', async () => {
    await pair.both(
      'CREATE TABLE du (id int PRIMARY KEY, v int, CONSTRAINT later UNIQUE (v) DEFERRABLE INITIALLY DEFERRED)',
    );
    await expect(pair.run('INSERT INTO du VALUES (1, 1)')).rejects.toMatchObject({ sqlstate: '0A000' });
    await pair.both(`DO $$ DECLARE t record; BEGIN
      FOR t IN SELECT tgname, tgrelid::regclass AS rel FROM pg_trigger WHERE tgfoid = 'unique_key_recheck'::regproc LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', t.rel, t.tgname);
      END LOOP; END $$`);
    await pair.run('INSERT INTO du VALUES (1, 1), (2, 2)');
    await pair.run('UPDATE du SET v = 3 - v');
    await expectSame('du');
    await pair.b.query('INSERT INTO du VALUES (9, 9)');
    await expect(pair.run('INSERT INTO du VALUES (3, 9)')).rejects.toMatchObject({ sqlstate: '23505' });
  });

  it('runs DDL in its place between rows', async () => {
    await pair.both('CREATE TABLE ddl_a (id int PRIMARY KEY, v int); CREATE TABLE ddl_b (id int PRIMARY KEY)');
    const announce = (sql: string) => [
      `SELECT pg_logical_emit_message(true, 'pgmm:ddl', $m$${sql}$m$)`,
      sql.replaceAll(';;', ';'),
    ];
    await pair.run('INSERT INTO ddl_a VALUES (0, 0)', 'INSERT INTO ddl_b VALUES (0)');
    await pair.run(
      'INSERT INTO ddl_a VALUES (1, 1)',
      'INSERT INTO ddl_b VALUES (1)',
      ...announce('ALTER TABLE ddl_a ADD w text DEFAULT $d$w$d$'),
      `INSERT INTO ddl_a VALUES (2, 2, 'x')`,
      'INSERT INTO ddl_b VALUES (2)',
      ...announce('CREATE TABLE ddl_c (id int PRIMARY KEY, a int REFERENCES ddl_a);;CREATE INDEX ON ddl_c (a)'),
      'INSERT INTO ddl_c VALUES (1, 2)',
      'SAVEPOINT s',
      ...announce('DROP TABLE ddl_b'),
      'ROLLBACK TO s',
      'DELETE FROM ddl_b WHERE id = 0',
    );
    pair.session.schemaChanged();
    for (const table of ['ddl_a', 'ddl_b', 'ddl_c']) await expectSame(table);
    expect(new Set(pair.ddl).size).toBe(1);
    await pair.b.query('DELETE FROM ddl_c; DELETE FROM ddl_a WHERE id = 1');
    await expect(pair.run('INSERT INTO ddl_c VALUES (2, 1)')).rejects.toMatchObject({ sqlstate: '23503' });
  });

  it('takes a transaction that is prepared already for what it is', async () => {
    const gid = await pair.prepare([]);
    const source = await pair.decoded(gid);
    expect(failure(await pair.session.apply(gid, source))).toBeUndefined();
    expect(await pair.session.apply(gid, source)).toEqual({ type: 'prepared', rows: 0 });
    await pair.commit(gid);
  });

  it('reports tables that were written to without a two-phase commit, and nobody else’s messages', async () => {
    await pair.both('CREATE TABLE by_a (id int PRIMARY KEY); CREATE TABLE by_b (id int PRIMARY KEY)');
    pair.bypasses.length = 0;
    await pair.a.query('BEGIN; INSERT INTO by_a VALUES (1); INSERT INTO by_b VALUES (1); COMMIT');
    await pair.a.query(`SELECT pg_logical_emit_message(false, 'x', 'y')`);
    await pair.run('DELETE FROM by_a WHERE false');
    expect(pair.bypasses).toEqual([['public.by_a', 'public.by_b']]);
    await pair.a.query(`BEGIN; INSERT INTO by_a VALUES (2); PREPARE TRANSACTION 'stranger'`);
    await pair.a.query(`BEGIN; INSERT INTO by_b VALUES (2); PREPARE TRANSACTION 'other'`);
    await pair.run('DELETE FROM by_a WHERE false');
    expect(pair.bypasses).toHaveLength(1);
    await pair.a.query(`ROLLBACK PREPARED 'other'`);
    await pair.a.query(`COMMIT PREPARED 'stranger'`);
    await pair.run('DELETE FROM by_a WHERE false');
    expect(pair.bypasses.slice(1)).toEqual([['public.by_a']]);
  });

  it('sends a transaction again that was not finished, and only that, after a restart', async () => {
    await pair.both('CREATE TABLE again (id int PRIMARY KEY)');
    await pair.run('INSERT INTO again VALUES (1)');
    const open = await pair.prepare(['INSERT INTO again VALUES (2)']);
    await pair.decoded(open);
    const done = await pair.prepare(['INSERT INTO again VALUES (3)']);
    const source = await pair.decoded(done);
    expect(failure(await pair.session.apply(done, source))).toBeUndefined();
    await pair.commit(done);
    pair.decoder.stop();
    await pause(300);
    await pair.startDecoder();
    const repeated = await pair.decoded(open);
    expect(failure(await pair.session.apply(open, repeated))).toBeUndefined();
    await pair.commit(open);
    await expectSame('again');
  });

  describe('the pool', () => {
    let pool: ApplyPool;
    const results = new Map<Gid, ApplyResult>();
    beforeAll(async () => {
      await pair.both(
        'CREATE TABLE pool (id int PRIMARY KEY, v int); INSERT INTO pool SELECT g, 0 FROM generate_series(1, 50) g',
      );
      pool = await ApplyPool.connect({
        connection: pair.connection(pair.target),
        sessions: 3,
        statementCache: 50,
        originPrefix: 'pgmm_pool_',
        holdOrigin: (connection, name) => holdOrigin(connection, pair.control, name),
        ddl: () => ({ statements: [], renamed: undefined, runsScript: false }),
        onDdl: () => undefined,
        onProgress: () => undefined,
        cancelBackend: async (pid) => {
          await pair.control.ask('SELECT pg_cancel_backend($1)', [pid]);
        },
        applied: (gid, result) => results.set(gid, result),
        closed: () => undefined,
      });
    });
    afterAll(() => pool.end());

    const result = (gid: Gid) => expect.poll(() => results.get(gid)?.type, { interval: 5, timeout: 20_000 });

    it('cancels what waits, and nothing that comes after it', async () => {
      await pair.b.query(`BEGIN; UPDATE pool SET v = 1 WHERE id = 1; PREPARE TRANSACTION 'holder'`);
      for (let round = 0; round < 30; round++) {
        const blocked = await pair.prepare([`UPDATE pool SET v = v WHERE id = 1`]);
        const free = await pair.prepare([`UPDATE pool SET v = v WHERE id = ${round + 2}`]);
        const sources = [await pair.decoded(blocked), await pair.decoded(free)] as const;
        pool.apply(blocked, sources[0]);
        if (round % 3 > 0) await pause(round % 3 === 1 ? 1 : 20);
        pool.cancel(blocked);
        pool.cancel(blocked);
        pool.apply(free, sources[1]);
        await result(blocked).toBe('failed');
        await result(free).toBe('prepared');
        expect(failure(results.get(blocked)!)).toEqual(['failed', '57014']);
        await pair.rollback(blocked);
        await pair.commit(free);
      }
      await pair.b.query(`ROLLBACK PREPARED 'holder'`);
    });

    it('tells who stands in the way, past others that wait themselves', async () => {
      const client = await pair.target.connect();
      const second = await pair.target.connect();
      const pid = async (c: typeof client) => (await c.query<{ p: number }>('SELECT pg_backend_pid() AS p')).rows[0]?.p;
      const [clientPid] = [await pid(client), await pid(second)];
      await client.query('BEGIN; UPDATE pool SET v = 5 WHERE id = 10');
      await second.query(`BEGIN; UPDATE pool SET v = 5 WHERE id = 11; PREPARE TRANSACTION 'first'; BEGIN`);
      const queued = second.query('UPDATE pool SET v = 6 WHERE id = 11');
      await pause(50);
      const gids = [
        await pair.prepare(['UPDATE pool SET v = 1 WHERE id = 10']),
        await pair.prepare(['UPDATE pool SET v = 1 WHERE id = 11']),
      ];
      for (const gid of gids) pool.apply(gid, await pair.decoded(gid));
      await expect
        .poll(async () => (await findBlockers(pair.control, [...pool.runningSince(Infinity).keys()])).length)
        .toBe(2);
      const running = pool.runningSince(Infinity);
      const found = await findBlockers(pair.control, [...running.keys()]);
      const byGid = new Map(found.map((blocked) => [running.get(blocked.pid), blocked]));
      expect(byGid.get(gids[0])?.holder).toEqual({ type: 'backend', pid: clientPid });
      expect(byGid.get(gids[1])?.holder).toEqual({ type: 'prepared', gid: 'first' });
      expect(byGid.get(gids[0])?.table).toBe('pool');
      await client.query('ROLLBACK');
      await pair.control.ask(`ROLLBACK PREPARED 'first'`);
      await queued;
      await second.query('ROLLBACK');
      for (const gid of gids) {
        await result(gid).toBe('prepared');
        await pair.commit(gid);
      }
      await expectSame('pool');
    });
  });
});
