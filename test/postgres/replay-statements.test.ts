import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ReplayCluster } from '../support/replay-cluster.ts';

describe('replay of statements', () => {
  let c: ReplayCluster;

  beforeAll(async () => {
    c = await ReplayCluster.start();
  });
  afterAll(() => c.stop());

  const rows = async (sql: string): Promise<string[]> => (await c.rows(sql)).map((row) => row.join('|'));

  it('copies in text, CSV and binary, with columns that are left out', async () => {
    await c.each(
      `CREATE TABLE copied (id serial PRIMARY KEY, a text, b bytea, n numeric DEFAULT 7, at timestamptz DEFAULT now(), g int GENERATED ALWAYS AS (length(a)) STORED)`,
      'CREATE TABLE copied_bag (a int, b text)',
      `CREATE TABLE copied_parts (a int, b text) PARTITION BY LIST (a)`,
      'CREATE TABLE copied_part PARTITION OF copied_parts FOR VALUES IN (1, 2)',
      'CREATE TABLE copied_part_rest PARTITION OF copied_parts DEFAULT',
    );
    const text = Buffer.from('a\\tb\\\\\\n€\t\\\\x00ff\n\\N\t\\N\n\t\n');
    expect(await c.copyIn(1, 'COPY copied (a, b) FROM STDIN', [text.subarray(0, 7), text.subarray(7)])).toBe(3);
    const csv = Buffer.from('id,a,n\n1000000,"x ""y""\nz",1.50\n1000001,,NaN\n1000002,"",\n');
    expect(await c.copyIn(2, 'COPY copied (id, a, n) FROM STDIN (FORMAT csv, HEADER)', [csv])).toBe(3);
    const binary = await c.copyOut(3, 'COPY (SELECT a, b, n FROM copied) TO STDOUT (FORMAT binary)');
    expect(await c.copyIn(3, 'COPY copied (a, b, n) FROM STDIN (FORMAT binary)', [binary])).toBe(6);
    const many = Buffer.from(Array.from({ length: 20_000 }, (_, i) => `${i % 5}\trow ${i}\n`).join(''));
    await c.copyIn(1, 'COPY copied_bag FROM STDIN', [many]);
    await c.copyIn(2, 'COPY copied_parts FROM STDIN', [many, Buffer.from('1\tx\n\\.\n')]);
    await c.expectSame();
    expect(await rows('SELECT count(*), count(DISTINCT id) FROM copied')).toEqual(['12|12']);
    await expect(c.copyIn(3, 'COPY copied_bag FROM STDIN', [many, Buffer.from('x\ty\n')])).rejects.toThrow(
      'invalid input',
    );
    await c.expectSame();
    expect(await rows('SELECT count(*) FROM copied_bag')).toEqual(['20000']);
  });

  it('ends a COPY that fails while much is still being sent', async () => {
    await c.run('CREATE TABLE broken_off (id int PRIMARY KEY, v text)');
    const piece = (first: number) =>
      Buffer.from(Array.from({ length: 4000 }, (_, i) => `${first + i}\t${'x'.repeat(90)}\n`).join(''));
    const pieces = [...Array.from({ length: 10 }, (_, i) => piece(i * 4000)), piece(0), piece(0), piece(50_000)];
    await expect(c.copyIn(1, 'COPY broken_off FROM STDIN', pieces)).rejects.toMatchObject({ sqlstate: '23505' });
    expect(await c.copyIn(1, 'COPY broken_off FROM STDIN', pieces.slice(0, 10))).toBe(40_000);
    await c.expectSame();
    expect(await rows('SELECT count(*) FROM broken_off')).toEqual(['40000']);
  });

  it('upserts, merges, joins and chains', async () => {
    await c.each(
      'CREATE TABLE stock (item text PRIMARY KEY, n int NOT NULL DEFAULT 0, at timestamptz DEFAULT clock_timestamp())',
      'CREATE TABLE moved (id serial PRIMARY KEY, item text, n int, r float8 DEFAULT random())',
      `INSERT INTO stock SELECT 'i' || i, i FROM generate_series(1, 50) i`,
    );
    await c.each(
      `INSERT INTO stock (item, n) VALUES ('i1', 5), ('new', 1) ON CONFLICT (item) DO UPDATE SET n = stock.n + excluded.n RETURNING n`,
      `INSERT INTO stock (item, n) VALUES ('i2', 5), ('newer', 1) ON CONFLICT DO NOTHING`,
      `MERGE INTO stock s USING (VALUES ('i3', 0), ('i4', 7), ('merged', 8)) v (item, n) ON s.item = v.item
       WHEN MATCHED AND v.n = 0 THEN DELETE WHEN MATCHED THEN UPDATE SET n = v.n, at = now() WHEN NOT MATCHED THEN INSERT (item, n) VALUES (v.item, v.n)`,
      `INSERT INTO moved (item, n) SELECT item, n FROM stock WHERE n > 40`,
      `UPDATE stock SET n = m.n * 2, at = statement_timestamp() FROM moved m WHERE m.item = stock.item`,
      `DELETE FROM stock USING moved m WHERE m.item = stock.item AND m.n > 45`,
      `WITH gone AS (DELETE FROM stock WHERE n < 10 RETURNING *), put AS (INSERT INTO moved (item, n) SELECT item, n FROM gone RETURNING id)
       UPDATE stock SET n = (SELECT count(*) FROM put) WHERE item = 'i20'`,
      `WITH x AS (INSERT INTO moved (item) VALUES ('cte') RETURNING id, r) SELECT id, r FROM x`,
    );
    await c.expectSame();
    expect((await rows(`SELECT n FROM stock WHERE item = 'i20'`))[0]).toMatch(/^\d+$/);
  });

  it('runs functions, procedures, DO blocks and triggers once', async () => {
    await c.each(
      'CREATE TABLE account (id int PRIMARY KEY, balance numeric NOT NULL)',
      'CREATE TABLE audit (id serial PRIMARY KEY, what text, old jsonb, new jsonb, at timestamptz DEFAULT clock_timestamp(), who text DEFAULT current_user)',
      'CREATE TABLE summary (what text PRIMARY KEY, n int)',
      `CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         INSERT INTO audit (what, old, new) VALUES (tg_op, to_jsonb(OLD), to_jsonb(NEW));
         RETURN coalesce(NEW, OLD); END $$`,
      `CREATE FUNCTION count_statement() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
         INSERT INTO summary VALUES (tg_op, 1) ON CONFLICT (what) DO UPDATE SET n = summary.n + 1; RETURN NULL; END $$`,
      `CREATE FUNCTION round_it() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.balance := round(NEW.balance, 2); RETURN NEW; END $$`,
      'CREATE TRIGGER a_round BEFORE INSERT OR UPDATE ON account FOR EACH ROW EXECUTE FUNCTION round_it()',
      'CREATE TRIGGER b_note AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH ROW EXECUTE FUNCTION note()',
      'CREATE TRIGGER c_count AFTER INSERT OR UPDATE OR DELETE ON account FOR EACH STATEMENT EXECUTE FUNCTION count_statement()',
      'CREATE CONSTRAINT TRIGGER d_late AFTER UPDATE ON account DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()',
      `CREATE FUNCTION transfer(a int, b int, n numeric) RETURNS numeric LANGUAGE plpgsql AS $$ BEGIN
         UPDATE account SET balance = balance - n WHERE id = a; UPDATE account SET balance = balance + n WHERE id = b; RETURN n; END $$`,
      `CREATE PROCEDURE fill(n int) LANGUAGE sql AS 'INSERT INTO account SELECT i, 100 FROM generate_series(1, n) i'`,
    );
    await c.each(
      'CALL fill(10)',
      'SELECT transfer(1, 2, 10.129)',
      'SELECT sum(transfer(i, i + 1, 1)) FROM generate_series(1, 5) i',
      `DO $$ BEGIN FOR i IN 1..5 LOOP BEGIN
         UPDATE account SET balance = balance + 1 WHERE id = i;
         IF i % 2 = 0 THEN RAISE EXCEPTION 'no'; END IF;
       EXCEPTION WHEN raise_exception THEN INSERT INTO account VALUES (100 + i, 0); END; END LOOP; END $$`,
      'DELETE FROM account WHERE id = 10',
    );
    await c.expectSame();
    expect(await rows('SELECT what, count(*) FROM audit GROUP BY 1 ORDER BY 1')).toEqual([
      'DELETE|1',
      'INSERT|12',
      'UPDATE|30',
    ]);
    expect(await rows('SELECT * FROM summary ORDER BY 1')).toEqual(['DELETE|1', 'INSERT|3', 'UPDATE|15']);
  });

  it('follows rules and updatable views', async () => {
    await c.each(
      'CREATE TABLE ruled (id int PRIMARY KEY, v text)',
      'CREATE TABLE ruled_log (id int, v text)',
      'CREATE VIEW ruled_view AS SELECT id, v FROM ruled WHERE id > 0 WITH CHECK OPTION',
      `CREATE RULE also AS ON INSERT TO ruled DO ALSO INSERT INTO ruled_log VALUES (NEW.id, NEW.v)`,
      `CREATE RULE instead AS ON DELETE TO ruled DO INSTEAD UPDATE ruled SET v = 'deleted' WHERE id = OLD.id`,
      `INSERT INTO ruled_view VALUES (1, 'a'), (2, 'b')`,
      `UPDATE ruled_view SET v = 'c' WHERE id = 1`,
      'DELETE FROM ruled_view WHERE id = 2',
    );
    await c.expectSame();
    expect(await rows('SELECT * FROM ruled ORDER BY id')).toEqual(['1|c', '2|deleted']);
    expect(await rows('SELECT count(*) FROM ruled_log')).toEqual(['2']);
  });

  it('truncates with everything that hangs on it', async () => {
    await c.each(
      'CREATE TABLE par (id serial PRIMARY KEY, v text)',
      'CREATE TABLE chi (id int PRIMARY KEY, p int REFERENCES par)',
      'CREATE TABLE other (id int GENERATED ALWAYS AS IDENTITY, v int)',
      `INSERT INTO par (v) VALUES ('a'), ('b')`,
      'INSERT INTO chi SELECT 1, min(id) FROM par',
      'INSERT INTO other (v) VALUES (1), (2)',
      'TRUNCATE par, other RESTART IDENTITY CASCADE',
    );
    expect(await rows('SELECT id FROM par UNION ALL SELECT id FROM chi UNION ALL SELECT id FROM other')).toEqual([]);
    await Promise.all([1, 2, 3].map((node) => c.on(node, `INSERT INTO par (v) VALUES ('again')`)));
    await c.run(
      `INSERT INTO chi SELECT 1, min(id) FROM par`,
      'TRUNCATE chi',
      'INSERT INTO chi SELECT 2, max(id) FROM par',
    );
    await c.expectSame();
    expect(await rows('SELECT count(*), count(DISTINCT id) FROM par')).toEqual(['3|3']);
    expect(await rows('SELECT id FROM chi')).toEqual(['2']);
    const sp = ['SAVEPOINT a', 'TRUNCATE chi', 'ROLLBACK TO a', 'INSERT INTO chi SELECT 3, max(id) FROM par'];
    await c.run(...sp);
    expect(await rows('SELECT id FROM chi ORDER BY id')).toEqual(['2', '3']);
  });

  it('knows nothing of savepoints that were rolled back', async () => {
    await c.run('CREATE TABLE sp (id int PRIMARY KEY, v text)');
    await c.run(
      `INSERT INTO sp VALUES (1, 'a')`,
      'SAVEPOINT a',
      `INSERT INTO sp VALUES (2, 'b')`,
      'SAVEPOINT b',
      `UPDATE sp SET v = 'no'`,
      'ROLLBACK TO b',
      `INSERT INTO sp VALUES (3, 'c')`,
      'RELEASE a',
      'SAVEPOINT c',
      'DELETE FROM sp',
      'ROLLBACK TO c',
    );
    await c.expectSame();
    expect(await rows('SELECT * FROM sp ORDER BY id')).toEqual(['1|a', '2|b', '3|c']);
    await c.run('SAVEPOINT all_of_it', 'DELETE FROM sp', 'ROLLBACK TO all_of_it');
    const nested = Array.from({ length: 100 }, (_, i) => [
      `SAVEPOINT s${i}`,
      `INSERT INTO sp VALUES (${100 + i}, 'n')`,
    ]);
    await c.run(...nested.flat(), 'ROLLBACK TO s50', `INSERT INTO sp VALUES (999, 'end')`);
    await c.expectSame();
    expect(await rows('SELECT count(*), max(id) FROM sp')).toEqual(['54|999']);
  });

  it('keeps foreign keys of every kind', async () => {
    await c.each(
      'CREATE TABLE fp (a int, b int, v text, PRIMARY KEY (a, b), UNIQUE (v))',
      'CREATE TABLE fc (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES fp ON UPDATE CASCADE ON DELETE CASCADE)',
      'CREATE TABLE ff (id int PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES fp MATCH FULL ON UPDATE CASCADE ON DELETE SET NULL)',
      'CREATE TABLE fd (id int PRIMARY KEY, v text DEFAULT NULL REFERENCES fp (v) ON DELETE SET DEFAULT DEFERRABLE INITIALLY DEFERRED)',
      'CREATE TABLE tree (id int PRIMARY KEY, parent int REFERENCES tree ON DELETE CASCADE)',
      'CREATE TABLE nv (id int PRIMARY KEY, a int, b int)',
      'INSERT INTO nv VALUES (1, 99, 99)',
      'ALTER TABLE nv ADD FOREIGN KEY (a, b) REFERENCES fp NOT VALID',
      `INSERT INTO fp SELECT i, i, 'v' || i FROM generate_series(1, 30) i`,
      'INSERT INTO fc SELECT i, i, CASE WHEN i < 15 THEN i END FROM generate_series(1, 20) i',
      'INSERT INTO ff SELECT i, i, i FROM generate_series(1, 20) i',
      'INSERT INTO ff VALUES (100, NULL, NULL)',
      'INSERT INTO tree SELECT i, nullif(i / 2, 0) FROM generate_series(1, 50) i',
      'INSERT INTO tree VALUES (100, 101), (101, 100)',
      'INSERT INTO nv VALUES (2, 20, 20)',
      `UPDATE nv SET id = 3 WHERE id = 1`,
    );
    await c.run(`INSERT INTO fd VALUES (1, 'late')`, `INSERT INTO fp VALUES (50, 50, 'late')`);
    await c.run(`INSERT INTO fd VALUES (2, 'never')`, 'DELETE FROM fd WHERE id = 2');
    await c.expectSame();
    await c.each(
      'UPDATE fp SET a = a + 100 WHERE a <= 5',
      'DELETE FROM fp WHERE b IN (10, 11)',
      `DELETE FROM fp WHERE v = 'late'`,
      'DELETE FROM tree WHERE id = 3',
      'UPDATE tree SET parent = id WHERE id = 2',
      'DELETE FROM tree WHERE id = 100',
    );
    await c.expectSame();
    for (const [node, sql] of [
      [1, 'INSERT INTO fc VALUES (1000, 9999, 1)'],
      [2, 'INSERT INTO ff VALUES (1000, 1, NULL)'],
      [3, 'UPDATE nv SET a = 77 WHERE id = 3'],
      [1, `INSERT INTO fd VALUES (1000, 'nowhere')`],
      [2, 'DELETE FROM fp WHERE b = 20'],
    ] as const) {
      const error = await c.refusal(node, sql);
      expect([sql, error?.code]).toEqual([sql, '23503']);
    }
    await c.expectSame();
    await c.run(
      'DELETE FROM nv',
      'DELETE FROM fc',
      'INSERT INTO fp SELECT i, i, NULL FROM generate_series(1000, 3000) i',
      'INSERT INTO fc SELECT i, i, i FROM generate_series(1000, 3000) i',
    );
    await c.run('UPDATE fc SET a = NULL WHERE id % 2 = 0', 'DELETE FROM fp WHERE a >= 1000 AND a % 2 = 1');
    await c.expectSame();
    expect(await rows('SELECT count(*) FROM fc')).toEqual(['1001']);
  });

  it('checks deferrable keys when they were checked, and exclusion constraints', async () => {
    await c.each(
      'CREATE TABLE later (id int PRIMARY KEY DEFERRABLE INITIALLY IMMEDIATE, u int, UNIQUE (u) DEFERRABLE)',
      'CREATE TABLE booked (room int, during int4range, EXCLUDE USING gist (during WITH &&) DEFERRABLE)',
      'INSERT INTO later SELECT i, -i FROM generate_series(1, 500) i',
      `INSERT INTO booked SELECT 1, int4range(i * 10, i * 10 + 10) FROM generate_series(1, 20) i`,
      'UPDATE later SET id = id + 1, u = u - 1',
      'UPDATE later SET id = 600 - id',
      `UPDATE booked SET during = int4range(lower(during) + 10, upper(during) + 10)`,
    );
    await c.expectSame();
    await c.run(
      'SET CONSTRAINTS ALL DEFERRED',
      'INSERT INTO later VALUES (600, 1), (600, 2)',
      'DELETE FROM later WHERE u = 1',
      'TRUNCATE booked',
      'INSERT INTO booked VALUES (1, int4range(1, 5)), (1, int4range(2, 3))',
      'CREATE TABLE between_rows (id int)',
      'DELETE FROM booked WHERE during = int4range(2, 3)',
    );
    await c.run(
      'UPDATE later SET u = u + 1',
      'ALTER TABLE later ADD v int DEFAULT 3',
      'UPDATE later SET v = id, u = u - 1',
    );
    await c.run('UPDATE later SET u = -u', 'TRUNCATE later', 'INSERT INTO later VALUES (1, 1, 1), (2, 2, 2)');
    await c.expectSame();
    expect((await c.refusal(1, 'INSERT INTO later VALUES (1, 5, 5)'))?.code).toBe('23505');
    expect((await c.refusal(2, `INSERT INTO booked VALUES (2, '[4,4]')`))?.code).toBe('23P01');
    await c.expectSame();
    const raced = await Promise.all(
      [1, 2, 3].map((node) => c.refusal(node, `INSERT INTO later VALUES (77, ${node}00)`)),
    );
    expect(raced.filter((error) => error === undefined)).toHaveLength(1);
    await c.expectSame();
    expect(await rows('SELECT count(*) FROM later WHERE id = 77')).toEqual(['1']);
  });
});
