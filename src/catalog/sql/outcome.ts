/**
 * What clients may ask about transactions. The proxy knows the answers, and sets multimaster.answers just before a statement that
 * calls one of these (session/questions.ts): `{ current, token, outcomes: { gid: outcome }, inDoubt, error }`. Whoever sets it himself deceives
 * nobody else.
 */
export const OUTCOME_SQL = `
CREATE OR REPLACE FUNCTION multimaster.answers() RETURNS jsonb
LANGUAGE plpgsql STABLE SET search_path = pg_catalog AS $function$
DECLARE
  answers text := current_setting('multimaster.answers', true);
BEGIN
  IF coalesce(answers, '') = '' THEN
    RAISE EXCEPTION 'the cluster can only be asked through its proxy' USING ERRCODE = 'object_not_in_prerequisite_state',
      HINT = 'Connect to the port of pgmm, and call the function in a statement of your own rather than in a function or view.';
  END IF;
  RETURN answers::jsonb;
END
$function$;

CREATE OR REPLACE FUNCTION multimaster.outcome(gid text) RETURNS text
LANGUAGE plpgsql STABLE STRICT SET search_path = pg_catalog AS $function$
DECLARE
  answers jsonb := multimaster.answers();
  error jsonb := answers -> 'error';
BEGIN
  IF answers -> 'outcomes' ? gid THEN
    RETURN answers -> 'outcomes' ->> gid;
  END IF;
  IF error IS NOT NULL THEN
    RAISE EXCEPTION '%', error ->> 'message' USING ERRCODE = error ->> 'sqlstate',
      DETAIL = coalesce(error ->> 'detail', ''), HINT = coalesce(error ->> 'hint', '');
  END IF;
  RAISE EXCEPTION '"%" is not the name of a transaction, or was not given as it is', gid USING ERRCODE = 'invalid_parameter_value',
    HINT = 'Give the name as a literal, or as a parameter in text form, in the statement that calls multimaster.outcome().';
END
$function$;
COMMENT ON FUNCTION multimaster.outcome(text) IS 'committed, aborted, in progress, or unknown (too long ago)';

CREATE OR REPLACE FUNCTION multimaster.current_gid() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $function$
  SELECT multimaster.answers() ->> 'current'
$function$;
COMMENT ON FUNCTION multimaster.current_gid() IS 'the name under which the open transaction block will be committed; null outside of one';

CREATE OR REPLACE FUNCTION multimaster.in_doubt(
  OUT gid text, OUT origin integer, OUT database text, OUT state text, OUT age interval, OUT waits_for text
) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog AS $function$
  SELECT d ->> 'gid', (d ->> 'origin')::integer, d ->> 'database', d ->> 'state',
    (d ->> 'ageMs')::float8 * interval '1 millisecond',
    (SELECT string_agg(w, '; ') FROM jsonb_array_elements_text(d -> 'waitsFor') w)
  FROM jsonb_array_elements(multimaster.answers() -> 'inDoubt') d
$function$;
COMMENT ON FUNCTION multimaster.in_doubt() IS 'transactions that are neither committed nor rolled back on this node';

CREATE OR REPLACE FUNCTION multimaster.token() RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog AS $function$
  SELECT multimaster.answers() ->> 'token'
$function$;
COMMENT ON FUNCTION multimaster.token() IS 'what multimaster.read_after must be on another node to show all that was to be seen here';
`;

/** After PRIVILEGES_SQL: what everyone may call. */
export const OUTCOME_PRIVILEGES_SQL =
  'GRANT EXECUTE ON FUNCTION multimaster.answers(), multimaster.outcome(text), multimaster.current_gid(), multimaster.in_doubt(), multimaster.token() TO PUBLIC;';
