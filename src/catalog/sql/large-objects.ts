/**
 * SQL: whether a row that is visible here was made by a transaction in progress, so by this one, `own`, or a subtransaction of it, which have no lower id.
 * (A frozen row of a former round of ids may look like one; then the answer is yes.)
 */
export const madeByOwn = (xmin: string): string =>
  `(SELECT d.later < 2147483648 AND CASE
      WHEN own + d.later >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint THEN true
      ELSE pg_xact_status((own + d.later)::text::xid8) = 'in progress' END
    FROM (SELECT (${xmin}::text::bigint - own) & 4294967295) d (later))`;

/**
 * Whether the open transaction changed a large object. Asked when the backend's counters say that it may have.
 *
 * Reading or writing the content leaves a lock on pg_largeobject, and lo_unlink one on the object, until the transaction ends. lo_create leaves no
 * lock, but a row in pg_largeobject_metadata that is visible here while the transaction that made it is in progress. (After a change of content that
 * a savepoint took back the answer is yes, too, since its lock stays.)
 */
export const LARGE_OBJECTS_SQL = `
CREATE OR REPLACE FUNCTION multimaster.changed_large_objects() RETURNS boolean
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $function$
DECLARE
  own bigint := pg_current_xact_id_if_assigned()::text::bigint;
BEGIN
  RETURN EXISTS (
    SELECT FROM pg_locks WHERE pid = pg_backend_pid()
      AND (relation = 'pg_largeobject'::regclass AND mode = 'RowExclusiveLock'
        OR locktype = 'object' AND classid = 'pg_largeobject'::regclass AND mode = 'AccessExclusiveLock')
  ) OR EXISTS (
    SELECT FROM pg_largeobject_metadata m WHERE ${madeByOwn('m.xmin')}
  );
END
$function$;
`;
