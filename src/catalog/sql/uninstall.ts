/** Gives tables and sequences back what their owners defined. The positions of sequences stay, so no value comes twice. */
export const UNINSTALL_SQL = `
SELECT multimaster.execute_quietly(format('ALTER TABLE %s REPLICA IDENTITY %s', k.relation,
  CASE k.original WHEN 'n' THEN 'NOTHING' WHEN 'f' THEN 'FULL' ELSE 'DEFAULT' END))
FROM multimaster.identity k JOIN pg_catalog.pg_class c ON c.oid = k.relation;

SELECT multimaster.execute_quietly(format('ALTER TABLE %s ENABLE TRIGGER %I', t.tgrelid::regclass, t.tgname))
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_constraint k ON k.oid = t.tgconstraint AND k.conrelid = t.tgrelid
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE t.tgenabled = 'A' AND k.contype IN ('p', 'u', 'x') AND c.relkind = 'r';

SELECT multimaster.execute_quietly(format('ALTER SEQUENCE %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s',
  k.sequence, d.base_increment, d.base_min, d.base_max, d.base_start))
FROM multimaster.sequence k JOIN pg_catalog.pg_class c ON c.oid = k.sequence,
  multimaster.sequence_definition(k.sequence) d;
`;
