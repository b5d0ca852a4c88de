import { beforeAll, describe, expect, it } from 'vitest';
import { keysSql, LOCK_FUNCTIONS, withDenials, withoutCalls } from '../../../src/sql/advisory.ts';
import { classify } from '../../../src/sql/classify.ts';
import { Classifier } from '../../../src/sql/classifier.ts';
import type { LockStatement } from '../../../src/sql/kinds.ts';
import { loadParser } from '../../../src/sql/parser.ts';

beforeAll(loadParser);

const HIDDEN = { functions: new Set(['takes']), relations: new Set(['locking_view']) };

function kindOf(sql: string) {
  const [statement] = classify(sql, HIDDEN) ?? [];
  return statement.kind;
}

function read(sql: string): LockStatement {
  const kind = kindOf(sql);
  if (kind.type !== 'lock') throw new Error(`${sql} is ${kind.type}`);
  return kind.locks;
}

describe('calls that lock', () => {
  it.each([
    ['SELECT pg_advisory_lock(5)', 'lock', false, false, ['5']],
    ['select PG_CATALOG.pg_try_advisory_xact_lock_shared( $1 , -2 ) as got', 'try', true, true, ['$1', '- 2']],
    ["SELECT pg_advisory_unlock(hashtext('a,(b') /* , */ )::text", 'unlock', false, false, ["hashtext ( 'a,(b' )"]],
    ['SELECT "pg_advisory_unlock_shared"($$1$$::bigint)', 'unlock', true, false, ['$$1$$ :: bigint']],
    ['SELECT pg_advisory_unlock_all()', 'unlock all', false, false, []],
    ['SELECT 1 FROM pg_advisory_xact_lock(CAST($3 AS int8)) AS l', 'lock', false, true, ['CAST ( $1 AS int8 )']],
  ])('%s', (sql, effect, shared, transaction, key) => {
    const { calls } = read(sql);
    expect(calls).toMatchObject([{ effect, shared, transaction, key }]);
  });

  it('are told in their order, with the parameters that they need', () => {
    const locks = read('SELECT $1::text, pg_advisory_lock($4, $2), pg_try_advisory_lock(abs($2))');
    expect(locks.calls.map(({ name }) => name)).toEqual(['pg_advisory_lock', 'pg_try_advisory_lock']);
    expect(locks.parameters).toEqual([4, 2]);
    expect(keysSql(locks)).toMatch(
      /^SELECT \(\$1\)::pg_catalog\.int4, \(\$2\)::pg_catalog\.int4, \(abs \( \$2 \)\)::pg_catalog\.int8, /,
    );
  });

  it('are replaced where they stand, whatever the characters before', () => {
    const sql = "SELECT 'é😀', pg_try_advisory_lock(1), pg_try_advisory_lock(2)::text AS x;";
    const [statement] = classify(sql, HIDDEN)!;
    const text = sql.slice(statement.start, statement.end);
    expect(withoutCalls(text, read(sql), new Set([1]))).toBe(
      "SELECT 'é😀', pg_try_advisory_lock(1), (SELECT false AS pg_try_advisory_lock)::text AS x",
    );
    const guarded = withDenials(text, read(sql));
    expect(guarded.match(/ELSE pg_try_advisory_lock\(\d\) END AS pg_try_advisory_lock\)/g)).toHaveLength(2);
    expect(classify(guarded, undefined)).toHaveLength(1);
  });

  it('are known to be carried out, or not', () => {
    expect(read('SELECT pg_advisory_lock(1), pg_advisory_xact_lock(2)').onlyTakes).toBe(true);
    expect(read('SELECT pg_advisory_lock(1), pg_advisory_unlock(2)').onlyTakes).toBe(false);
    expect(read('SELECT CASE WHEN false THEN pg_advisory_lock(1) END').onlyTakes).toBe(false);
    expect(read('SELECT pg_advisory_lock(1) LIMIT 0').onlyTakes).toBe(false);
  });

  it.each([
    'SELECT pg_advisory_lock(id) FROM t',
    'SELECT pg_advisory_lock(1) FROM t',
    'SELECT pg_advisory_lock(1) WHERE true',
    'SELECT pg_advisory_lock(1) UNION SELECT pg_advisory_lock(2)',
    'SELECT pg_advisory_lock((SELECT 1))',
    'SELECT pg_advisory_lock(random()::int)',
    'SELECT pg_advisory_lock(pg_try_advisory_lock(1)::int)',
    'SELECT * FROM pg_try_advisory_lock(1)',
    'SELECT * FROM (SELECT pg_try_advisory_lock(1)) x',
    'VALUES (pg_try_advisory_lock(1))',
    'INSERT INTO t VALUES (pg_try_advisory_lock(1)::int)',
    'EXECUTE p(pg_advisory_lock(1))',
    'PREPARE p AS SELECT pg_advisory_lock(1)',
    'DECLARE c CURSOR FOR SELECT pg_advisory_lock(1)',
    'COPY (SELECT pg_advisory_lock(1)) TO STDOUT',
    'EXPLAIN ANALYZE SELECT pg_advisory_lock(1)',
    'DO $$ BEGIN PERFORM pg_advisory_lock(1); END $$',
    'SELECT takes()',
    'CALL takes()',
    'SELECT * FROM locking_view',
  ])('are refused where they cannot be followed: %s', (sql) => {
    const kind = kindOf(sql);
    expect(kind.type).toBe('unsupported');
    expect(kind).toHaveProperty('hint', expect.stringContaining('advisory_locks'));
  });

  it.each([
    "SELECT 'pg_advisory_lock(1)'",
    'EXPLAIN SELECT pg_advisory_lock(1)',
    'CREATE VIEW v AS SELECT pg_try_advisory_lock(1)',
    "SELECT * FROM pg_locks WHERE locktype = 'advisory'",
  ])('are not seen where there are none: %s', (sql) => {
    expect(['read', 'write', 'ddl']).toContain(kindOf(sql).type);
  });
});

