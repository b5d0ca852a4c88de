import { beforeAll, describe, expect, it } from 'vitest';
import { examine } from '../../../src/sql/lexer.ts';
import type { Verdict } from '../../../src/sql/lexer.ts';
import { hashNames } from '../../../src/sql/names.ts';
import { loadParser, parse } from '../../../src/sql/parser.ts';

const names = hashNames({
  volatileNames: new Set(['risky', 'Quoted']),
  taintedRelations: new Set(['tainted', 'Odd']),
  hidesLocks: false,
});
const judge = (sql: string): Verdict => {
  const bytes = Buffer.from(sql);
  return examine(bytes, 0, bytes.length, names);
};

const READS = [
  '',
  ' ; ;',
  'select 1',
  'SELECT count(*), lower(a) FROM t WHERE b = $1',
  'select 1; select 2;',
  "select 'insert; delete -- '' risky('",
  "select E'it\\'s; drop'",
  'select $$ delete from t; $$, $tag$ $$ risky( $tag$',
  'select 1 -- risky(1)\n',
  'select /* nested /* risky( */ ; */ 1',
  'values (1), (2)',
  'table t',
  'with x as (select 1) select * from x',
  '(select 1) union all (select 2)',
  'show work_mem',
  'explain select 1',
  'select "risky" from t',
  'select risky from t',
  "select 1e5, 0x1F, 1_000, a.b[1:2], a->>'b', x::int, @ -1",
  'select substring(a from 1 for 2) from t',
];

const PLAIN = [
  'insert into t values (1)',
  'update t set a = 1',
  'DELETE FROM t',
  'merge into t using s on true when matched then do nothing',
  'select risky(1)',
  'select RISKY (1)',
  'select schema.risky (1)',
  'select risky /* c */ (1)',
  'select t.risky from t',
  'select "Quoted"(1)',
  'select * from tainted',
  'select * from s."Odd"',
  "select nextval('s')",
  "select set_config('a', 'b', false)",
  "select current_setting('transaction_read_only')",
  'with x as (delete from t returning a) select * from x',
];

const LOCKING = [
  'select * from t for update',
  'select * from t FOR /* each */ UPDATE nowait',
  'select * from t for no key update of t',
  'select * from t for key share',
  'select * from t for\nshare skip locked',
  'with w as (select 1 from t for update) select * from w',
  'update t set a = (select b from u where c = 1 for share)',
];

const PARSE = [
  'begin',
  'commit',
  'create table t ()',
  'set a = 1',
  'copy t from stdin',
  'do $$ begin end $$',
  'select 1 into t',
  'with x as (select 1) insert into t select * from x',
  'select 1; commit',
  'select 1; insert into t values (1)',
  'insert into t values (1); select 1',
  'show transaction_read_only',
  'show default_transaction_read_only',
  'show "transaction_read_only"',
  'explain analyze select 1',
  'explain (analyze) create table x as select 1',
  'explain ("analyze") create table x as select 1',
  'explain insert into t values (1)',
  "select setval('s', 1)",
  "select pg_notify('a', 'b')",
  "select U&'\\0041'",
  'select U&"\\0041"',
  "select 'open",
  'select "open',
  'select "a""b"',
  'select /* open',
  'select $$ open',
  "select E'a'\n'b\\''",
  '"begin"',
  'execute p',
];

describe('the lexer', () => {
  it.each(READS)('takes for a read: %s', (sql) => {
    expect(judge(sql)).toBe('read');
  });

  it.each(PLAIN)('takes for a statement that may write: %s', (sql) => {
    expect(judge(sql)).toBe('plain');
  });

  it.each(LOCKING)('takes for a statement that may lock rows: %s', (sql) => {
    expect(judge(sql)).toBe('locking');
  });

  it.each(PARSE)('leaves to the parser: %s', (sql) => {
    expect(judge(sql)).toBe('parse');
  });

  it('never looks beyond its range', () => {
    const bytes = Buffer.from("select 1'; delete from t");
    expect(examine(bytes, 0, 8, names)).toBe('read');
    for (let end = 0; end <= bytes.length; end++) examine(bytes, 0, end, names);
  });
});

describe('the lexer against the parser', () => {
  beforeAll(loadParser);

  /** Fragments that make every construct meet every other one. */
  const FRAGMENTS = [
    ...["'", '"', '$$', '$a$', '--', '/*', '*/', '\n', ';', ' ', '\\', "E'", "''", '(', ')', ',', '.', '1', '$1', 'x'],
    ...[
      ' select ',
      ' insert into t values (1) ',
      ' commit ',
      ' from t ',
      ' delete from t ',
      ' with q as (',
      ' values (1) ',
      ' into ',
    ],
  ];

  it('calls nothing a read that the parser finds to be more than SELECT, SHOW and EXPLAIN', () => {
    let state = 42;
    const below = (n: number): number => {
      state = (Math.imul(state, 1103515245) + 12345) >>> 0;
      return Math.floor((state / 4294967296) * n);
    };
    let reads = 0;
    for (let i = 0; i < 60_000; i++) {
      let sql = below(2) === 0 ? 'select ' : '';
      for (let n = 1 + below(9); n > 0; n--) sql += FRAGMENTS[below(FRAGMENTS.length)];
      if (judge(sql) !== 'read') continue;
      const statements = parse(sql);
      if (statements === undefined) continue;
      reads++;
      for (const { name, node } of statements) {
        expect(['SelectStmt', 'VariableShowStmt', 'ExplainStmt'], sql).toContain(name);
        expect(JSON.stringify(node), sql).not.toMatch(/InsertStmt|DeleteStmt|intoClause/);
      }
    }
    expect(reads).toBeGreaterThan(500);
  });
});
