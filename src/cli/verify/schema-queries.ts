/**
 * What there is in a database and how it is defined, as pairs (object, definition). Nothing in them may depend on a
 * server: no object ids, no statistics, no positions of sequences. Run with an empty search path, so that names are
 * qualified.
 */

const USER_SCHEMA = `n.nspname NOT IN ('pg_catalog', 'information_schema', 'pg_toast', 'multimaster')
  AND n.nspname NOT LIKE 'pg\\_temp\\_%' AND n.nspname NOT LIKE 'pg\\_toast\\_temp\\_%'`;

/** The order of entries tells when they were granted, and no more. */
const acl = (column: string): string => `(SELECT string_agg(x::text, ',' ORDER BY x::text) FROM unnest(${column}) x)`;
const owner = (column: string): string => `pg_get_userbyid(${column})`;
/** Joined by spaces; absent parts are left out. */
const all = (...parts: string[]): string => `concat_ws(' ', ${parts.join(', ')})`;
const named = (label: string, value: string): string => `'${label}=' || nullif((${value})::text, '')`;

const schemas = `
SELECT 'schema ' || quote_ident(n.nspname) AS object, ${all(named('owner', owner('n.nspowner')), named('acl', acl('n.nspacl')))} AS definition
FROM pg_namespace n WHERE ${USER_SCHEMA}`;

const relations = `
SELECT CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'table' WHEN 'v' THEN 'view' WHEN 'm' THEN 'materialized view'
    WHEN 'S' THEN 'sequence' WHEN 'f' THEN 'foreign table' ELSE 'composite type' END || ' ' || c.oid::regclass AS object,
  ${all(
    named('kind', 'c.relkind'),
    named('persistence', 'c.relpersistence'),
    named('owner', owner('c.relowner')),
    named('acl', acl('c.relacl')),
    named('options', "array_to_string(c.reloptions, ',')"),
    named('identity', "CASE WHEN c.relkind = 'r' THEN c.relreplident END"),
    named(
      'row security',
      'CASE WHEN c.relrowsecurity OR c.relforcerowsecurity THEN concat(c.relrowsecurity, c.relforcerowsecurity) END',
    ),
    named('bound', 'pg_get_expr(c.relpartbound, c.oid)'),
    named('partitioned', "CASE WHEN c.relkind = 'p' THEN pg_get_partkeydef(c.oid) END"),
    named(
      'inherits',
      `SELECT string_agg(i.inhparent::regclass::text, ',' ORDER BY i.inhseqno) FROM pg_inherits i WHERE i.inhrelid = c.oid`,
    ),
    named('query', "CASE WHEN c.relkind IN ('v', 'm') THEN pg_get_viewdef(c.oid) END"),
    named('populated', "CASE WHEN c.relkind = 'm' THEN c.relispopulated END"),
    named('type', 'CASE WHEN c.reloftype <> 0 THEN c.reloftype::regtype END'),
  )} AS definition
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f', 'c') AND c.relpersistence <> 't' AND ${USER_SCHEMA}`;

const columns = `
SELECT 'column ' || c.oid::regclass || '.' || quote_ident(a.attname) AS object, ${all(
  named(
    'position',
    '(SELECT count(*) FROM pg_attribute b WHERE b.attrelid = a.attrelid AND b.attnum BETWEEN 1 AND a.attnum AND NOT b.attisdropped)',
  ),
  named('type', 'format_type(a.atttypid, a.atttypmod)'),
  named('collation', 'CASE WHEN a.attcollation NOT IN (0, 100) THEN a.attcollation::regcollation END'),
  named('not null', 'CASE WHEN a.attnotnull THEN 1 END'),
  named('default', 'pg_get_expr(d.adbin, d.adrelid)'),
  named('identity', 'a.attidentity'),
  named('generated', 'a.attgenerated'),
  named('storage', 'a.attstorage'),
  named('compression', 'a.attcompression'),
  named('options', "array_to_string(a.attoptions, ',')"),
  named('acl', acl('a.attacl')),
)} AS definition
FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attnum > 0 AND NOT a.attisdropped AND c.relkind IN ('r', 'p', 'v', 'm', 'f', 'c') AND c.relpersistence <> 't' AND ${USER_SCHEMA}`;

const indexes = `
SELECT 'index ' || i.indexrelid::regclass AS object,
  ${all('pg_get_indexdef(i.indexrelid)', named('valid', 'i.indisvalid'), named('primary', 'i.indisprimary'), named('immediate', 'i.indimmediate'), named('clustered', 'i.indisclustered'), named('identity', 'i.indisreplident'))} AS definition
FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND ${USER_SCHEMA}`;

