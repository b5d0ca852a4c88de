import { EVENT_TRIGGERS } from './triggers.ts';

const OURS = EVENT_TRIGGERS.map(({ name }) => `'${name}'`).join(', ');

/**
 * What fires where another node's transaction is replayed (ENABLE ALWAYS and ENABLE REPLICA), and the statement that makes it fire on the origin
 * only. Its work is in the replayed transaction already. What must fire is left out: the checks of deferrable keys, and the event
 * triggers that keep identities and sequences in order.
 */
export const FIRING_ON_REPLAY = `
SELECT pg_catalog.format('trigger %I of table %s', t.tgname, c.oid::pg_catalog.regclass) AS what,
  pg_catalog.format('ALTER TABLE %s ENABLE TRIGGER %I', c.oid::pg_catalog.regclass, t.tgname) AS cure
FROM pg_catalog.pg_trigger t JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE t.tgenabled IN ('A', 'R') AND c.relpersistence <> 't' AND NOT EXISTS (
  SELECT FROM pg_catalog.pg_constraint k WHERE k.oid = t.tgconstraint AND k.conrelid = c.oid AND k.contype IN ('p', 'u', 'x')
)
UNION ALL
SELECT pg_catalog.format('rule %I of table %s', r.rulename, c.oid::pg_catalog.regclass),
  pg_catalog.format('ALTER TABLE %s ENABLE RULE %I', c.oid::pg_catalog.regclass, r.rulename)
FROM pg_catalog.pg_rewrite r JOIN pg_catalog.pg_class c ON c.oid = r.ev_class
WHERE r.ev_enabled IN ('A', 'R') AND c.relpersistence <> 't'
UNION ALL
SELECT pg_catalog.format('event trigger %I', e.evtname), pg_catalog.format('ALTER EVENT TRIGGER %I ENABLE', e.evtname)
FROM pg_catalog.pg_event_trigger e WHERE e.evtenabled IN ('A', 'R') AND e.evtname NOT IN (${OURS})
ORDER BY 1`;

/** Such a one in the script of an extension, which no statement of a client shows. */
export const FIRING_SQL = `
CREATE OR REPLACE FUNCTION multimaster.refuse_firing_on_replay(tag text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog AS $function$
DECLARE
  found_one text;
BEGIN
  SELECT f.what INTO found_one FROM (${FIRING_ON_REPLAY}) f LIMIT 1;
  IF NOT FOUND THEN RETURN; END IF;
  RAISE EXCEPTION '% is not supported: % fires on replay', tag, found_one
    USING ERRCODE = '0A000', DETAIL = 'What it does would be done once more on every other node.';
END
$function$;
`;
