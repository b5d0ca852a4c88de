import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { ReplayCluster } from '../support/replay-cluster.ts';

const AWKWARD = `E'a\\\\b\\tc\\nd\\re''f"g\\b\\f\\v,{}\\\\N €𝄞 '`;

/** Values of each base type, as expressions; what is hard to write, to read or to compare comes first. */
const VALUES: Readonly<Record<string, readonly string[]>> = {
  aclitem: [`'postgres=r/postgres'`, `'=r*w/postgres'`],
  bit: [`B'1'`, `B'0'`],
  bool: ['true', 'false'],
  box: [`'(1.5,2.5),(0.25,0)'`, `'(Infinity,1),(0,-Infinity)'`],
  bpchar: [`'ab   '`, `''`, `'é'`],
  bytea: [`'\\x00ff5c0a09'`, `''`, `E'\\\\\\\\'::bytea`],
  char: [`'x'`, `''`, `E'\\\\377'`, `'\\'`],
  cid: [`'7'`, `'4294967295'`],
  cidr: [`'10.1.2.0/24'`, `'::/0'`],
  circle: [`'<(1,2),3>'`, `'<(0,0),0>'`],
  cstring: [],
  date: [`'2024-02-29'`, `'infinity'`, `'-infinity'`, `'0044-03-15 BC'`, `'5874897-12-31'`],
  datemultirange: [`'{[2024-01-01,2024-02-01),[2025-01-01,)}'`, `'{}'`],
  daterange: [`'[2024-01-01,2024-02-01)'`, `'empty'`, `'(,)'`, `'[,infinity)'`],
  float4: [`'NaN'`, `'Infinity'`, `'-0'`, `'1.1754944e-38'`, `'0.1'`, `'3.4028235e38'`],
  float8: [`'NaN'`, `'-Infinity'`, `'-0'`, `'5e-324'`, '0.1::float8 + 0.2', `'1.7976931348623157e308'`],
  gtsvector: [],
  inet: [`'10.1.2.3/8'`, `'::ffff:1.2.3.4'`, `'fe80::1/64'`],
  int2: ['-32768', '32767'],
  int2vector: [`'1 2 3'`, `''`],
  int4: ['-2147483648', '2147483647'],
  int4multirange: [`'{[1,3),[5,7)}'`, `'{}'`, `'{(,)}'`],
  int4range: [`'[1,10)'`, `'empty'`, `'(,5)'`],
  int8: ['-9223372036854775808', '9223372036854775807'],
  int8multirange: [`'{[1,3),[5,)}'`],
  int8range: [`'[1,10)'`, `'empty'`],
  interval: [`'1 year -2 mons 3 days -04:05:06.789'`, `'-178000000 years'`, `'0'`, `'30 days'`, `'1 mon'`],
  json: [`'{"a" :  1, "a":2, "t": "\\t\\u0001", "x": null}'`, `'"é"'`, `' [1,2]'`, `'null'`],
  jsonb: [`'{"a": {"b": [1, 2.50, "x\\ty"]}, "é": null}'`, `'"\\\\"'`, `'null'`, `'1e-400'`],
  jsonpath: [`'$."a b"[*] ? (@ > 1)'`],
  line: [`'{1,2,3}'`],
  lseg: [`'[(0,0),(1,1)]'`],
  macaddr: [`'08:00:2b:01:02:03'`],
  macaddr8: [`'08:00:2b:01:02:03:04:05'`],
  money: [`'12.34'`, `'-92233720368547758.08'`],
  name: [`'a "quoted" name'`, `''`, `repeat('n', 63)`],
  nummultirange: [`'{[1.50,2.5),(3,)}'`],
  numrange: [`'[1.50,2.5)'`, `'(,NaN]'`],
  numeric: [`'NaN'`, `'Infinity'`, `'-Infinity'`, `'1.50'`, `'1.5'`, `1e-1000`, `repeat('9', 3000)::numeric`, '0.000'],
  oid: ['0', '4294967295'],
  oid8: [`'18446744073709551615'`],
  oidvector: [`'1 2 3'`],
  path: [`'[(0,0),(1,1),(2,0)]'`, `'((0,0),(1,1))'`],
  pg_lsn: [`'0/16B3748'`, `'FFFFFFFF/FFFFFFFF'`],
  pg_snapshot: [`'10:20:10,14'`],
  point: [`'(1.5,-0)'`, `'(NaN,Infinity)'`],
  polygon: [`'((0,0),(1,1),(2,0))'`],
  refcursor: [`'a cursor'`, `''`],
  regclass: [`'pg_class'`, `'0'`, `'types_key'`],
  regcollation: [`'"C"'`],
  regconfig: [`'english'`],
  regdatabase: [`'postgres'`],
  regdictionary: [`'english_stem'`],
  regnamespace: [`'public'`, `'pg_catalog'`],
  regoper: [`'pg_catalog.||/'`],
  regoperator: [`'+(integer,integer)'`, `'-(NONE,integer)'`],
  regproc: [`'pg_backend_pid'`],
  regprocedure: [`'lower(text)'`],
  regrole: [`'postgres'`],
  regtype: [`'integer'`, `'timestamp(3) with time zone[]'`, `'mood'`],
  text: [AWKWARD, `''`, `' '`, `'\\N'`, `'\\.'`, `'NULL'`, `repeat('long é', 500)`],
  tid: [`'(4294967295,65535)'`, `'(0,1)'`],
  time: [`'24:00:00'`, `'04:05:06.789012'`],
  timestamp: [`'infinity'`, `'-infinity'`, `'2024-02-29 12:34:56.789012'`, `'4713-01-01 00:00:00 BC'`],
  timestamptz: [`'infinity'`, `'-infinity'`, `'2024-02-29 12:34:56.789012+05:30'`, `'0044-03-15 00:00 BC'`],
  timetz: [`'24:00:00-15:59:59'`, `'04:05:06.789+02:30'`],
  tsmultirange: [`'{[2024-01-01,2024-02-01)}'`],
  tsquery: [`'''a b'' & !c:AB | d:* <2> e'`, `''`],
  tsrange: [`'[2024-01-01 00:00,infinity]'`, `'empty'`],
  tstzmultirange: [`'{[2024-01-01 00:00+00,2024-02-01 00:00+05)}'`],
  tstzrange: [`'[2024-01-01 00:00+00,2024-02-01 00:00+05)'`, `'(,infinity)'`],
  tsvector: [`'a:1A ''b c'':2B,3 ''d\\\\'':4'`, `''`],
  txid_snapshot: [`'10:20:10,14'`],
  unknown: [],
  uuid: [`'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'`],
  varbit: [`B''`, `B'10101'`],
  varchar: [AWKWARD, `''`],
  xid: [`'7'`],
  xid8: [`'18446744073709551615'`],
  xml: [`'<a b="c">&amp; é<![CDATA[x]]></a>'`, `'text'`],
  // The test's own.
  mood: [`'sad'`, `'it''s "ok", really'`, `'é'`],
  posint: ['1'],
  shout: [`'X y'`, `''`],
  pair: [`(1, AWKWARD)`, `(NULL, '')`, `ROW(NULL, NULL)`],
  textrange: [`'["a,b","c\\"d")'`, `'empty'`],
  textmultirange: [`'{[a,b),["c ","d,")}'`],
};