/** NOT NULL is told by the column; from 18 on it is a constraint as well. */
const constraints = `
SELECT 'constraint ' || quote_ident(k.conname) || ' on ' || CASE WHEN k.conrelid <> 0 THEN k.conrelid::regclass::text ELSE k.contypid::regtype::text END AS object,
  ${all('pg_get_constraintdef(k.oid)', named('validated', 'k.convalidated'), named('inherited', 'k.coninhcount'))} AS definition
FROM pg_constraint k JOIN pg_namespace n ON n.oid = k.connamespace
WHERE k.contype <> 'n' AND (k.conrelid <> 0 OR k.contypid <> 0) AND ${USER_SCHEMA}`;

const triggers = `
SELECT 'trigger ' || quote_ident(t.tgname) || ' on ' || t.tgrelid::regclass AS object,
  ${all('pg_get_triggerdef(t.oid)', named('enabled', 't.tgenabled'))} AS definition
FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE NOT t.tgisinternal AND c.relpersistence <> 't' AND ${USER_SCHEMA}
UNION ALL
SELECT 'rule ' || quote_ident(r.rulename) || ' on ' || r.ev_class::regclass, ${all('pg_get_ruledef(r.oid)', named('enabled', 'r.ev_enabled'))}
FROM pg_rewrite r JOIN pg_class c ON c.oid = r.ev_class JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE r.rulename <> '_RETURN' AND c.relpersistence <> 't' AND ${USER_SCHEMA}
UNION ALL
SELECT 'policy ' || quote_ident(p.polname) || ' on ' || p.polrelid::regclass, ${all(
  'p.polcmd',
  'p.polpermissive',
  `(SELECT string_agg(CASE r WHEN 0 THEN 'public' ELSE ${owner('r')}::text END, ',' ORDER BY 1) FROM unnest(p.polroles) r)`,
  named('using', 'pg_get_expr(p.polqual, p.polrelid)'),
  named('check', 'pg_get_expr(p.polwithcheck, p.polrelid)'),
)} FROM pg_policy p
UNION ALL
SELECT 'event trigger ' || quote_ident(e.evtname), ${all('e.evtevent', 'e.evtfoid::regprocedure', 'e.evtenabled', "array_to_string(e.evttags, ',')", owner('e.evtowner'))}
FROM pg_event_trigger e WHERE e.evtname NOT LIKE 'multimaster\\_%'`;

const functions = `
SELECT 'function ' || p.oid::regprocedure AS object, ${all(
  `CASE WHEN p.prokind = 'a' THEN (SELECT concat_ws(' ', a.aggkind, a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggtranstype::regtype, a.agginitval, a.aggsortop::regoperator)
    FROM pg_aggregate a WHERE a.aggfnoid = p.oid) ELSE pg_get_functiondef(p.oid) END`,
  named('owner', owner('p.proowner')),
  named('acl', acl('p.proacl')),
)} AS definition
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE ${USER_SCHEMA}`;

const types = `
SELECT 'type ' || t.oid::regtype AS object, ${all(
  't.typtype',
  named(
    'labels',
    `SELECT string_agg(quote_literal(e.enumlabel), ',' ORDER BY e.enumsortorder) FROM pg_enum e WHERE e.enumtypid = t.oid`,
  ),
  named('base', 'CASE WHEN t.typbasetype <> 0 THEN format_type(t.typbasetype, t.typtypmod) END'),
  named('not null', "CASE WHEN t.typtype = 'd' THEN t.typnotnull END"),
  named('default', 't.typdefault'),
  named('collation', 'CASE WHEN t.typcollation NOT IN (0, 100) THEN t.typcollation::regcollation END'),
  named('range of', '(SELECT r.rngsubtype::regtype FROM pg_range r WHERE r.rngtypid = t.oid)'),
  named('owner', owner('t.typowner')),
  named('acl', acl('t.typacl')),
)} AS definition
FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
WHERE t.typtype IN ('e', 'd', 'r', 'b') AND t.typcategory <> 'A' AND ${USER_SCHEMA}`;

/** Not INCREMENT, START and the position, of which every node has its own; for CYCLE that goes for the bounds. */
const sequences = `
SELECT 'sequence definition ' || s.seqrelid::regclass AS object, ${all(
  's.seqtypid::regtype',
  named('descending', 'CASE WHEN s.seqincrement < 0 THEN 1 END'),
  named('bounds', "CASE WHEN NOT s.seqcycle THEN concat(s.seqmin, ' to ', s.seqmax) END"),
  named('cache', 's.seqcache'),
  named('cycle', 'CASE WHEN s.seqcycle THEN 1 END'),
  named(
    'owned by',
    `SELECT string_agg(d.refobjid::regclass || '.' || quote_ident(a.attname), ',') FROM pg_depend d
     JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
     WHERE d.classid = 'pg_class'::regclass AND d.objid = s.seqrelid AND d.refclassid = 'pg_class'::regclass AND d.deptype IN ('a', 'i')`,
  ),
)} AS definition
FROM pg_sequence s JOIN pg_class c ON c.oid = s.seqrelid JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relpersistence <> 't' AND ${USER_SCHEMA}`;

