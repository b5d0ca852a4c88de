import { describe, expect, it } from 'vitest';
import { CopyText } from '../../../../src/replication/apply/copy-text.ts';
import { ForeignKeyChecks, foreignKeyViolation } from '../../../../src/replication/apply/foreign-key-checks.ts';
import { TableStatements } from '../../../../src/replication/apply/statements.ts';
import type { ColumnInfo, ForeignKey, TableInfo } from '../../../../src/replication/apply/table-info.ts';
import { readRelation } from '../../../../src/replication/pgoutput/messages.ts';
import { readRowChange } from '../../../../src/replication/pgoutput/tuples.ts';
import * as m from '../messages.ts';

const column = (name: string, more: Partial<ColumnInfo> = {}): ColumnInfo => ({
  name,
  type: 'integer',
  generated: false,
  identityAlways: false,
  indexed: false,
  equals: null,
  ...more,
});

const PARENT: ForeignKey = {
  name: 'fk',
  columns: ['a'],
  parentSchema: 'public',
  parent: 'p',
  parentPartitioned: false,
  parentColumns: ['id'],
  parentOperators: ['OPERATOR(pg_catalog.=)'],
  childOperators: ['OPERATOR(pg_catalog.=)'],
  period: false,
};

function table(
  columns: readonly (ColumnInfo & { key?: boolean })[],
  foreignKeys: readonly ForeignKey[] = [],
): TableStatements {
  const relation = readRelation(m.relation(1, 'public', 't', columns));
  const info: TableInfo = {
    columns: new Map(columns.map((c) => [c.name, c])),
    foreignKeys,
    uncheckedConstraint: null,
    deferrable: false,
    text: '',
  };
  return new TableStatements(relation, info, '1');
}

const shown = ({ sql, parameters }: { sql: string; parameters: readonly (Buffer | null)[] }) => [
  sql.replaceAll(/\s+/g, ' '),
  ...parameters.map((value) => value?.toString() ?? null),
];

describe('statements', () => {
  const t = table([{ ...column('id'), key: true }, column('v'), column('g', { generated: true })]);

  it('insert what is not generated', () => {
    expect(shown(t.build(readRowChange(m.insert(1, ['1', null, '9'])), false))).toEqual([
      'INSERT INTO "public"."t" ("id", "v") OVERRIDING SYSTEM VALUE VALUES ($1, $2)',
      '1',
      null,
    ]);
  });

  it('update by the old key where it was sent, and leave out what was not', () => {
    expect(shown(t.build(readRowChange(m.update(1, ['1', 'x', '9'])), false))).toEqual([
      'UPDATE ONLY "public"."t" SET "id" = $1, "v" = $2 WHERE "id" = $3::integer',
      ...['1', 'x', '1'],
    ]);
    const moved = m.update(1, ['2', undefined, null], { kind: 'K', row: ['1', null, null] });
    expect(shown(t.build(readRowChange(moved), false))).toEqual([
      'UPDATE ONLY "public"."t" SET "id" = $1 WHERE "id" = $2::integer',
      ...['2', '1'],
    ]);
  });

  it('find one row by its image, through an index where there is one', () => {
    const full = table([
      { ...column('a', { indexed: true, equals: 'OPERATOR(public.=)', type: 'public.citext' }), key: true },
      { ...column('b'), key: true },
    ]);
    expect(shown(full.build(readRowChange(m.remove(1, 'O', ['1', null])), false))).toEqual([
      'DELETE FROM ONLY "public"."t" WHERE ctid = (SELECT t.ctid FROM ONLY "public"."t" t WHERE ' +
        't."a" OPERATOR(public.=) $1::public.citext AND ROW(t."a", t."b")::record OPERATOR(pg_catalog.*=) ' +
        'ROW($1::public.citext, $2::integer)::record LIMIT 1)',
      ...['1', null],
    ]);
    const [sql] = shown(full.build(readRowChange(m.remove(1, 'O', [null, null])), false));
    expect(sql).toContain('t."a" IS NULL AND');
  });

  it('replace a row whose identity changed', () => {
    const always = table([{ ...column('id', { identityAlways: true }), key: true }, column('v')]);
    const change = m.update(1, ['2', undefined], { kind: 'K', row: ['1', null] });
    expect(shown(always.build(readRowChange(change), false))).toEqual([
      'WITH d AS (DELETE FROM ONLY "public"."t" WHERE "id" = $1::integer RETURNING *) INSERT INTO "public"."t" ("id", "v") ' +
        'OVERRIDING SYSTEM VALUE SELECT $2::integer, d."v" FROM d',
      ...['1', '2'],
    ]);
    expect(shown(always.build(readRowChange(m.update(1, ['2', 'x'])), false))).toEqual([
      'UPDATE ONLY "public"."t" SET "v" = $1 WHERE "id" = $2::integer',
      ...['x', '2'],
    ]);
  });

  it('keep the same text for the same shape, so that it stays prepared', () => {
    const one = t.build(readRowChange(m.update(1, ['1', 'x', null])), false);
    const two = t.build(readRowChange(m.update(1, ['7', null, null])), false);
    expect(two.key).toBe(one.key);
    expect(two.sql).toBe(one.sql);
  });
});

