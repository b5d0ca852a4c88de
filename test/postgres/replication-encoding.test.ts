import { afterEach, expect, it } from 'vitest';
import { ReplicationPair } from './replication-pair.ts';

let pair: ReplicationPair | undefined;
afterEach(() => pair?.stop());

it.each(['SQL_ASCII', 'LATIN1', 'EUC_JP', 'UTF8'])('replays text of a database in %s', async (encoding) => {
  pair = await ReplicationPair.start({ database: 'encoded', encoding });
  await pair.both(
    'CREATE TABLE "tä" (id int PRIMARY KEY, "ö" text, b bytea)'.replaceAll(/[äö]/g, (c) =>
      encoding === 'EUC_JP' ? 'x' : c,
    ),
  );
  const [table, column] = encoding === 'EUC_JP' ? ['tx', 'x'] : ['"tä"', '"ö"'];
  const text =
    { SQL_ASCII: `E'\\xff\\xe9x'`, LATIN1: `'é' || chr(255)`, EUC_JP: `'日本'`, UTF8: `'é日😀'` }[encoding] ?? '';
  await pair.run(`INSERT INTO ${table} VALUES (1, ${text}, '\\xff00'), (2, 'a', NULL)`);
  await pair.run(
    `UPDATE ${table} SET b = ${column}::bytea WHERE id = 1`,
    `UPDATE ${table} SET ${column} = ${text} || 'z' WHERE id = 2`,
  );
  await pair.run(`INSERT INTO ${table} SELECT g, ${text}, NULL FROM generate_series(10, 20000) g`);
  const hash = `SELECT md5(string_agg(id || encode(coalesce(${column}, '')::bytea, 'hex') || coalesce(b::text, '-'), ',' ORDER BY id)) AS h, count(*)::int AS n FROM ${table}`;
  const [a, b] = await Promise.all([pair.a, pair.b].map((client) => client.query(hash)));
  expect(b.rows).toEqual(a.rows);
});
