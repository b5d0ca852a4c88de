import { madeByOwn } from './large-objects.ts';

const TOTAL = (...catalogs: readonly number[]): string =>
  catalogs
    .flatMap((oid) => ['inserted', 'updated', 'deleted'].map((kind) => `pg_stat_get_xact_tuples_${kind}(${oid})`))
    .join(' + ');

/** pg_largeobject_metadata, pg_largeobject. */
const LARGE_OBJECT_ROWS = TOTAL(2995, 2613);

/**
 * pg_authid, pg_auth_members, pg_db_role_setting, pg_database, pg_tablespace, pg_parameter_acl, pg_shdescription, pg_shseclabel: system oids never
 * change.
 */
const SHARED_ROWS = TOTAL(1260, 1261, 2964, 1262, 1213, 6243, 2396, 3592);

/**
 * What the open transaction changed that no decoder sees: large objects, and roles, databases and other objects of the whole server, whose
 * statements fire no event triggers. The latter only inside a function, a DO block or by hand, where the session did not announce them.
 *
 * The backend's counters of changed rows say at little cost that nothing was. They may stem from an earlier transaction whose counts were not reported
 * yet, and aren't kept without track_counts: then the functions look. `announced`: what shared_rows() said after the last schema statement that
 * was announced in this transaction, and so whatever was changed before is accounted for.
 *
 * Commands for roles, their settings and comments leave a lock on their catalog until the transaction ends, or the subtransaction
 * that is rolled back. The others leave a row that the transaction has made, unless it is one that they delete.
 */
export const UNSEEN_CHANGES_SQL = `
CREATE OR REPLACE FUNCTION multimaster.shared_rows() RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog AS $function$
BEGIN
  RETURN ${SHARED_ROWS};
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.changed_shared_objects(announced bigint) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog AS $function$
DECLARE
  own bigint := pg_current_xact_id_if_assigned()::text::bigint;
BEGIN
  IF announced IS NOT NULL THEN RETURN ${SHARED_ROWS} > announced; END IF;
  IF ${SHARED_ROWS} = 0 AND current_setting('track_counts') = 'on' THEN RETURN false; END IF;
  RETURN EXISTS (
    SELECT FROM pg_locks
    WHERE pid = pg_backend_pid() AND mode = 'RowExclusiveLock' AND relation IN (
      'pg_authid'::regclass, 'pg_auth_members'::regclass, 'pg_db_role_setting'::regclass, 'pg_database'::regclass,
      'pg_tablespace'::regclass, 'pg_shdescription'::regclass)
  ) OR EXISTS (
    SELECT FROM (
      SELECT xmin FROM pg_database UNION ALL SELECT xmin FROM pg_tablespace UNION ALL SELECT xmin FROM pg_parameter_acl
      UNION ALL SELECT xmin FROM pg_shseclabel
    ) r (maker) WHERE ${madeByOwn('r.maker')}
  );
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.unseen_change(announced bigint) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog AS $function$
BEGIN
  IF (${LARGE_OBJECT_ROWS} > 0 OR current_setting('track_counts') <> 'on') AND multimaster.changed_large_objects() THEN
    RETURN 'large objects';
  END IF;
  IF multimaster.changed_shared_objects(announced) THEN RETURN 'shared objects'; END IF;
  RETURN NULL;
END
$function$;
`;

/** After PRIVILEGES_SQL: every session that commits asks. */
export const UNSEEN_CHANGES_PRIVILEGES_SQL = `
GRANT EXECUTE ON FUNCTION multimaster.changed_large_objects(), multimaster.shared_rows(),
  multimaster.changed_shared_objects(bigint), multimaster.unseen_change(bigint) TO PUBLIC;
`;