/** Types that have no input function to speak of: no column's value can be written as text. */
const WITHOUT_INPUT = /^(pg_node_tree|pg_ndistinct|pg_dependencies|pg_mcv_list|pg_brin_.*|gtsvector|cstring|unknown)$/;

interface Typed {
  /** As it is written in a column's definition. */
  readonly type: string;
  readonly values: readonly string[];
}

describe('replay of every type', () => {
  let c: ReplayCluster;
  let types: Typed[];

  beforeAll(async () => {
    c = await ReplayCluster.start();
    await c.each(
      'CREATE TABLE types_key (id int PRIMARY KEY)',
      `CREATE TYPE mood AS ENUM ('sad', 'it''s "ok", really', 'é')`,
      'CREATE DOMAIN posint AS int CHECK (VALUE > 0)',
      `CREATE DOMAIN shout AS varchar(20) COLLATE "C" DEFAULT 'HEY'`,
      'CREATE TYPE pair AS (a int, "b ""c" text)',
      'CREATE TYPE textrange AS RANGE (subtype = text)',
      'DROP TABLE types_key',
      'CREATE TABLE types_key (id int PRIMARY KEY)',
      'CREATE TABLE types_full (id int)',
    );
    types = await listTypes();
    for (const table of ['types_key', 'types_full']) {
      const columns = types.map(({ type }, i) => `ADD c${i} ${type}`);
      await c.run(`ALTER TABLE ${table} ${columns.join(', ')}`);
    }
  });
  afterAll(() => c.stop());

  /** Every type that a column can have, and an array of it. */
  async function listTypes(): Promise<Typed[]> {
    const found = await c.rows(`
      SELECT t.typname, format_type(t.oid, -1), format_type(nullif(t.typarray, 0), -1) FROM pg_type t
      JOIN pg_namespace n ON n.oid = t.typnamespace
      WHERE (t.typtype IN ('b', 'r', 'm', 'e', 'd') OR t.typname = 'pair')
        AND NOT EXISTS (SELECT FROM pg_type e WHERE e.typarray = t.oid)
        AND n.nspname IN ('pg_catalog', 'public') ORDER BY t.typname`);
    const list: Typed[] = [];
    for (const [name, type, array] of found as [string, string, string | null][]) {
      if (WITHOUT_INPUT.test(name)) continue;
      const values = (VALUES[name] ?? []).map((value) => `(${value.replace('AWKWARD', AWKWARD)})::${type}`);
      expect(values, `there is a value of type ${name}`).not.toEqual([]);
      list.push({ type, values });
      if (array !== null) list.push({ type: array, values: arrays(values, array) });
    }
    const modified = {
      'varchar(3)[]': [`'{abc,NULL,""}'`],
      'char(7)': [`'abc'`, `''`],
      'bit(5)': [`B'10101'`],
      'varbit(9)': [`B'101'`, `B''`],
      'numeric(10,2)': [`'1.5'`, `'NaN'`],
      'numeric(3,-2)': ['12345'],
      'interval year to month': [`'1-2'`],
      'interval(2)': [`'1.239 s'`],
      'time(0)': [`'04:05:06.789'`],
      'timestamptz(3)': [`'2024-02-29 12:34:56.789012+00'`],
      'float(10)': ['0.1'],
    };
    for (const [type, values] of Object.entries(modified)) {
      list.push({ type, values: values.map((value) => `${value}::${type}`) });
    }
    return list;
  }

  function arrays(values: readonly string[], type: string): string[] {
    const three = [0, 1, 2].map((i) => values[i % values.length]);
    return [
      `ARRAY[${three[0]}, NULL, ${three[1]}]::${type}`,
      `'{}'::${type}`,
      `ARRAY[ARRAY[${three[0]}, ${three[1]}], ARRAY[${three[2]}, ${three[0]}]]::${type}`,
    ];
  }

  /** The n-th values of all types, each as often as needed. */
  const values = (n: number): string => types.map((one) => one.values[n % one.values.length]).join(', ');
  const most = (): number => Math.max(...types.map((one) => one.values.length));
  const columns = (): string => types.map((_, i) => `c${i}`).join(', ');

  it('knows a value of every type that the server has', () => {
    expect(types.length).toBeGreaterThan(150);
  });

  it.each(['types_key', 'types_full'])('carries rows of every type: %s', async (table) => {
    for (let n = 0; n < most(); n++) await c.run(`INSERT INTO ${table} VALUES (${n + 1}, ${values(n)})`);
    await c.run(`INSERT INTO ${table} (id) VALUES (100), (101), (102)`);
    await c.expectSame();
    await c.run(`UPDATE ${table} SET (${columns()}) = ROW(${values(1)}) WHERE id = 100`);
    await c.run(`UPDATE ${table} SET id = id + 1000 WHERE id < 100`);
    await c.run(`UPDATE ${table} SET (${columns()}) = ROW(${types.map(() => 'NULL').join(', ')}) WHERE id = 1001`);
    await c.expectSame();
    expect(await c.rows(`SELECT count(*) FROM ${table}`)).toEqual([[String(most() + 3)]]);
    await c.run(`DELETE FROM ${table} WHERE id > 1000`);
    expect(await c.rows(`SELECT id FROM ${table} ORDER BY id`)).toEqual([['100'], ['101'], ['102']]);
    await c.run(`DELETE FROM ${table}`);
    expect(await c.rows(`SELECT FROM ${table}`)).toEqual([]);
  });

  it('carries rows of every type in one large transaction, which takes the way of COPY', async () => {
    const rows = Array.from({ length: 60 }, (_, n) => `(${n}, ${values(n)})`);
    await c.run(`INSERT INTO types_key VALUES ${rows.join(', ')}`, `INSERT INTO types_full SELECT * FROM types_key`);
    await c.run('UPDATE types_key SET id = id + 1000');
    await c.expectSame();
    await c.run('DELETE FROM types_full', 'TRUNCATE types_key');
    expect(await c.rows('SELECT FROM types_key UNION ALL SELECT FROM types_full')).toEqual([]);
  });

  it('finds rows by a key of every type that can be one', async () => {
    const able = await c.rows(`
      SELECT DISTINCT format_type(t.oid, -1) FROM pg_type t JOIN pg_opclass o ON o.opcdefault AND o.opcmethod = 403
        AND (o.opcintype = t.oid OR o.opcintype = 'anyenum'::regtype AND t.typtype = 'e' OR o.opcintype = 'anyrange'::regtype AND t.typtype = 'r'
          OR o.opcintype = 'anymultirange'::regtype AND t.typtype = 'm' OR o.opcintype = 'record'::regtype AND t.typname = 'pair'
          OR o.opcintype = 'anyarray'::regtype AND t.typcategory = 'A' AND t.typname ~ '^_(text|int4|numeric|mood|daterange)$')`);
    const names = new Set(able.map(([name]) => name));
    const keyed = types.filter(({ type }) => names.has(type));
    expect(keyed.length).toBeGreaterThan(35);
    await c.run(...keyed.map(({ type }, i) => `CREATE TABLE key_${i} (k ${type} PRIMARY KEY, v int)`));
    const each = (sql: (table: string, typed: Typed) => string) => keyed.map((typed, i) => sql(`key_${i}`, typed));
    for (let n = 0; n < most(); n++) {
      const value = ({ values: list }: Typed) => list[n % list.length];
      await c.run(...each((table, typed) => `INSERT INTO ${table} VALUES (${value(typed)}, 1) ON CONFLICT DO NOTHING`));
    }
    await c.run(...each((table) => `UPDATE ${table} SET v = 2`));
    await c.expectSame();
    await c.run(...each((table, { values: [first] }) => `UPDATE ${table} SET v = 3 WHERE k = ${first}`));
    await c.run(...each((table, { values: [first] }) => `DELETE FROM ${table} WHERE k = ${first}`));
    await c.expectSame();
    await c.run(...each((table) => `DELETE FROM ${table}`));
    await c.expectSame();
  });
});
