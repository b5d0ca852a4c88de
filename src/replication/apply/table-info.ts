import { PgError } from '../../runtime/errors.ts';
import { literal } from '../../runtime/sql-text.ts';
import type { ServerConnection } from '../../wire/connection.ts';

/** A foreign key of the table, as the child. Names are unquoted; operators are ready to be written between two operands. */
export interface ForeignKey {
  readonly name: string;
  readonly columns: readonly string[];
  readonly parentSchema: string;
  readonly parent: string;
  readonly parentPartitioned: boolean;
  readonly parentColumns: readonly string[];
  /** Parent column = child's value, as PostgreSQL's own trigger compares them. */
  readonly parentOperators: readonly string[];
  /** Child column = child's value. */
  readonly childOperators: readonly string[];
  /** FOREIGN KEY … PERIOD of 18: the last column's range must be covered by all its parents together. */
  readonly period: boolean;
}

export interface ColumnInfo {
  readonly name: string;
  /** The type's name with its modifier, qualified. */
  readonly type: string;
  readonly generated: boolean;
  /** GENERATED ALWAYS AS IDENTITY: an UPDATE can't set it. */
  readonly identityAlways: boolean;
  /** Leads a B-tree index, so rows without a key are better looked for through it. */
  readonly indexed: boolean;
  /**
   * The equality operator of an index that the column is part of. The search path is empty, so the plain `=` of a type such
   * as citext would be another type's.
   */
  readonly equals: string | null;
}

/** What replay has to know of a local table beyond what the origin's RELATION message says. */
export interface TableInfo {
  readonly columns: ReadonlyMap<string, ColumnInfo>;
  readonly foreignKeys: readonly ForeignKey[];
  /**
   * Has a DEFERRABLE unique or exclusion constraint whose trigger does not fire on replay: without it PostgreSQL would
   * accept duplicates (index.c, `indimmediate`).
   */
  readonly uncheckedConstraint: string | null;
  /** Has a DEFERRABLE unique or exclusion constraint at all. */
  readonly deferrable: boolean;
  /** All of the above as it was read, to be compared with a later reading. */
  readonly text: string;
}

/** An operator by its oid, as `OPERATOR(schema.name)`. */
const operator = (oid: string) => `(
  SELECT pg_catalog.format('OPERATOR(%I.%s)', n.nspname, o.oprname)
  FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE o.oid = ${oid})`;

const operators = (oids: string) => `(
  SELECT pg_catalog.json_agg(${operator('u.op')} ORDER BY u.n) FROM pg_catalog.unnest(${oids}) WITH ORDINALITY u(op, n))`;

const columnNames = (table: string, numbers: string) => `(
  SELECT pg_catalog.json_agg(a.attname ORDER BY u.n) FROM pg_catalog.unnest(${numbers}) WITH ORDINALITY u(attnum, n)
  JOIN pg_catalog.pg_attribute a ON a.attrelid = ${table} AND a.attnum = u.attnum)`;

/** Key columns of usable B-tree indexes, with their operator class. */
const INDEXED = `
  SELECT u.attnum, u.n, u.opclass, i.indisreplident, i.indisprimary
  FROM pg_catalog.pg_index i
  JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
  JOIN pg_catalog.pg_am am ON am.oid = ic.relam AND am.amname = 'btree',
  ROWS FROM (pg_catalog.unnest(i.indkey::pg_catalog.int2[]), pg_catalog.unnest(i.indclass::pg_catalog.oid[]))
    WITH ORDINALITY u(attnum, opclass, n)
  WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND u.opclass IS NOT NULL`;

const COLUMNS = `
  SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
    'name', a.attname,
    'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
    'generated', a.attgenerated <> '',
    'identityAlways', a.attidentity = 'a',
    'indexed', EXISTS (SELECT FROM (${INDEXED}) x WHERE x.attnum = a.attnum AND x.n = 1),
    'equals', (
      SELECT ${operator('ao.amopopr')}
      FROM (${INDEXED}) x
      JOIN pg_catalog.pg_opclass oc ON oc.oid = x.opclass
      JOIN pg_catalog.pg_amop ao ON ao.amopfamily = oc.opcfamily AND ao.amopstrategy = 3
        AND ao.amoplefttype = oc.opcintype AND ao.amoprighttype = oc.opcintype
      WHERE x.attnum = a.attnum ORDER BY x.indisreplident DESC, x.indisprimary DESC, x.n LIMIT 1)
  ) ORDER BY a.attnum)
  FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped`;

function foreignKeys(serverVersion: number): string {
  const enforced = serverVersion >= 180_000 ? 'AND k.conenforced' : '';
  return `
  SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
    'name', k.conname,
    'columns', ${columnNames('k.conrelid', 'k.conkey')},
    'parentSchema', pn.nspname,
    'parent', p.relname,
    'parentPartitioned', p.relkind = 'p',
    'parentColumns', ${columnNames('k.confrelid', 'k.confkey')},
    'parentOperators', ${operators('k.conpfeqop')},
    'childOperators', ${operators('k.conffeqop')},
    'period', ${serverVersion >= 180_000 ? 'k.conperiod' : 'false'}
  ))
  FROM pg_catalog.pg_constraint k
  JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
  JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
  -- A partitioned parent has one more constraint per partition, of the same child: the root's is enough.
  LEFT JOIN pg_catalog.pg_constraint root ON root.oid = k.conparentid AND root.conrelid = k.conrelid
  WHERE k.conrelid = c.oid AND k.contype = 'f' AND root.oid IS NULL ${enforced}`;
}

const DEFERRABLE = `
  FROM pg_catalog.pg_constraint k JOIN pg_catalog.pg_trigger t ON t.tgconstraint = k.oid AND t.tgrelid = k.conrelid
  WHERE k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x') AND k.condeferrable`;

function query(schema: string, name: string, serverVersion: number): string {
  return `
SELECT pg_catalog.json_build_object(
  'columns', (${COLUMNS}),
  'foreignKeys', (${foreignKeys(serverVersion)}),
  'uncheckedConstraint', (
    SELECT pg_catalog.min(k.conname::pg_catalog.text) ${DEFERRABLE} AND t.tgenabled NOT IN ('A', 'R')),
  'deferrable', EXISTS (SELECT ${DEFERRABLE})
)::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ${literal(schema)} AND c.relname = ${literal(name)}`;
}

/** Looks a table up over the apply session's own connection, so that DDL of the transaction in progress is seen. */
export async function loadTableInfo(connection: ServerConnection, schema: string, name: string): Promise<TableInfo> {
  const rows = await connection.query(query(schema, name, connection.serverVersion));
  const text = rows[0]?.[0];
  if (typeof text !== 'string') throw new PgError('42P01', `table "${schema}"."${name}" does not exist on this node`);
  const found = JSON.parse(text) as {
    columns: ColumnInfo[] | null;
    foreignKeys: ForeignKey[] | null;
    uncheckedConstraint: string | null;
    deferrable: boolean;
  };
  return {
    columns: new Map((found.columns ?? []).map((column) => [column.name, column])),
    foreignKeys: found.foreignKeys ?? [],
    uncheckedConstraint: found.uncheckedConstraint,
    deferrable: found.deferrable,
    text,
  };
}
