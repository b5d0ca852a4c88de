/**
 * `guard: on`: ordinary roles can't write straight on this server. Every session of the proxy carries a setting
 * (session/startup.ts); a trigger per statement on every permanent table looks for it, and so do the event triggers. Its
 * WHEN clause is all that a statement through the proxy pays for. Replay runs under session_replication_role = replica and pays nothing.
 *
 * The triggers are marked as internal, as those of foreign keys are: they are this node's own affair, so neither dumps nor `\d` show
 * them, and nobody but a superuser switches them off.
 *
 * This guards against accidents: who gives his session the setting by hand gets what he asked for.
 */
export const GUARD_SQL = `
CREATE TABLE IF NOT EXISTS multimaster.guard (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  proxy text NOT NULL
);
COMMENT ON TABLE multimaster.guard IS 'Has a row while the guard is on: where the proxy of this server is.';
REVOKE ALL ON multimaster.guard FROM PUBLIC;

-- Where to go instead; null when this session may write here.
CREATE OR REPLACE FUNCTION multimaster.way_through_proxy() RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  SELECT g.proxy FROM multimaster.guard g
  WHERE current_setting('multimaster.proxy', true) IS DISTINCT FROM 'on' AND current_setting('is_superuser') = 'off'
    AND multimaster.is_active()
$function$;

CREATE OR REPLACE FUNCTION multimaster.refuse_bypass(what text) RETURNS void
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  proxy text := multimaster.way_through_proxy();
BEGIN
  IF proxy IS NULL THEN RETURN; END IF;
  RAISE EXCEPTION 'cannot execute % past the proxy', what USING ERRCODE = 'read_only_sql_transaction',
    DETAIL = format('Database "%s" is one of a cluster: what is written straight on this server would be missing on the others.', current_database()),
    HINT = format('Connect to the proxy: %s.', proxy);
END
$function$;

-- Security definer: called with the privileges of whoever changes the table.
CREATE OR REPLACE FUNCTION multimaster.on_bypass() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
BEGIN
  PERFORM multimaster.refuse_bypass(format('%s on "%s"', tg_op, tg_table_name));
  RETURN NULL;
END
$function$;

-- Tables that have no trigger while the guard is on, or have one while it is off.
CREATE OR REPLACE FUNCTION multimaster.unguarded(only_this regclass DEFAULT NULL) RETURNS SETOF regclass
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  SELECT c.oid::regclass FROM pg_class c
  WHERE (only_this IS NULL OR c.oid = only_this) AND c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND c.oid >= 16384
    AND c.relnamespace NOT IN ('multimaster'::regnamespace, 'pg_catalog'::regnamespace, 'information_schema'::regnamespace)
    AND EXISTS (SELECT FROM multimaster.guard)
      <> EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'multimaster_guard')
$function$;

-- Puts the trigger on a table, or takes it off. False when somebody uses the table: it must not be waited for for long, as
-- others would wait behind.
CREATE OR REPLACE FUNCTION multimaster.fix_guard(relation regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET lock_timeout = '200ms' AS $function$
BEGIN
  IF NOT EXISTS (SELECT FROM multimaster.unguarded(relation)) THEN RETURN true; END IF;
  IF NOT EXISTS (SELECT FROM multimaster.guard) THEN
    PERFORM multimaster.execute_quietly(format('DROP TRIGGER multimaster_guard ON %s', relation));
    RETURN true;
  END IF;
  PERFORM multimaster.execute_quietly(format(
    'CREATE TRIGGER multimaster_guard BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON %s FOR EACH STATEMENT '
    'WHEN (pg_catalog.current_setting(''multimaster.proxy'', true) IS DISTINCT FROM ''on'') '
    'EXECUTE FUNCTION multimaster.on_bypass()', relation));
  UPDATE pg_trigger SET tgisinternal = true WHERE tgrelid = relation AND tgname = 'multimaster_guard';
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END
$function$;
`;
