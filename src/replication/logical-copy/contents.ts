import type { ServerConnection } from '../../wire/connection.ts';
import { literal, quote } from '../../runtime/sql-text.ts';
import type { CopiedTable, CopyHeader, DatabaseDefinition } from './frames.ts';
import { grantStatements, type Acl, type CopiedRole, type Membership, type RoleSetting } from './roles.ts';

/** Queries that tell what a database holds and a dump of its schema does not say, or says in a form that can't be used. */

type Row = Readonly<Record<string, unknown>>;

async function ask<T = Row>(connection: ServerConnection, sql: string): Promise<T[]> {
  const rows = await connection.query(`SELECT pg_catalog.to_json(q.*)::pg_catalog.text FROM (${sql}) q`);
  return rows.map(([text]) => JSON.parse(text ?? 'null') as T);
}

const USER_SCHEMA = `n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'multimaster')
  AND n.nspname NOT LIKE 'pg\\_temp\\_%' AND n.nspname NOT LIKE 'pg\\_toast\\_temp\\_%'`;

/** A table whose rows are to be read, with what only the donor needs to know of it. */
export interface SourceTable extends CopiedTable {
  /** Bytes on disk. */
  readonly size: number;
  /** The query that gives its rows. */
  readonly query: string;
  /** Whether it can be locked by LOCK TABLE. */
  readonly isLockable: boolean;
}

/**
 * Permanent tables, each leaf of a partitioned one, and populated materialized views. Of tables that belong to an extension only those that it says
 * the user configures it by, and the rows that it says are the user's. Unlogged tables have rows of their own on every node.
 */
const TABLES = `
SELECT n.nspname AS schema, c.relname AS name, CASE c.relkind WHEN 'm' THEN 'materialized view' ELSE 'table' END AS kind,
  pg_catalog.pg_table_size(c.oid) AS size, e.condition,
  ARRAY(SELECT a.attname FROM pg_catalog.pg_attribute a
    WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum) AS columns
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN LATERAL (
  SELECT true AS belongs, x.extcondition[k.place] AS condition, k.place
  FROM pg_catalog.pg_depend d JOIN pg_catalog.pg_extension x ON x.oid = d.refobjid
  LEFT JOIN LATERAL (SELECT pg_catalog.array_position(x.extconfig, c.oid)) k (place) ON true
  WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = c.oid AND d.deptype = 'e'
    AND d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass
) e ON true
WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND (c.relkind = 'r' OR c.relispopulated) AND ${USER_SCHEMA}
  AND (e.belongs IS NULL OR e.place IS NOT NULL)
ORDER BY n.nspname, c.relname`;

export async function readTables(connection: ServerConnection): Promise<SourceTable[]> {
  const rows = await ask<CopiedTable & { size: number; condition: string | null }>(connection, TABLES);
  return rows.map(({ schema, name, kind, columns, size, condition }) => {
    const table = `${quote(schema)}.${quote(name)}`;
    const query = `SELECT ${columns.map(quote).join(', ')} FROM ONLY ${table} ${condition ?? ''}`;
    return { schema, name, kind, columns, size, query, isLockable: kind === 'table' };
  });
}