/** Kinds of object for which it is enough that they exist, have an owner and are what they are named. */
const identified = (catalog: string, definition: string, where = 'true'): string => `
SELECT i.type || ' ' || i.identity AS object, ${definition} AS definition
FROM ${catalog} o, pg_identify_object('${catalog}'::regclass, o.oid, 0) i WHERE o.oid >= 16384 AND ${where}`;

const others = [
  identified('pg_extension', all('o.extversion', 'o.extnamespace::regnamespace')),
  identified('pg_operator', all('o.oprcode', 'o.oprcom::regoperator', 'o.oprnegate::regoperator', owner('o.oprowner'))),
  identified(
    'pg_cast',
    all('CASE WHEN o.castfunc <> 0 THEN o.castfunc::regprocedure END', 'o.castcontext', 'o.castmethod'),
  ),
  identified('pg_opclass', all('o.opcdefault', owner('o.opcowner'))),
  identified('pg_collation', all('o.collprovider', 'o.collcollate', 'o.collisdeterministic', owner('o.collowner'))),
  identified('pg_statistic_ext', all('pg_get_statisticsobjdef(o.oid)', owner('o.stxowner'))),
  identified('pg_ts_config', owner('o.cfgowner')),
  identified('pg_ts_dict', all('o.dictinitoption', owner('o.dictowner'))),
  identified('pg_foreign_data_wrapper', all("array_to_string(o.fdwoptions, ',')", owner('o.fdwowner'))),
  identified(
    'pg_foreign_server',
    all('o.srvtype', 'o.srvversion', "array_to_string(o.srvoptions, ',')", owner('o.srvowner'), acl('o.srvacl')),
  ),
  identified('pg_language', all('o.lanpltrusted', owner('o.lanowner'), acl('o.lanacl'))),
  identified('pg_default_acl', acl('o.defaclacl')),
  identified(
    'pg_publication',
    all('o.puballtables', 'o.pubinsert', 'o.pubupdate', 'o.pubdelete', 'o.pubtruncate'),
    "o.pubname <> 'pgmm'",
  ),
];

const comments = `
SELECT 'comment on ' || i.type || ' ' || i.identity AS object, d.description AS definition
FROM pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
WHERE (d.objoid >= 16384 OR d.classoid = 'pg_namespace'::regclass) AND i.identity IS NOT NULL
  AND i.schema IS DISTINCT FROM 'multimaster' AND i.identity <> 'multimaster' AND i.identity NOT LIKE '%multimaster.%'`;

/** Of the server as a whole. A password's stored form has a salt of its own on every server. */
const globals = `
SELECT 'role ' || quote_ident(r.rolname) AS object, ${all(
  'r.rolsuper',
  'r.rolinherit',
  'r.rolcreaterole',
  'r.rolcreatedb',
  'r.rolcanlogin',
  'r.rolreplication',
  'r.rolbypassrls',
  'r.rolconnlimit',
  named('until', 'r.rolvaliduntil'),
  named('password', 'CASE WHEN a.rolpassword IS NOT NULL THEN 1 END'),
)} AS definition FROM pg_roles r JOIN pg_authid a ON a.oid = r.oid WHERE r.oid >= 16384
UNION ALL
SELECT 'membership of ' || ${owner('m.member')} || ' in ' || ${owner('m.roleid')}, ${all('m.admin_option')} FROM pg_auth_members m WHERE m.member >= 16384
UNION ALL
SELECT 'settings of ' || concat_ws(' in ', CASE WHEN s.setrole <> 0 THEN 'role ' || ${owner('s.setrole')} END, CASE WHEN s.setdatabase <> 0 THEN 'database' END), array_to_string(s.setconfig, ', ')
FROM pg_db_role_setting s LEFT JOIN pg_database d ON d.oid = s.setdatabase
WHERE d.datname = current_database() OR s.setdatabase = 0
UNION ALL
SELECT 'database', ${all(named('owner', owner('d.datdba')), named('acl', acl('d.datacl')), named('encoding', 'pg_encoding_to_char(d.encoding)'), named('collate', 'd.datcollate'), named('ctype', 'd.datctype'))}
FROM pg_database d WHERE d.datname = current_database()`;

export const SCHEMA_QUERIES: readonly string[] = [
  ...[schemas, relations, columns, indexes, constraints, triggers, functions, types, sequences],
  ...others,
  ...[comments, globals],
];
