/**
 * Sequences. Every node hands out its own residue class: with `stride` classes, node n of a sequence defined as
 * START a INCREMENT i has the values a + i·(n−1) + i·stride·k. START is moved into the class as well, since RESTART and
 * TRUNCATE … RESTART IDENTITY return to it; so is the bound that a CYCLE sequence returns to. CACHE stays as it is.
 *
 * The class is fixed by the START that the sequence was first defined with (`anchor`): moving it later would let two
 * nodes meet on values that one of them has handed out already.
 */
export const SEQUENCES_SQL = `
-- The first value at or beyond "value", in the direction of "step", that is "origin" plus a multiple of "step".
CREATE OR REPLACE FUNCTION multimaster.next_in_class(value numeric, origin numeric, step numeric) RETURNS numeric
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog AS $function$
  SELECT origin + step * (div(value - origin, step) + CASE WHEN sign(mod(value - origin, step)) = sign(step) THEN 1 ELSE 0 END)
$function$;

-- The furthest value in the column that owns the sequence; null for a sequence without a numeric one.
CREATE OR REPLACE FUNCTION multimaster.furthest_in_table(sequence regclass, ascending boolean) RETURNS numeric
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  owner record;
  furthest numeric;
BEGIN
  SELECT d.refobjid::regclass AS relation, a.attname INTO owner
  FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
  WHERE d.classid = 'pg_class'::regclass AND d.objid = sequence AND d.refclassid = 'pg_class'::regclass
    AND d.refobjsubid > 0 AND d.deptype IN ('a', 'i')
    AND a.atttypid IN ('int2'::regtype, 'int4'::regtype, 'int8'::regtype, 'numeric'::regtype)
  LIMIT 1;
  IF NOT FOUND THEN RETURN NULL; END IF;
  EXECUTE format('SELECT %s(%I)::numeric FROM %s', CASE WHEN ascending THEN 'max' ELSE 'min' END, owner.attname, owner.relation)
    INTO furthest;
  RETURN furthest;
END
$function$;

-- What the user defined: the definition in force, except for the parts that are still as this node put them.
CREATE OR REPLACE FUNCTION multimaster.sequence_definition(relation regclass) RETURNS multimaster.sequence
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  known multimaster.sequence;
  s pg_sequence;
BEGIN
  SELECT * INTO STRICT s FROM pg_sequence WHERE seqrelid = relation;
  SELECT * INTO known FROM multimaster.sequence k WHERE k.sequence = relation;
  known.sequence := relation;
  known.anchor := coalesce(known.anchor, s.seqstart);
  IF known.increment IS DISTINCT FROM s.seqincrement THEN known.base_increment := s.seqincrement; END IF;
  IF known.start IS DISTINCT FROM s.seqstart THEN known.base_start := s.seqstart; END IF;
  IF known.min IS DISTINCT FROM s.seqmin THEN known.base_min := s.seqmin; END IF;
  IF known.max IS DISTINCT FROM s.seqmax THEN known.base_max := s.seqmax; END IF;
  RETURN known;
END
$function$;

-- A sequence that can't be divided among the nodes is refused where it is defined, and left alone where it is found.
CREATE OR REPLACE FUNCTION multimaster.sequence_is_divisible(def multimaster.sequence, stride integer) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = pg_catalog AS $function$
BEGIN
  IF div(def.base_max::numeric - def.base_min, abs(def.base_increment)::numeric) + 1 >= stride THEN RETURN true; END IF;
  IF multimaster.is_origin() THEN
    RAISE EXCEPTION 'sequence % has fewer values than there can be nodes', def.sequence
      USING ERRCODE = '0A000', HINT = format('Give it room for at least %s values (MINVALUE, MAXVALUE).', stride);
  END IF;
  RAISE WARNING 'sequence % has fewer values than there can be nodes: the nodes will hand out the same values', def.sequence;
  RETURN false;
END
$function$;

-- Whether a statement says where a sequence goes on. One that goes on where it began has not been used, on this node.
CREATE OR REPLACE FUNCTION multimaster.restarts_with(query text, value bigint) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog AS $function$
  SELECT EXISTS (
    SELECT FROM regexp_matches(query, '\\mrestart\\s+(?:with\\s+)?([-+]?\\d+)\\M', 'gi') m WHERE m[1]::numeric = value
  )
$function$;

CREATE OR REPLACE FUNCTION multimaster.align_sequence(relation regclass, look_at_table boolean DEFAULT false) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  def multimaster.sequence := multimaster.sequence_definition(relation);
  known boolean := def.increment IS NOT NULL;
  changed boolean;
  cycles boolean;
  node integer;
  stride integer;
  step numeric;
  class numeric;
  last_value bigint;
  is_called boolean;
  next numeric;
  furthest numeric;
BEGIN
  SELECT i.node_id, i.stride INTO STRICT node, stride FROM multimaster.installation i;
  SELECT s.seqcycle INTO STRICT cycles FROM pg_sequence s WHERE s.seqrelid = relation;
  EXECUTE format('SELECT last_value, is_called FROM %s', relation) INTO last_value, is_called;
  IF known AND multimaster.is_origin() AND def.increment <> (SELECT s.seqincrement FROM pg_sequence s WHERE s.seqrelid = relation)
    AND (is_called OR NOT multimaster.restarts_with(current_query(), last_value))
  THEN
    RAISE EXCEPTION 'the increment of sequence % can''t be changed without a new start', relation
      USING ERRCODE = '0A000',
        DETAIL = 'Nodes would hand out values that others have handed out already, of which this node need not know.',
        HINT = 'Add RESTART WITH and a value that no node has reached.';
  END IF;
  IF NOT multimaster.sequence_is_divisible(def, stride) THEN RETURN; END IF;

  step := def.base_increment::numeric * stride;
  class := def.anchor + def.base_increment::numeric * (node - 1);
  next := multimaster.next_in_class(CASE WHEN is_called THEN last_value + sign(step) ELSE last_value END, class, step);
  changed := NOT is_called AND next <> last_value OR is_called AND next <> last_value + step;
  IF look_at_table THEN
    furthest := multimaster.furthest_in_table(relation, step > 0);
    IF sign(step) * (furthest - next) >= 0 THEN
      next := multimaster.next_in_class(furthest + sign(step), class, step);
      changed := true;
    END IF;
  END IF;
  PERFORM multimaster.put_sequence(def, class, step, cycles, next, changed);
END
$function$;

-- Brings the sequence into its class, and notes how. "moved": its next value has to become "next".
CREATE OR REPLACE FUNCTION multimaster.put_sequence(
  def multimaster.sequence, class numeric, step numeric, cycles boolean, next numeric, moved boolean
) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  low numeric := def.base_min;
  high numeric := def.base_max;
  first numeric := multimaster.next_in_class(def.base_start, class, step);
  restart numeric;
BEGIN
  IF cycles AND step > 0 THEN low := multimaster.next_in_class(low, class, step); END IF;
  IF cycles AND step < 0 THEN high := multimaster.next_in_class(high, class, step); END IF;
  first := least(greatest(first, low), high);
  IF cycles AND next NOT BETWEEN low AND high THEN next := CASE WHEN step > 0 THEN low ELSE high END; END IF;
  restart := least(greatest(next, low), high);
  IF moved OR NOT EXISTS (
    SELECT FROM pg_sequence s WHERE s.seqrelid = def.sequence
      AND (s.seqincrement, s.seqstart, s.seqmin, s.seqmax) = (step, first, low, high)
  ) THEN
    PERFORM multimaster.execute_quietly(format(
      'ALTER SEQUENCE %s INCREMENT BY %s MINVALUE %s MAXVALUE %s START WITH %s', def.sequence, step, low, high, first
    ) || CASE WHEN moved THEN format(' RESTART WITH %s', restart) ELSE '' END);
    -- Nothing of the class is left: the next nextval() has to say so. The rewrite above makes this transactional.
    IF moved AND restart <> next THEN PERFORM setval(def.sequence, restart::bigint, true); END IF;
  END IF;
  DELETE FROM multimaster.sequence k WHERE k.sequence = def.sequence
    AND (k.base_increment, k.base_start, k.base_min, k.base_max, k.increment, k.start, k.min, k.max)
      IS DISTINCT FROM (def.base_increment, def.base_start, def.base_min, def.base_max, step::bigint, first::bigint, low::bigint, high::bigint);
  INSERT INTO multimaster.sequence VALUES (
    def.sequence, def.anchor, def.base_increment, def.base_start, def.base_min, def.base_max, step, first, low, high
  ) ON CONFLICT DO NOTHING;
END
$function$;
`;