describe('foreign key checks', () => {
  const child = table([{ ...column('id'), key: true }, column('a'), column('v')], [PARENT]);
  const look = (late: boolean, ...messages: Buffer[]) => {
    const checks = new ForeignKeyChecks();
    const before = messages.flatMap((message) => checks.add(child, readRowChange(message), late));
    return { before: before.length, keys: [...checks].map(({ values }) => values.map(String).join()) };
  };

  it('look at each key that was inserted once, and at no NULL', () => {
    const messages = [
      ['1', '5'],
      ['2', '5'],
      ['3', null],
      ['4', '6'],
    ].map(([id = null, a = null]) => m.insert(1, [id, a, 'v']));
    expect(look(false, ...messages)).toEqual({ before: 0, keys: ['5', '6'] });
  });

  it('ask the row before an update that does not say whether the key changes', () => {
    expect(look(false, m.update(1, ['1', '5', 'v']))).toEqual({ before: 1, keys: [] });
    expect(look(true, m.update(1, ['1', '5', 'v']))).toEqual({ before: 0, keys: ['5'] });
    expect(look(false, m.update(1, ['1', undefined, 'v']), m.update(1, ['1', null, 'v']))).toEqual({
      before: 0,
      keys: [],
    });
    expect(look(false, m.remove(1, 'K', ['1', null, null]))).toEqual({ before: 0, keys: [] });
  });

  it('know from the old row whether the key changed', () => {
    const old = { kind: 'O', row: ['1', '5', 'v'] } as const;
    expect(look(false, m.update(1, ['1', '5', 'w'], old))).toEqual({ before: 0, keys: [] });
    expect(look(false, m.update(1, ['1', '6', 'v'], old))).toEqual({ before: 0, keys: ['6'] });
  });

  it('keep keys apart that look alike when they are joined', () => {
    const two = { ...PARENT, columns: ['a', 'v'], parentColumns: ['x', 'y'] };
    const t = table([{ ...column('id'), key: true }, column('a'), column('v')], [two]);
    const checks = new ForeignKeyChecks();
    for (const [a, v] of [
      ['1,2', '3'],
      ['1', '2,3'],
      ['1,1:2', ''],
      ['1', '1:2,'],
    ] as const) {
      checks.add(t, readRowChange(m.insert(1, ['1', a, v])), false);
    }
    expect(checks.size).toBe(4);
  });

  it('say it as PostgreSQL does', () => {
    const checks = new ForeignKeyChecks();
    checks.add(child, readRowChange(m.insert(1, ['1', '5', null])), false);
    const [check] = [...checks];
    expect(foreignKeyViolation(check)).toMatchObject({
      sqlstate: '23503',
      message: 'insert or update on table "t" violates foreign key constraint "fk"',
      detail: 'Key (a)=(5) is not present in table "p".',
    });
  });
});

describe('COPY text', () => {
  it('escapes what the format gives a meaning, and nothing else', () => {
    const copy = new CopyText();
    copy.row([Buffer.from('a\tb\nc\rd\\e'), null, Buffer.from(''), Buffer.from('\\N'), Buffer.from('é\b\v')]);
    copy.row([Buffer.from('\\.')]);
    expect(copy.take().toString()).toBe('a\\tb\\nc\\rd\\\\e\t\\N\t\t\\\\N\té\b\v\n\\\\.\n');
    expect(copy.length).toBe(0);
    copy.row([Buffer.alloc(300_000, '\\')]);
    expect(copy.take()).toHaveLength(600_001);
  });
});
