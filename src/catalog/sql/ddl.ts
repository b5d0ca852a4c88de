/**
 * What happens around DDL.
 *
 * The proxy announces every top-level DDL statement of a client by `set_config('multimaster.ddl', <anything>, true)` just
 * before it; the announcement is used up when the statement starts. DDL that was not announced runs inside a function, a
 * DO block, a trigger or a query, where the other nodes would not see it, and is refused, unless it concerns temporary
 * objects only. That is known only at the end of a statement, so `multimaster.ddl_stack` remembers for every
 * statement in progress how it began: `a`nnounced, `u`nannounced, or as a part of CREATE or ALTER `e`xtension.
 *
 * This guards against accidents: who sets `multimaster.ddl` by hand gets what he asked for.
 *
 * None of this runs under session_replication_role = replica, which is how DDL is replayed; keeping identities and
 * sequences in order (the ENABLE ALWAYS triggers) does.
 */
export const DDL_SQL = `
CREATE OR REPLACE FUNCTION multimaster.refuse_nested(tag text) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $function$
BEGIN
  PERFORM multimaster.refuse_bypass(tag);
  RAISE EXCEPTION '% is not supported inside a function, a DO block, a trigger or another statement', tag
    USING ERRCODE = '0A000', DETAIL = 'The other nodes would not see it. Temporary objects may be created there.',
      HINT = 'Send it as a statement of its own.';
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.on_ddl_start() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  stack text := coalesce(current_setting('multimaster.ddl_stack', true), '');
  announced boolean := coalesce(current_setting('multimaster.ddl', true), '') <> '';
  state text := 'u';
BEGIN
  IF announced THEN
    PERFORM set_config('multimaster.ddl', '', true);
    state := CASE WHEN tg_tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') THEN 'e' ELSE 'a' END;
  ELSIF right(stack, 1) = 'e' THEN
    state := 'e';
  ELSIF NOT multimaster.is_active() OR tg_tag IN ('REINDEX', 'CLUSTER', 'VACUUM', 'ANALYZE') THEN
    state := 'a';
  -- Whatever can have to do with a temporary object is judged at its end.
  ELSIF tg_tag <> ALL (ARRAY[
    'CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO', 'CREATE INDEX', 'CREATE VIEW', 'CREATE SEQUENCE', 'CREATE FUNCTION',
    'CREATE PROCEDURE', 'CREATE TYPE', 'CREATE DOMAIN', 'CREATE TRIGGER', 'CREATE RULE', 'CREATE STATISTICS',
    'ALTER TABLE', 'ALTER INDEX', 'ALTER VIEW', 'ALTER SEQUENCE', 'COMMENT',
    'DROP TABLE', 'DROP VIEW', 'DROP INDEX', 'DROP SEQUENCE', 'DROP FUNCTION', 'DROP PROCEDURE', 'DROP TYPE', 'DROP DOMAIN',
    'DROP TRIGGER', 'DROP RULE', 'DROP STATISTICS'
  ]) THEN
    PERFORM multimaster.refuse_nested(tg_tag);
  END IF;
  PERFORM set_config('multimaster.ddl_stack', stack || state, true);
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.is_temporary(catalog oid, object oid, schema text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog AS $function$
  SELECT coalesce(schema = 'pg_temp' OR (
    SELECT c.relpersistence = 't' FROM pg_class c
    WHERE c.oid = CASE catalog
      WHEN 'pg_trigger'::regclass THEN (SELECT tgrelid FROM pg_trigger WHERE oid = object)
      WHEN 'pg_rewrite'::regclass THEN (SELECT ev_class FROM pg_rewrite WHERE oid = object)
    END
  ), false)
$function$;

CREATE OR REPLACE FUNCTION multimaster.on_ddl_check() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  stack text := coalesce(current_setting('multimaster.ddl_stack', true), '');
  relation oid;
BEGIN
  -- Empty after a statement that commits on its way, such as CREATE INDEX CONCURRENTLY; those can't be nested.
  IF stack = '' THEN RETURN; END IF;
  PERFORM set_config('multimaster.ddl_stack', left(stack, -1), true);
  IF right(stack, 1) = 'u' AND EXISTS (
    SELECT FROM pg_event_trigger_ddl_commands() c
    WHERE NOT multimaster.is_temporary(c.classid, c.objid, c.schema_name)
  ) THEN
    PERFORM multimaster.refuse_nested(tg_tag);
  END IF;
  IF tg_tag = 'ALTER TABLE' THEN
    FOR relation IN
      SELECT DISTINCT c.objid FROM pg_event_trigger_ddl_commands() c
      WHERE c.classid = 'pg_class'::regclass AND c.object_type = 'table' AND c.schema_name <> 'pg_temp'
    LOOP
      PERFORM multimaster.check_stored_defaults(relation);
    END LOOP;
  ELSIF tg_tag IN ('CREATE DOMAIN', 'ALTER DOMAIN') THEN
    PERFORM multimaster.check_domain_default(c.objid::regtype) FROM pg_event_trigger_ddl_commands() c
    WHERE c.classid = 'pg_type'::regclass;
  ELSIF tg_tag IN ('CREATE EXTENSION', 'ALTER EXTENSION') THEN
    PERFORM multimaster.refuse_firing_on_replay(tg_tag);
  END IF;
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.on_drop_check() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
BEGIN
  IF right(current_setting('multimaster.ddl_stack', true), 1) = 'u' AND EXISTS (
    SELECT FROM pg_event_trigger_dropped_objects() d WHERE d.original AND NOT d.is_temporary
  ) THEN
    PERFORM multimaster.refuse_nested(tg_tag);
  END IF;
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.on_ddl_end() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  touched record;
BEGIN
  IF current_setting('multimaster.quiet', true) = 'on' OR NOT multimaster.is_active() THEN RETURN; END IF;
  -- The decoder of PostgreSQL 15 goes on calling tables by the old name of their schema (pgoutput does not look at pg_namespace before 16),
  -- until the publication changes: then it describes every table anew.
  IF tg_tag = 'ALTER SCHEMA' AND current_setting('server_version_num')::int < 160000 THEN
    UPDATE pg_publication SET pubname = pubname WHERE pubname = 'pgmm';
  END IF;
  FOR touched IN
    SELECT DISTINCT r.oid::regclass AS relation, r.relkind
    FROM (
      SELECT c.objid FROM pg_event_trigger_ddl_commands() c WHERE c.classid = 'pg_class'::regclass
      UNION
      SELECT t.relid FROM pg_event_trigger_ddl_commands() c, pg_partition_tree(c.objid) t
      WHERE c.classid = 'pg_class'::regclass AND c.object_type = 'table' AND t.isleaf
    ) o
    JOIN pg_class r ON r.oid = o.objid
    WHERE r.relkind IN ('r', 'p', 'S') AND r.relpersistence <> 't'
  LOOP
    IF touched.relkind = 'S' THEN
      PERFORM multimaster.align_sequence(touched.relation);
    ELSE
      IF touched.relkind = 'r' THEN
        PERFORM multimaster.fix_identity(touched.relation), multimaster.fix_deferrable(touched.relation);
      END IF;
      PERFORM multimaster.fix_guard(touched.relation);
    END IF;
  END LOOP;
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.on_drop() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  dropped record;
  relation regclass;
BEGIN
  IF NOT multimaster.is_active() THEN RETURN; END IF;
  FOR dropped IN
    SELECT d.classid, d.objid, d.object_type, d.address_names FROM pg_event_trigger_dropped_objects() d
    WHERE NOT d.is_temporary AND d.object_type IN ('table', 'sequence', 'table constraint')
  LOOP
    IF dropped.object_type = 'table' THEN
      DELETE FROM multimaster.identity k WHERE k.relation = dropped.objid;
    ELSIF dropped.object_type = 'sequence' THEN
      DELETE FROM multimaster.sequence k WHERE k.sequence = dropped.objid;
    ELSE
      -- A primary key can go with a type or a function, in which case no command names the table.
      relation := to_regclass(format('%I.%I', dropped.address_names[1], dropped.address_names[2]));
      IF relation IS NOT NULL THEN PERFORM multimaster.fix_identity(relation); END IF;
    END IF;
  END LOOP;
END
$function$;
`;
