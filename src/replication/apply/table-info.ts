import type { ServerConnection } from '../../wire/connection.ts';

/** A foreign key of the table, as the child. Names are unquoted. */
export interface ForeignKey {
  readonly name: string;
  readonly columns: readonly string[];
  readonly parentSchema: string;
  readonly parent: string;
  readonly parentPartitioned: boolean;
  readonly parentColumns: readonly string[];
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
}

/** What replay has to know of a local table beyond what the origin's RELATION message says. */
export interface TableInfo {
  readonly columns: ReadonlyMap<string, ColumnInfo>;
  readonly foreignKeys: readonly ForeignKey[];
}

const literal = (text: string) => `'${text.replaceAll("'", "''")}'`;

function query(schema: string, name: string, serverVersion: number): string {
  const enforced = serverVersion >= 180_000 ? 'AND k.conenforced' : '';
  return `
SELECT pg_catalog.json_build_object(
  'columns', (
    SELECT live.columns FROM (
      SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
        'name', a.attname,
        'type', pg_catalog.format_type(a.atttypid, a.atttypmod),
        'generated', a.attgenerated <> '',
        'identityAlways', a.attidentity = 'a',
        'indexed', EXISTS (
          SELECT FROM pg_catalog.pg_index i
          JOIN pg_catalog.pg_class ic ON ic.oid = i.indexrelid
          JOIN pg_catalog.pg_am am ON am.oid = ic.relam AND am.amname = 'btree'
          WHERE i.indrelid = c.oid AND i.indisvalid AND i.indpred IS NULL AND i.indkey[0] = a.attnum)
      ) ORDER BY a.attnum) AS columns
      FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    ) live),
  'foreignKeys', (
    SELECT pg_catalog.json_agg(pg_catalog.json_build_object(
      'name', k.conname,
      'columns', (SELECT pg_catalog.json_agg(a.attname ORDER BY u.n) FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY u(attnum, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.attnum),
      'parentSchema', pn.nspname,
      'parent', p.relname,
      'parentPartitioned', p.relkind = 'p',
      'parentColumns', (SELECT pg_catalog.json_agg(a.attname ORDER BY u.n) FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY u(attnum, n)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.attnum)
    ))
    FROM pg_catalog.pg_constraint k
    JOIN pg_catalog.pg_class p ON p.oid = k.confrelid
    JOIN pg_catalog.pg_namespace pn ON pn.oid = p.relnamespace
    -- A partitioned parent has one more constraint per partition, with the same name's child rows: the root's is enough.
    LEFT JOIN pg_catalog.pg_constraint root ON root.oid = k.conparentid AND root.conrelid = k.conrelid
    WHERE k.conrelid = c.oid AND k.contype = 'f' AND root.oid IS NULL ${enforced})
)::pg_catalog.text
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = ${literal(schema)} AND c.relname = ${literal(name)}`;
}

/** Looks a table up over the apply session's own connection, so that DDL of the transaction in progress is seen. */
export async function loadTableInfo(connection: ServerConnection, schema: string, name: string): Promise<TableInfo> {
  const rows = await connection.query(query(schema, name, connection.serverVersion));
  if (rows.length === 0) throw new Error(`table "${schema}"."${name}" does not exist on this node`);
  const found = JSON.parse(rows[0][0] ?? '{}') as { columns: ColumnInfo[] | null; foreignKeys: ForeignKey[] | null };
  return {
    columns: new Map((found.columns ?? []).map((column) => [column.name, column])),
    foreignKeys: found.foreignKeys ?? [],
  };
}