describe('the classifier', () => {
  const examine = (classifier: Classifier, sql: string) =>
    classifier.examine(Buffer.from(sql), 0, Buffer.byteLength(sql));
  const names = {
    volatileNames: new Set<string>(),
    taintedRelations: new Set(['locking_view']),
    hidesLocks: false,
    hiddenAdvisory: HIDDEN,
  };

  it('has texts with lock functions parsed, and no others', () => {
    const classifier = new Classifier(() => names, true);
    for (const name of LOCK_FUNCTIONS) expect(examine(classifier, `SELECT ${name}(1)`), name).toBe('parse');
    for (const sql of ['SELECT takes()', 'SELECT 1 FROM locking_view', 'SELECT "locking_view"'])
      expect(examine(classifier, sql), sql).toBe('parse');
    expect(examine(classifier, 'SELECT pg_backend_pid()')).toBe('read');
    expect(LOCK_FUNCTIONS).toHaveLength(11);
  });

  it('leaves them alone where they are each node’s own', () => {
    const classifier = new Classifier(() => names);
    expect(examine(classifier, 'SELECT pg_advisory_lock(1)')).toBe('read');
    expect(classify('SELECT pg_advisory_lock(id) FROM t')?.[0].kind.type).not.toBe('unsupported');
  });

  it('forgets what it judged when functions change', () => {
    let current: typeof names | undefined = {
      ...names,
      hiddenAdvisory: { functions: new Set(), relations: new Set() },
    };
    const classifier = new Classifier(() => current ?? names, true);
    const first = classifier.classify('CALL takes()');
    current = undefined;
    const second = classifier.classify('CALL takes()');
    const kinds = [first, second].map((one) => one.type === 'statements' && one.statements[0].kind.type);
    expect(kinds).toEqual(['write', 'unsupported']);
  });
});