/** Tables of which only the definition is copied: partitioned ones, and unlogged ones. */
export async function readEmptyTables(connection: ServerConnection): Promise<string[]> {
  const rows = await ask<{ schema: string; name: string }>(
    connection,
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE (c.relkind = 'p' OR c.relkind = 'r' AND c.relpersistence = 'u') AND ${USER_SCHEMA}`,
  );
  return rows.map(({ schema, name }) => `${quote(schema)}.${quote(name)}`);
}

/** The proxy's notes of how tables and sequences were defined, which the copy's own node goes by. */
export const NOTES: readonly SourceTable[] = [
  {
    ...{ schema: 'multimaster', name: 'identity', kind: 'table', size: 0, isLockable: false },
    columns: ['relation', 'original'],
    query: `SELECT relation, original FROM multimaster.identity WHERE relation IN (SELECT oid FROM pg_catalog.pg_class)`,
  },
  {
    ...{ schema: 'multimaster', name: 'sequence', kind: 'table', size: 0, isLockable: false },
    columns: [
      ...['sequence', 'anchor', 'base_increment', 'base_start', 'base_min', 'base_max'],
      ...['increment', 'start', 'min', 'max'],
    ],
    query: `SELECT sequence, anchor, base_increment, base_start, base_min, base_max, increment, start, min, max
      FROM multimaster.sequence WHERE sequence IN (SELECT oid FROM pg_catalog.pg_class)`,
  },
];

/** Statements that put the sequences where they are now: that is never behind where they were when the copy was begun. */
export async function sequencePositions(connection: ServerConnection): Promise<string> {
  const rows = await ask<{ schema: string; name: string }>(
    connection,
    `SELECT n.nspname AS schema, c.relname AS name FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relkind = 'S' AND c.relpersistence = 'p' AND ${USER_SCHEMA}`,
  );
  const statements: string[] = [];
  for (const { schema, name } of rows) {
    const sequence = `${quote(schema)}.${quote(name)}`;
    const [[last, called]] = await connection.query(`SELECT last_value, is_called FROM ${sequence}`);
    statements.push(`SELECT pg_catalog.setval(${literal(sequence)}, ${last}, ${called === 't'});`);
  }
  return statements.join('\n');
}

/** Statements that make the large objects, empty, as they were defined. */
export async function largeObjects(connection: ServerConnection): Promise<string> {
  const rows = await ask<{ oid: string; owner: string; comment: string | null; acl: Acl }>(
    connection,
    `SELECT m.oid::pg_catalog.text AS oid, pg_catalog.pg_get_userbyid(m.lomowner) AS owner,
       pg_catalog.obj_description(m.oid, 'pg_largeobject') AS comment, ${aclOf('m.lomacl')} AS acl
     FROM pg_catalog.pg_largeobject_metadata m ORDER BY m.oid`,
  );
  return rows
    .flatMap(({ oid, owner, comment, acl }) => [
      `SELECT pg_catalog.lo_create(${oid});`,
      `ALTER LARGE OBJECT ${oid} OWNER TO ${quote(owner)};`,
      ...grantStatements(`LARGE OBJECT ${oid}`, owner, acl),
      ...(comment === null ? [] : [`COMMENT ON LARGE OBJECT ${oid} IS ${literal(comment)};`]),
    ])
    .join('\n');
}

/** What is in them, page by page. The loader puts it where it belongs (STAGED_PAGES). */
export const LARGE_OBJECT_PAGES: SourceTable = {
  ...{ schema: 'multimaster', name: 'copied_page', kind: 'table', size: 0, isLockable: false },
  columns: ['loid', 'pageno', 'data'],
  query: 'SELECT loid, pageno, data FROM pg_catalog.pg_largeobject ORDER BY loid, pageno',
};

/** As JSON: null while an object has the privileges that it was made with. */
const aclOf = (column: string): string =>
  `(SELECT pg_catalog.json_agg(pg_catalog.json_build_object('grantee', CASE x.grantee WHEN 0 THEN NULL ELSE pg_catalog.pg_get_userbyid(x.grantee) END,
    'privilege', x.privilege_type, 'grantable', x.is_grantable)) FROM pg_catalog.aclexplode(${column}) x)`;

/** The database that the connection is in. */
export async function readDatabase(connection: ServerConnection, name: string): Promise<DatabaseDefinition> {
  const [row] = await ask<Row & Omit<DatabaseDefinition, 'name' | 'options'>>(
    connection,
    `SELECT pg_catalog.pg_encoding_to_char(d.encoding) AS encoding, pg_catalog.to_jsonb(d) AS all,
       pg_catalog.pg_get_userbyid(d.datdba) AS owner, ${aclOf('d.datacl')} AS acl,
       pg_catalog.shobj_description(d.oid, 'pg_database') AS comment,
       EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = 'public') AS "hasPublic"
     FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()`,
  );
  const { owner, acl, comment, hasPublic } = row;
  return { name, owner, acl, comment, hasPublic, options: databaseOptions(row) };
}

/** Options of CREATE DATABASE from a row of pg_database; which columns there are depends on the version. */
export function databaseOptions(row: Row): [name: string, value: string][] {
  const all = row['all'] as Record<string, string | null>;
  const text = (value: unknown): string => literal(String(value));
  const provider = { c: 'libc', i: 'icu', b: 'builtin' }[all['datlocprovider'] ?? 'c'];
  // One column until 16, another one since.
  const locale = all['datlocale'] ?? all['daticulocale'] ?? null;
  return [
    ['OWNER', quote(String(row['owner']))],
    ['ENCODING', text(row['encoding'])],
    ['LC_COLLATE', text(all['datcollate'])],
    ['LC_CTYPE', text(all['datctype'])],
    ['LOCALE_PROVIDER', provider ?? 'libc'],
    ...(provider === 'icu' && locale !== null ? [['ICU_LOCALE', text(locale)] as [string, string]] : []),
    ...(provider === 'builtin' && locale !== null ? [['BUILTIN_LOCALE', text(locale)] as [string, string]] : []),
    ['CONNECTION LIMIT', String(all['datconnlimit'])],
  ];
}

/** Of the server as a whole, as far as it concerns these databases. */
export async function readGlobals(
  connection: ServerConnection,
  databases: readonly string[],
): Promise<Pick<CopyHeader, 'roles' | 'memberships' | 'settings'>> {
  const word = (column: string, name: string) => `CASE WHEN ${column} THEN '${name}' ELSE 'NO${name}' END`;
  const roles = await ask<CopiedRole>(
    connection,
    `SELECT r.rolname AS name, r.oid < 16384 AS "isBootstrap", pg_catalog.concat_ws(' ', ${[
      word('r.rolsuper', 'SUPERUSER'),
      word('r.rolinherit', 'INHERIT'),
      word('r.rolcreaterole', 'CREATEROLE'),
      word('r.rolcreatedb', 'CREATEDB'),
      word('r.rolcanlogin', 'LOGIN'),
      word('r.rolreplication', 'REPLICATION'),
      word('r.rolbypassrls', 'BYPASSRLS'),
      `'CONNECTION LIMIT ' || r.rolconnlimit`,
    ].join(', ')}) AS attributes, r.rolpassword AS password, r.rolvaliduntil::pg_catalog.text AS "validUntil",
       pg_catalog.shobj_description(r.oid, 'pg_authid') AS comment
     FROM pg_catalog.pg_authid r WHERE r.rolname !~ '^pg_' ORDER BY r.rolname`,
  );
  const memberships = await ask<Membership>(
    connection,
    `SELECT pg_catalog.pg_get_userbyid(m.roleid) AS role, pg_catalog.pg_get_userbyid(m.member) AS member,
       pg_catalog.bool_or(m.admin_option) AS admin,
       pg_catalog.bool_or((pg_catalog.to_jsonb(m) ->> 'inherit_option')::pg_catalog.bool) AS inherit,
       pg_catalog.bool_or((pg_catalog.to_jsonb(m) ->> 'set_option')::pg_catalog.bool) AS set
     FROM pg_catalog.pg_auth_members m WHERE m.member >= 16384 OR m.roleid >= 16384 GROUP BY 1, 2 ORDER BY 1, 2`,
  );
  const settings = await ask<RoleSetting>(
    connection,
    `SELECT r.rolname AS role, d.datname AS database, pg_catalog.split_part(c, '=', 1) AS name,
       pg_catalog.substr(c, pg_catalog.strpos(c, '=') + 1) AS value
     FROM pg_catalog.pg_db_role_setting s CROSS JOIN LATERAL pg_catalog.unnest(s.setconfig) c
     LEFT JOIN pg_catalog.pg_database d ON d.oid = s.setdatabase LEFT JOIN pg_catalog.pg_roles r ON r.oid = s.setrole
     WHERE (s.setdatabase = 0 OR d.datname IN (${databases.map(literal).join(', ')})) AND (s.setrole = 0 OR r.rolname IS NOT NULL)`,
  );
  return { roles, memberships, settings };
}

export async function readExtensions(connection: ServerConnection): Promise<CopyHeader['extensions'][number][]> {
  return ask(connection, 'SELECT extname AS name, extversion AS version FROM pg_catalog.pg_extension');
}
