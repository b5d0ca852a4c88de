/**
 * Changes of a table's rows by ALTER TABLE. They are not decoded: every node makes them itself when the statement is
 * replayed, so they are allowed only where every node must come to the same rows, or where there are none.
 */
export const REWRITE_SQL = `
-- Of all that an expression calls, the least predictable: volatile, stable or immutable. Casts by way of text count as what
-- reads the text: 'now'::text::date is another day tomorrow. What enums read is in the catalogs, the same on every node.
CREATE OR REPLACE FUNCTION multimaster.expression_volatility(expression text) RETURNS "char"
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  WITH called AS (
    SELECT CASE WHEN m[1] = 'opno' THEN (SELECT oprcode::oid FROM pg_operator WHERE oid = m[2]::oid) ELSE m[2]::oid END AS oid
    FROM regexp_matches(expression, ':(funcid|opfuncid|aggfnoid|winfnoid|opno) (\\d+)', 'g') m
    UNION ALL
    SELECT t.typinput::oid FROM regexp_matches(expression, ':resulttype (\\d+) :resultcollid', 'g') m
    JOIN pg_type t ON t.oid = m[1]::oid AND t.typtype <> 'e'
  )
  SELECT CASE
    WHEN expression ~ '\\{NEXTVALUEEXPR' OR bool_or(p.provolatile = 'v') THEN 'v'
    WHEN expression ~ '\\{SQLVALUEFUNCTION' OR bool_or(p.provolatile = 's') THEN 's'
    ELSE 'i'
  END::"char"
  FROM called LEFT JOIN pg_proc p USING (oid)
$function$;

-- Whether a text of SQL has strings in it that stand for the moment in which they are read, where dates or times are.
CREATE OR REPLACE FUNCTION multimaster.names_moment(query text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $function$
  SELECT query ~* '[''$]([^''$]*[^[:alpha:]''$])?(now|today|tomorrow|yesterday)([^[:alpha:]''$][^''$]*)?[''$]'
$function$;

-- Whether an expression has dates or times as constants, also in arrays, ranges or rows.
CREATE OR REPLACE FUNCTION multimaster.has_moment(expression text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  WITH RECURSIVE part (oid) AS (
    SELECT m[1]::oid FROM regexp_matches(expression, ':consttype (\\d+)', 'g') m
    UNION
    SELECT inner_type.oid FROM part JOIN pg_type t USING (oid), LATERAL (
      SELECT t.typbasetype AS oid
      UNION ALL SELECT t.typelem
      UNION ALL SELECT r.rngsubtype FROM pg_range r WHERE t.oid IN (r.rngtypid, r.rngmultitypid)
      UNION ALL SELECT a.atttypid FROM pg_attribute a WHERE a.attrelid = t.typrelid AND a.attnum > 0 AND NOT a.attisdropped
    ) inner_type
  )
  SELECT EXISTS (SELECT FROM part JOIN pg_type t USING (oid) WHERE t.typcategory = 'D')
$function$;

CREATE OR REPLACE FUNCTION multimaster.has_rows(relation regclass) RETURNS boolean
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog SET row_security = off AS $function$
DECLARE
  found_any boolean;
BEGIN
  EXECUTE format('SELECT EXISTS (SELECT FROM ONLY %s)', relation) INTO found_any;
  RETURN found_any;
EXCEPTION WHEN data_corrupted THEN
  -- In the middle of a rewrite the new indexes are empty files, which the planner can't read. So perhaps there are rows.
  RETURN pg_relation_size(relation) > 0;
END
$function$;

-- A column that this transaction added or changed, whose default, or that of its domain, differs from call to call; null
-- if there is none. 'now' as a timestamp is stored as a constant, which this statement has read on this node.
CREATE OR REPLACE FUNCTION multimaster.unpredictable_column(relation regclass, only_stored boolean) RETURNS name
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  SELECT a.attname FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
  LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum,
    -- What is stored for a default that the same statement took away again was a constant of the column's type.
    LATERAL (SELECT concat(coalesce(d.adbin, t.typdefaultbin)::text,
      CASE WHEN a.atthasmissing AND d.adbin IS NULL THEN format(' :consttype %s', a.atttypid) END) AS expression) e
  WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
    AND age(a.xmin) <= age(pg_current_xact_id()::xid)
    AND (a.atthasmissing OR NOT only_stored)
    AND (a.attidentity <> '' OR multimaster.expression_volatility(e.expression) <> 'i'
      OR multimaster.names_moment(current_query()) AND multimaster.has_moment(e.expression))
  ORDER BY a.attnum LIMIT 1
$function$;

CREATE OR REPLACE FUNCTION multimaster.refuse_default(relation regclass, attname name) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog AS $function$
BEGIN
  RAISE EXCEPTION 'adding column "%" to % with a default that is not constant is not supported', attname, relation
    USING ERRCODE = '0A000', DETAIL = 'Every node would compute other values for the rows that are there.',
      HINT = CASE WHEN multimaster.names_moment(current_query()) THEN 'Write the time itself instead of ''now'', ''today'' or the like.'
        ELSE 'Add the column without a default, or with a constant in the place of its domain''s, then ALTER COLUMN … SET DEFAULT, then UPDATE the rows.' END;
END
$function$;

-- A domain keeps the time that 'now' was when it was defined, and gives it to columns that are added later.
CREATE OR REPLACE FUNCTION multimaster.check_domain_default(domain regtype) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
BEGIN
  IF NOT EXISTS (
    SELECT FROM pg_type t WHERE t.oid = domain AND multimaster.names_moment(current_query())
      AND multimaster.has_moment(t.typdefaultbin::text)
  ) THEN RETURN; END IF;
  RAISE EXCEPTION 'domain % cannot have the present moment as its default', domain
    USING ERRCODE = '0A000', DETAIL = '''now'', ''today'' and the like are read when the domain is defined: at another time on every node.',
      HINT = 'Use now() or CURRENT_DATE, or write the time itself.';
END
$function$;

-- A stable default such as now() rewrites nothing: its value is stored beside the column, once, on every node for itself.
CREATE OR REPLACE FUNCTION multimaster.check_stored_defaults(relation regclass) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  attname name;
  leaf regclass;
BEGIN
  FOR leaf IN
    WITH RECURSIVE family (oid) AS (
      SELECT relation::oid UNION SELECT i.inhrelid FROM pg_inherits i JOIN family f ON i.inhparent = f.oid
    ) SELECT f.oid FROM family f JOIN pg_class c USING (oid) WHERE c.relkind = 'r'
  LOOP
    attname := multimaster.unpredictable_column(leaf, true);
    IF attname IS NOT NULL AND multimaster.has_rows(leaf) THEN PERFORM multimaster.refuse_default(leaf, attname); END IF;
  END LOOP;
END
$function$;

-- The USING clause of a type change can't be seen here, so the text has to do: whatever is written like a function
-- call must be predictable wherever a function of that name exists. In doubt it isn't.
CREATE OR REPLACE FUNCTION multimaster.text_is_predictable(query text) RETURNS boolean
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
  SELECT query !~* '\\m(current_(timestamp|date|time|user|role|catalog|schema)|localtime|localtimestamp|session_user|user)\\M'
    AND NOT multimaster.names_moment(query)
    AND NOT EXISTS (
      SELECT FROM regexp_matches(query, '(?:([[:alpha:]_][[:alnum:]_$]*)|"((?:[^"]|"")+)")\\s*\\(', 'g') m
      JOIN pg_proc p ON p.proname = coalesce(lower(m[1]), replace(m[2], '""', '"'))
      WHERE p.provolatile = 'v' OR p.provolatile = 's' AND (
        p.pronamespace <> 'pg_catalog'::regnamespace
        OR p.proname IN ('now', 'transaction_timestamp', 'statement_timestamp', 'current_setting', 'pg_backend_pid', 'age',
          'txid_current', 'txid_current_if_assigned', 'pg_current_xact_id', 'pg_current_xact_id_if_assigned', 'pg_current_snapshot')
        OR p.proname LIKE ANY (ARRAY['inet\\_%', 'pg\\_%', 'to\\_reg%', 'query\\_to\\_%', 'table\\_to\\_%', 'schema\\_to\\_%', 'database\\_to\\_%'])
      )
    )
    AND NOT EXISTS (
      SELECT FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode
      WHERE p.provolatile <> 'i' AND o.oid >= 16384 AND strpos(query, o.oprname) > 0
    )
    AND NOT EXISTS (
      SELECT FROM pg_cast c JOIN pg_proc p ON p.oid = c.castfunc WHERE p.provolatile <> 'i' AND c.oid >= 16384
    )
$function$;

CREATE OR REPLACE FUNCTION multimaster.on_table_rewrite() RETURNS event_trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  relation regclass := pg_event_trigger_table_rewrite_oid();
  reason integer := pg_event_trigger_table_rewrite_reason();
  persistence "char";
  attname name;
BEGIN
  SELECT c.relpersistence INTO persistence FROM pg_class c WHERE c.oid = relation;
  IF persistence = 't' OR NOT multimaster.is_active() THEN RETURN; END IF;
  -- The nodes' rows of an unlogged table are their own affair; they would stay different afterwards.
  IF reason & 1 <> 0 AND tg_tag = 'ALTER TABLE' AND persistence = 'u' THEN
    RAISE EXCEPTION 'ALTER TABLE % SET LOGGED is not supported', relation
      USING ERRCODE = '0A000', DETAIL = 'Rows of unlogged tables are not replicated.',
        HINT = 'CREATE TABLE … (LIKE …) and INSERT INTO … SELECT.';
  END IF;
  IF reason & 6 = 0 OR NOT multimaster.has_rows(relation) THEN RETURN; END IF;
  -- Whatever the reason: values that were stored beside new columns go into the rows now.
  attname := multimaster.unpredictable_column(relation, reason & 2 = 0);
  IF attname IS NOT NULL THEN PERFORM multimaster.refuse_default(relation, attname); END IF;
  IF reason & 4 <> 0 AND NOT multimaster.text_is_predictable(current_query()) THEN
    RAISE EXCEPTION 'changing the type of a column of % by an expression that is not immutable is not supported', relation
      USING ERRCODE = '0A000', DETAIL = 'Every node would compute other values.',
        HINT = 'Add a column, UPDATE it, drop the old one and rename the new one.';
  END IF;
END
$function$;
`;
