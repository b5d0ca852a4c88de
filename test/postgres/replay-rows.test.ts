import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ReplayCluster } from '../support/replay-cluster.ts';

/** About `n` times 32 bytes that don't compress. */
const noise = (n: number, seed = '') =>
  `(SELECT string_agg(md5(i::text || '${seed}'), '' ORDER BY i) FROM generate_series(1, ${n}) i)`;

const one = (table: string, where: string) => `ctid = (SELECT min(ctid) FROM ${table} WHERE ${where})`;

describe('replay of rows', () => {
  let c: ReplayCluster;
  let major: number;

  beforeAll(async () => {
    c = await ReplayCluster.start();
    const [[version]] = (await c.rows(`SELECT current_setting('server_version_num')::int / 10000`)) as [[string]];
    major = Number(version);
  });
  afterAll(() => c.stop());

  const rows = async (sql: string): Promise<string[]> => (await c.rows(sql)).map((row) => row.join('|'));

  it('tells NULL, empty and equal rows apart where there is no key', async () => {
    await c.run('CREATE TABLE bag (a int, b text, j json, p point)');
    await c.run(
      `INSERT INTO bag SELECT 1, 'x', '{"a": 1}', '(1,2)' FROM generate_series(1, 1000)`,
      `INSERT INTO bag VALUES (1, '', NULL, NULL), (1, NULL, NULL, NULL), (NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL)`,
      `INSERT INTO bag VALUES (1, 'x', '{"a":1}', '(1,2)')`,
    );
    await c.expectSame();
    await c.run(`DELETE FROM bag WHERE ${one('bag', `b = 'x'`)}`);
    await c.run(`DELETE FROM bag WHERE ${one('bag', 'a IS NULL')}`);
    await c.run(`UPDATE bag SET b = 'one' WHERE ${one('bag', `b = 'x'`)}`);
    await c.run(`UPDATE bag SET b = 'ten' WHERE ctid IN (SELECT ctid FROM bag WHERE b = 'x' LIMIT 10)`);
    await c.run(`UPDATE bag SET b = NULL WHERE b = ''`);
    await c.expectSame();
    expect(await rows('SELECT a, b, count(*) FROM bag GROUP BY 1, 2 ORDER BY 1, 2')).toEqual([
      '1|one|1',
      '1|ten|10',
      '1|x|989',
      '1||2',
      '||1',
    ]);
    await c.run(`UPDATE bag SET a = a + 1, b = b || '!' WHERE b = 'x'`);
    await c.run('DELETE FROM bag WHERE a = 2');
    await c.run('DELETE FROM bag WHERE a IS NULL');
    await c.expectSame();
    expect(await rows('SELECT count(*) FROM bag')).toEqual(['13']);
  });

  it('finds a row without a key by its text where its bytes are others on the node that made it', async () => {
    await c.run(
      'CREATE TABLE arrays (a int[], v int)',
      `INSERT INTO arrays VALUES ('{1,NULL}'), ('{2,NULL}'), ('{3,NULL}')`,
    );
    // Only here the array keeps its room for NULLs.
    await c.on(1, 'UPDATE arrays SET a[2] = 5');
    await c.on(2, 'DELETE FROM arrays WHERE a[1] = 1');
    await c.on(3, 'UPDATE arrays SET v = 1 WHERE a[1] = 2');
    await c.expectSame();
    expect(await rows('SELECT * FROM arrays ORDER BY a')).toEqual(['{2,5}|1', '{3,5}|']);
  });

  it('uses the index that the user chose as identity', async () => {
    await c.run(
      'CREATE TABLE chosen (a int NOT NULL, b text NOT NULL, v text, PRIMARY KEY (a))',
      'CREATE UNIQUE INDEX chosen_b ON chosen (b, a)',
      'ALTER TABLE chosen REPLICA IDENTITY USING INDEX chosen_b',
      `INSERT INTO chosen VALUES (1, 'x', 'v'), (2, 'y', NULL), (3, 'z', '')`,
    );
    await c.each(
      `UPDATE chosen SET v = 'w' WHERE a = 1`,
      `UPDATE chosen SET b = 'yy' WHERE a = 2`,
      `UPDATE chosen SET a = 30 WHERE a = 3`,
      'DELETE FROM chosen WHERE a = 1',
    );
    await c.expectSame();
    expect(await rows('SELECT * FROM chosen ORDER BY a')).toEqual(['2|yy|', '30|z|']);
    await c.run('ALTER TABLE chosen REPLICA IDENTITY FULL');
    await c.each(`UPDATE chosen SET v = 'full'`, 'DELETE FROM chosen WHERE a = 2');
    await c.expectSame();
  });

  it('changes keys, composite and deferrable ones too', async () => {
    await c.each(
      'CREATE TABLE composite (a int, b text, c date, v int, PRIMARY KEY (c, a, b))',
      'CREATE TABLE deferred (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, v text)',
      'CREATE TABLE keyed (id int PRIMARY KEY, v text)',
      `INSERT INTO composite SELECT i, 'b' || i, date '2024-01-01' + i, i FROM generate_series(1, 20) i`,
      `INSERT INTO deferred SELECT i, 'v' || i FROM generate_series(1, 10) i`,
      `INSERT INTO keyed SELECT i, 'v' || i FROM generate_series(1, 10) i`,
    );
    await c.each(
      `UPDATE composite SET b = b || 'x', v = 0 WHERE a <= 3`,
      'UPDATE composite SET c = c + 100',
      'DELETE FROM composite WHERE a = 20',
      'UPDATE deferred SET id = 11 - id',
      'UPDATE keyed SET id = -id',
    );
    await c.expectSame();
    await c.run(
      'UPDATE keyed SET id = 100 WHERE id = -1',
      'UPDATE keyed SET id = -1 WHERE id = -2',
      'UPDATE keyed SET id = -2 WHERE id = 100',
    );
    await c.run('UPDATE deferred SET id = id + 1', `DELETE FROM deferred WHERE id = 5`);
    await c.expectSame();
    expect(await rows('SELECT * FROM keyed WHERE id > -3 ORDER BY id')).toEqual(['-2|v1', '-1|v2']);
    const refused = await c.refusal(2, 'UPDATE deferred SET id = 3 WHERE id = 4');
    expect(refused?.code).toBe('23505');
    await c.expectSame();
  });

  it('follows rows between partitions whose columns stand in another order', async () => {
    await c.each(
      'CREATE TABLE parted (id int, gone text, k int, v text, PRIMARY KEY (id, k)) PARTITION BY LIST (k)',
      'ALTER TABLE parted DROP COLUMN gone',
      'CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)',
      'CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2) PARTITION BY RANGE (id)',
      'CREATE TABLE parted_2_low (x int, v text, k int NOT NULL, id int NOT NULL)',
      'ALTER TABLE parted_2_low DROP COLUMN x',
      'ALTER TABLE parted_2 ATTACH PARTITION parted_2_low FOR VALUES FROM (0) TO (100)',
      'CREATE TABLE parted_rest PARTITION OF parted DEFAULT',
      'CREATE TABLE parted_bag (k int, v text) PARTITION BY HASH (k)',
      'CREATE TABLE parted_bag_0 PARTITION OF parted_bag FOR VALUES WITH (MODULUS 2, REMAINDER 0)',
      'CREATE TABLE parted_bag_1 (v text, k int)',
      'ALTER TABLE parted_bag ATTACH PARTITION parted_bag_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)',
      `INSERT INTO parted SELECT i, i % 3 + 1, 'v' || i FROM generate_series(1, 30) i`,
      `INSERT INTO parted_bag SELECT i % 5, 'v' FROM generate_series(1, 30) i`,
    );
    await c.expectSame();
    await c.each(
      'UPDATE parted SET k = 2 WHERE id < 10',
      `UPDATE parted SET v = 'w', k = k % 3 + 1 WHERE id > 20`,
      'UPDATE parted_2_low SET id = id + 50',
      'UPDATE parted_bag SET k = k + 1',
      `UPDATE parted_bag SET v = 'w' WHERE (tableoid, ctid) IN (SELECT tableoid, ctid FROM parted_bag LIMIT 7)`,
      'DELETE FROM parted_bag WHERE (tableoid, ctid) IN (SELECT tableoid, ctid FROM parted_bag LIMIT 5)',
    );
    await c.expectSame();
    await c.each(
      'TRUNCATE parted_1',
      'ALTER TABLE parted DETACH PARTITION parted_rest',
      'DELETE FROM parted WHERE k = 2',
    );
    await c.each('TRUNCATE parted, parted_bag', `INSERT INTO parted VALUES (9, 2, 'after')`, 'DROP TABLE parted_bag');
    await c.expectSame();
    expect(await rows('SELECT * FROM parted')).toEqual(['9|2|after']);
  });

  it('keeps a table apart from those that inherit of it', async () => {
    await c.each(
      'CREATE TABLE ancestor (id int PRIMARY KEY, v text)',
      'CREATE TABLE heir (w text, PRIMARY KEY (id)) INHERITS (ancestor)',
      'CREATE TABLE bag_ancestor (v text)',
      'CREATE TABLE bag_heir (w text) INHERITS (bag_ancestor)',
      `INSERT INTO ancestor VALUES (1, 'a'), (2, 'b'), (3, 'a')`,
      `INSERT INTO heir VALUES (1, 'a', 'w'), (2, 'b', 'w'), (4, 'a', 'w')`,
      `INSERT INTO bag_ancestor VALUES ('a'), ('a')`,
      `INSERT INTO bag_heir VALUES ('a', NULL), ('a', NULL)`,
    );
    await c.each(
      `UPDATE ONLY ancestor SET v = 'only' WHERE id = 1`,
      `UPDATE heir SET v = 'heir' WHERE id = 2`,
      `UPDATE ancestor SET v = 'both' WHERE id > 2`,
      'DELETE FROM ONLY ancestor WHERE id = 2',
      `UPDATE ONLY bag_ancestor SET v = 'b' WHERE ${one('ONLY bag_ancestor', 'true')}`,
      `DELETE FROM bag_heir WHERE ${one('bag_heir', 'true')}`,
      `DELETE FROM bag_ancestor WHERE v = 'a' AND tableoid = 'bag_ancestor'::regclass`,
    );
    await c.expectSame();
    expect(await rows('SELECT id, v FROM ancestor ORDER BY 1, 2')).toEqual([
      '1|a',
      '1|only',
      '2|heir',
      '3|both',
      '4|both',
    ]);
    await c.each('TRUNCATE ONLY ancestor');
    await c.expectSame();
    expect(await rows('SELECT id FROM ancestor ORDER BY id')).toEqual(['1', '2', '4']);
  });

  it('leaves large values alone that an update did not touch', async () => {
    await c.each(
      'CREATE TABLE toast (id int PRIMARY KEY, v text, big text, big2 bytea)',
      'CREATE TABLE toast_key (k text PRIMARY KEY, v text, big text)',
      'ALTER TABLE toast_key ALTER k SET STORAGE EXTERNAL',
      'CREATE TABLE toast_bag (a int, big text)',
      `INSERT INTO toast VALUES (1, 'a', ${noise(10_000)}, ${noise(500)}::bytea), (2, 'b', NULL, ${noise(500)}::bytea)`,
      `INSERT INTO toast_key VALUES (repeat('k', 2500), 'a', ${noise(500)}), (repeat('k', 2501), 'a', NULL)`,
      `INSERT INTO toast_bag VALUES (1, ${noise(500)}), (1, ${noise(500)}), (1, ${noise(500, 'other')})`,
    );
    await c.each(
      `UPDATE toast SET v = 'c'`,
      `UPDATE toast SET big = big || 'x', v = 'd' WHERE id = 1`,
      'UPDATE toast SET big = NULL WHERE id = 2',
      'UPDATE toast SET big2 = big2',
      `UPDATE toast_key SET v = 'b' WHERE length(k) = 2500`,
      `UPDATE toast_key SET k = repeat('l', 2500) WHERE length(k) = 2501`,
      `UPDATE toast_bag SET a = 2 WHERE ${one('toast_bag', 'true')}`,
      `UPDATE toast_bag SET big = big || 'y' WHERE ${one('toast_bag', 'a = 1')}`,
    );
    await c.expectSame();
    await c.run(
      `UPDATE toast_key SET k = repeat('m', 2500), v = 'z' WHERE big IS NOT NULL`,
      'UPDATE toast SET id = id + 5',
    );
    await c.run(
      'DELETE FROM toast_bag WHERE a = 2',
      `DELETE FROM toast_key WHERE v = 'z'`,
      'DELETE FROM toast WHERE id = 6',
    );
    await c.expectSame();
    expect(await rows('SELECT count(*) FROM toast UNION ALL SELECT count(*) FROM toast_key')).toEqual(['1', '1']);
  });

  it('leaves generated columns to the server that has the row', async () => {
    await c.each(
      'CREATE TABLE generated (id int PRIMARY KEY, s int GENERATED ALWAYS AS (a * 2) STORED, a int, z text)',
      'CREATE TABLE generated_bag (s text GENERATED ALWAYS AS (a::text || b) STORED, a int, b text)',
      `INSERT INTO generated (id, a, z) VALUES (1, 1, 'z'), (2, 2, NULL)`,
      `INSERT INTO generated_bag (a, b) VALUES (1, 'x'), (1, 'x'), (NULL, 'x'), (2, 'y')`,
    );
    await c.each(
      'UPDATE generated SET a = a + 10',
      'DELETE FROM generated WHERE id = 2',
      `UPDATE generated_bag SET a = 5 WHERE a = 2`,
      `DELETE FROM generated_bag WHERE ${one('generated_bag', 'a = 1')}`,
      `UPDATE generated_bag SET b = 'n' WHERE a IS NULL`,
    );
    await c.expectSame();
    expect(await rows('SELECT * FROM generated_bag ORDER BY a')).toEqual(['1x|1|x', '5y|5|y', '||n']);
  });

  it('finds the one row whose key has a generated column', async () => {
    await c.run(
      'CREATE TABLE slugs (tenant int, name text, slug text GENERATED ALWAYS AS (lower(name)) STORED, v int, PRIMARY KEY (tenant, slug))',
      `INSERT INTO slugs (tenant, name) VALUES (1, 'A'), (1, 'B'), (1, 'C'), (2, 'A')`,
    );
    await c.on(1, `DELETE FROM slugs WHERE tenant = 1 AND slug = 'a'`);
    await c.on(2, `UPDATE slugs SET v = 1 WHERE tenant = 1 AND slug = 'b'`);
    await c.on(3, `UPDATE slugs SET name = 'D' WHERE tenant = 1 AND slug = 'c'`);
    await c.expectSame();
    expect(await rows('SELECT * FROM slugs ORDER BY tenant, slug')).toEqual(['1|B|b|1', '1|D|d|', '2|A|a|']);
  });

  it('leaves virtual columns alone', async ({ skip }) => {
    if (major < 18) skip();
    await c.each(
      'CREATE TABLE virtual (v int GENERATED ALWAYS AS (a * 3) VIRTUAL, id int PRIMARY KEY, a int)',
      'CREATE TABLE virtual_unique (id int NOT NULL UNIQUE, a int, v int GENERATED ALWAYS AS (a * 3))',
      'INSERT INTO virtual (id, a) SELECT i, i FROM generate_series(1, 40) i',
      'INSERT INTO virtual_unique (id, a) SELECT i, i FROM generate_series(1, 40) i',
      'UPDATE virtual SET a = 0 WHERE id < 5',
      'UPDATE virtual_unique SET a = 0, id = id + 100 WHERE id < 5',
      'DELETE FROM virtual WHERE v = 15',
      'DELETE FROM virtual_unique WHERE v = 15',
    );
    await c.expectSame();
    expect(await rows('SELECT sum(v) FROM virtual UNION ALL SELECT sum(v) FROM virtual_unique')).toEqual([
      '2415',
      '2415',
    ]);
  });

  it('writes identity columns, those that only the server may generate too', async () => {
    await c.each(
      'CREATE TABLE always_key (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text)',
      'CREATE TABLE always_value (k int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text, big text)',
      'CREATE TABLE always_only (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY)',
      'CREATE TABLE always_bag (n int GENERATED ALWAYS AS IDENTITY, v text)',
      'CREATE TABLE by_default (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, v text)',
      `INSERT INTO always_key (v) VALUES ('a'), ('b')`,
      `INSERT INTO always_value (k, v, big) SELECT g, 'v', ${noise(500)} FROM generate_series(1, 3) g`,
      'INSERT INTO always_only DEFAULT VALUES',
      `INSERT INTO always_bag (v) VALUES ('a'), ('a'), ('b')`,
      `INSERT INTO by_default (v) VALUES ('a'), ('b')`,
      `INSERT INTO by_default VALUES (1000000, 'mine')`,
      `INSERT INTO always_key OVERRIDING SYSTEM VALUE VALUES (1000000, 'mine')`,
    );
    await c.expectSame();
    await c.each(
      `UPDATE always_key SET v = 'c' WHERE v = 'a'`,
      `UPDATE always_key SET id = DEFAULT WHERE v = 'b'`,
      `UPDATE always_value SET v = 'w' WHERE k = 1`,
      `UPDATE always_value SET n = DEFAULT, v = 'x' WHERE k = 2`,
      'UPDATE always_value SET k = 30, n = DEFAULT WHERE k = 3',
      'UPDATE always_only SET id = DEFAULT',
      `UPDATE always_bag SET n = DEFAULT WHERE v = 'b'`,
      `UPDATE always_bag SET v = 'c' WHERE ${one('always_bag', `v = 'a'`)}`,
      'UPDATE by_default SET id = DEFAULT',
      'UPDATE by_default SET id = id + 1000000',
      'DELETE FROM always_value WHERE k = 30',
    );
    await c.expectSame();
  });

  it('hands out serial values on all nodes at once, none of them twice', async () => {
    await c.each(
      'CREATE TABLE ticket (id serial PRIMARY KEY, big bigserial UNIQUE, small int GENERATED ALWAYS AS IDENTITY UNIQUE, node int)',
    );
    await Promise.all(
      c.clients.map(async (client, node) => {
        for (let i = 0; i < 40; i++) await client.query(`INSERT INTO ticket (node) VALUES (${node}), (${node})`);
      }),
    );
    await c.expectSame();
    expect(await rows('SELECT count(*), count(DISTINCT id), count(DISTINCT big) FROM ticket')).toEqual(['240|240|240']);
  });

  it('takes names as they are', async () => {
    const table = `"S ""x"""."tä ble, "";--"`;
    await c.each(
      `CREATE SCHEMA "S ""x"""`,
      `CREATE TABLE ${table} ("select" int PRIMARY KEY, "a""b" text, "ö\\n" int, "$1" text, "e'f" text)`,
      `CREATE TABLE "S ""x"""."ctid" ("t" int, "row" int, "d" text, "T" int)`,
      `CREATE TABLE "${'n'.repeat(63)}" ("${'c'.repeat(63)}" int, " " text)`,
      `INSERT INTO ${table} VALUES (1, 'x', 2, '$2', ''''), (2, '', NULL, '', '')`,
      `INSERT INTO "S ""x"""."ctid" VALUES (1, 2, 'd', 3), (1, 2, 'd', 3)`,
      `INSERT INTO "${'n'.repeat(63)}" VALUES (1, ' '), (2, NULL)`,
    );
    await c.each(
      `UPDATE ${table} SET "a""b" = 'ÿ', "ö\\n" = NULL WHERE "select" = 1`,
      `DELETE FROM ${table} WHERE "select" = 2`,
      `UPDATE "S ""x"""."ctid" SET t = 5 WHERE ${one('"S ""x"""."ctid"', 'true')}`,
      `UPDATE "${'n'.repeat(63)}" SET " " = 'x' WHERE " " IS NULL`,
    );
    await c.expectSame();
  });
});
