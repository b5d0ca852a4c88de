/**
 * Replica identities. A published table without one can't be updated (55000), and each partition leaf needs its own. So
 * a table without an immediate, valid primary key that is sent as a whole gets REPLICA IDENTITY FULL, and DEFAULT again once it has one. An
 * identity that the user chose and that works is left alone. Deferrable keys are made to hold on replay.
 */
export const IDENTITY_SQL = `
CREATE OR REPLACE FUNCTION multimaster.set_identity(relation regclass, original "char", clause text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
BEGIN
  PERFORM multimaster.execute_quietly(format('ALTER TABLE %s REPLICA IDENTITY %s', relation, clause));
  INSERT INTO multimaster.identity AS known (relation, original) VALUES (set_identity.relation, set_identity.original)
    ON CONFLICT DO NOTHING;
END
$function$;

-- PostgreSQL 18 can't update a table with FULL and a virtual generated column: such a table uses any index that will do.
CREATE OR REPLACE FUNCTION multimaster.full_identity(relation regclass) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  SELECT coalesce((
    SELECT format('USING INDEX %I', c.relname)
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid = relation AND i.indisunique AND i.indimmediate AND i.indisvalid
      AND i.indpred IS NULL AND i.indexprs IS NULL
      AND NOT EXISTS (
        SELECT FROM pg_attribute a
        WHERE a.attrelid = relation AND a.attnum = ANY (i.indkey) AND NOT a.attnotnull
      )
      AND EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation AND a.attgenerated = 'v')
    ORDER BY i.indnkeyatts, c.relname LIMIT 1
  ), 'FULL')
$function$;

-- Before PostgreSQL 18 the other nodes are not told of generated columns: what a key that has one leaves of it can be several rows'.
CREATE OR REPLACE FUNCTION multimaster.is_identity(index oid) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  SELECT i.indimmediate AND i.indisvalid AND (
    current_setting('server_version_num')::int >= 180000 OR NOT EXISTS (
      SELECT FROM pg_attribute a
      WHERE a.attrelid = i.indrelid AND a.attnum = ANY ((i.indkey::int2[])[0:i.indnkeyatts - 1]) AND a.attgenerated <> ''
    ))
  FROM pg_index i WHERE i.indexrelid = index
$function$;

CREATE OR REPLACE FUNCTION multimaster.fix_identity(relation regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  current "char";
  has_key boolean;
  ours boolean;
BEGIN
  SELECT c.relreplident INTO current FROM pg_class c
  WHERE c.oid = relation AND c.relkind = 'r' AND c.relpersistence <> 't' AND c.oid >= 16384;
  IF NOT FOUND THEN RETURN; END IF;
  SELECT EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = relation AND i.indisprimary AND multimaster.is_identity(i.indexrelid)
  ) INTO has_key;
  SELECT EXISTS (SELECT FROM multimaster.identity k WHERE k.relation = fix_identity.relation) INTO ours;

  IF current = 'i' AND NOT (ours AND has_key) AND EXISTS (
    SELECT FROM pg_index i WHERE i.indrelid = relation AND i.indisreplident AND multimaster.is_identity(i.indexrelid)
  ) THEN
    RETURN;
  END IF;
  IF has_key THEN
    IF current IN ('f', 'i') AND ours THEN
      PERFORM multimaster.execute_quietly(format('ALTER TABLE %s REPLICA IDENTITY DEFAULT', relation));
      DELETE FROM multimaster.identity k WHERE k.relation = fix_identity.relation AND k.original = 'd';
    ELSIF current IN ('n', 'i') THEN
      PERFORM multimaster.set_identity(relation, current, 'DEFAULT');
    END IF;
  ELSIF current <> 'f' THEN
    PERFORM multimaster.set_identity(relation, current, multimaster.full_identity(relation));
  END IF;
END
$function$;

-- A DEFERRABLE key lets duplicates into its index and leaves them to a trigger of its own, which must fire on replay too.
CREATE OR REPLACE FUNCTION multimaster.fix_deferrable(relation regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  tgname name;
BEGIN
  FOR tgname IN
    SELECT t.tgname FROM pg_trigger t JOIN pg_constraint k ON k.oid = t.tgconstraint AND k.conrelid = t.tgrelid
    WHERE t.tgrelid = relation AND t.tgenabled = 'O' AND k.contype IN ('p', 'u', 'x') AND k.condeferrable
  LOOP
    PERFORM multimaster.execute_quietly(format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation, tgname));
  END LOOP;
END
$function$;
`;
