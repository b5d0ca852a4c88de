/**
 * The schema and its tables. Their rows describe this server only (object ids, this node's sequence classes), so a change
 * to a relation of schema `multimaster` must never be replayed on another node, although the publication contains it.
 *
 * Objects are held as regclass rather than oid, so that a dump names them.
 */
export const SCHEMA_SQL = `
CREATE SCHEMA IF NOT EXISTS multimaster;
REVOKE ALL ON SCHEMA multimaster FROM PUBLIC;
GRANT USAGE ON SCHEMA multimaster TO PUBLIC;
COMMENT ON SCHEMA multimaster IS 'Objects of pgmm, the multimaster proxy. Removed by "pgmm leave".';

CREATE TABLE IF NOT EXISTS multimaster.installation (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  version integer NOT NULL,
  fingerprint text NOT NULL,
  node_id integer NOT NULL,
  stride integer NOT NULL,
  system_identifier bigint NOT NULL
);

CREATE TABLE IF NOT EXISTS multimaster.identity (
  relation regclass PRIMARY KEY,
  original "char" NOT NULL
);
COMMENT ON TABLE multimaster.identity IS 'Tables whose replica identity pgmm changed, and what it was.';

CREATE TABLE IF NOT EXISTS multimaster.sequence (
  sequence regclass PRIMARY KEY,
  anchor bigint NOT NULL,
  base_increment bigint NOT NULL,
  base_start bigint NOT NULL,
  base_min bigint NOT NULL,
  base_max bigint NOT NULL,
  increment bigint NOT NULL,
  start bigint NOT NULL,
  min bigint NOT NULL,
  max bigint NOT NULL
);
COMMENT ON TABLE multimaster.sequence IS 'Sequences as they were defined (anchor, base_*) and as this node has them.';

CREATE TABLE IF NOT EXISTS multimaster.membership (
  only_row boolean PRIMARY KEY DEFAULT true CHECK (only_row),
  cluster text NOT NULL,
  node integer NOT NULL,
  log text NOT NULL
);
COMMENT ON TABLE multimaster.membership IS 'Which decision log of which node this server belongs to; see docs/identity.md.';

REVOKE ALL ON ALL TABLES IN SCHEMA multimaster FROM PUBLIC;

-- A dump that was restored on some other server brings the event triggers along; they must not do anything there.
CREATE OR REPLACE FUNCTION multimaster.is_active() RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  SELECT EXISTS (
    SELECT FROM multimaster.installation i, pg_control_system() c WHERE i.system_identifier = c.system_identifier
  )
$function$;

-- Runs a statement without the origin's event triggers: neither ours, which refuse nested DDL, nor the user's. The second
-- setting keeps on_ddl_end, which fires always, from looking at its own work.
CREATE OR REPLACE FUNCTION multimaster.execute_quietly(statement text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog
SET session_replication_role = replica SET multimaster.quiet = on AS $function$
BEGIN
  EXECUTE statement;
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.is_origin() RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog AS $function$
  SELECT current_setting('session_replication_role') <> 'replica'
$function$;
`;

/** Comes last: what is called by event triggers and by the proxy is nobody else's to call. */
export const PRIVILEGES_SQL = 'REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA multimaster FROM PUBLIC;';
