import type { ClientBase } from 'pg';
import { mentionsLocks, type HiddenLocks } from '../sql/advisory.ts';
import { isUnsafeBuiltin } from './unsafe-functions.ts';

/**
 * Which names make a statement more than a read, in one database. Names are bare and as the catalog spells them: a name
 * is unsafe if it is so in any schema, since which schema a name resolves to is the session's secret. Built-in
 * functions are not listed: see isUnsafeBuiltin.
 */
export interface FunctionSafety {
  /** Functions outside pg_catalog of which some overload is volatile, or calls by name something that is. */
  readonly volatileNames: ReadonlySet<string>;
  /** Operators outside pg_catalog that such a function, or an unsafe built-in, stands behind. */
  readonly volatileOperators: ReadonlySet<string>;
  /** Types whose casts or domain checks run such a function. */
  readonly volatileTypes: ReadonlySet<string>;
  /** Views, and tables with row security, whose reading runs such a function, directly or through other views. */
  readonly taintedRelations: ReadonlySet<string>;
  /** Of all those, the ones that take advisory locks, or may: by name, as their bodies mention it. */
  readonly hiddenAdvisory: HiddenLocks;
  /** Some function, rule or view locks rows or tables, as far as its text tells. */
  readonly hidesLocks: boolean;
}

interface FunctionRow {
  readonly oid: number;
  readonly name: string;
  readonly volatile: boolean;
  /** The text of a body that is not C, where names of other functions may stand. */
  readonly body: string | null;
}

const NOT_BUILT_IN = `n.nspname NOT IN ('pg_catalog', 'information_schema', 'multimaster')`;

/** An aggregate is as volatile as what it is made of. */
const FUNCTIONS = `
SELECT p.oid::int8::float8 AS oid, p.proname AS name,
  CASE WHEN p.prokind = 'a' THEN EXISTS (
    SELECT FROM pg_catalog.pg_aggregate a JOIN pg_catalog.pg_proc f
      ON f.oid IN (a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn, a.aggminvtransfn, a.aggmfinalfn)
    WHERE a.aggfnoid = p.oid AND f.provolatile = 'v' AND f.oid >= 16384
  ) ELSE p.provolatile = 'v' END AS volatile,
  CASE WHEN p.provolatile <> 'v' AND l.lanname NOT IN ('c', 'internal') THEN
    coalesce(pg_catalog.pg_get_function_sqlbody(p.oid), p.prosrc) END AS body
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE ${NOT_BUILT_IN}`;

/** What expressions call, by the catalog that holds them. The kinds are resolved to functions below. */
const CALLS = `
WITH expression (source, owner, content) AS (
  SELECT 'relation', r.ev_class, r.ev_action::text FROM pg_catalog.pg_rewrite r
    JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE r.ev_type = '1' AND c.relkind = 'v' AND ${NOT_BUILT_IN}
  UNION ALL
  SELECT 'relation', p.polrelid, pg_catalog.concat(p.polqual::text, p.polwithcheck::text) FROM pg_catalog.pg_policy p
  UNION ALL
  SELECT 'type', k.contypid, k.conbin::text FROM pg_catalog.pg_constraint k WHERE k.contypid <> 0 AND k.conbin IS NOT NULL
)
SELECT DISTINCT e.source, e.owner::int8::float8 AS owner, m[1] AS kind, m[2]::int8::float8 AS oid
FROM expression e,
  pg_catalog.regexp_matches(e.content, ':(funcid|opfuncid|aggfnoid|winfnoid|opno|relid) (\\d+)', 'g') m
WHERE m[2] <> '0'
UNION ALL
SELECT 'type', t.oid::int8::float8, 'funcid', c.castfunc::int8::float8
FROM pg_catalog.pg_cast c, pg_catalog.pg_type t
WHERE c.castfunc >= 16384 AND t.oid IN (c.castsource, c.casttarget) AND t.oid >= 16384
UNION ALL
SELECT 'operator', o.oid::int8::float8, 'funcid', o.oprcode::oid::int8::float8
FROM pg_catalog.pg_operator o JOIN pg_catalog.pg_namespace n ON n.oid = o.oprnamespace WHERE ${NOT_BUILT_IN}`;

/**
 * Bodies are searched for the words: those of a dynamic statement stand there, too, and what stands there for something else costs time only.
 * In the tree of a rule or view, locking clauses are rowMarks; a foreign key's own are not (RowMarkClause in parsenodes.h).
 */
const HIDES_LOCKS = `
SELECT EXISTS (
  SELECT FROM pg_catalog.pg_proc p JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
  WHERE ${NOT_BUILT_IN} AND (p.prosrc OPERATOR(pg_catalog.~*) '\\mfor\\s+(update|share|no\\s+key|key\\s+share)\\M|\\mlock\\M'
    OR p.prosqlbody::text OPERATOR(pg_catalog.~) ':rowMarks \\(')
) OR EXISTS (
  SELECT FROM pg_catalog.pg_rewrite r
  JOIN pg_catalog.pg_class c ON c.oid = r.ev_class JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
  WHERE ${NOT_BUILT_IN} AND r.ev_action::text OPERATOR(pg_catalog.~) ':rowMarks \\('
) AS hides`;

interface CallRow {
  readonly source: 'relation' | 'type' | 'operator';
  readonly owner: number;
  readonly kind: 'funcid' | 'opfuncid' | 'aggfnoid' | 'winfnoid' | 'opno' | 'relid';
  readonly oid: number;
}

/** Reads what the database's functions and views say about themselves. To be repeated after DDL. */
export async function loadSafety(client: ClientBase): Promise<FunctionSafety> {
  const functions = (await client.query<FunctionRow>(FUNCTIONS)).rows;
  const volatileNames = closeOverBodies(functions);
  const calls = (await client.query<CallRow>(CALLS)).rows;
  const unsafe = await unsafeFunctions(client, functions, volatileNames, calls);
  const tainted = closeOverViews(calls, unsafe);
  const owners = [...tainted];
  const named = (source: CallRow['source']): number[] =>
    owners.filter((owner) => owner.startsWith(`${source} `)).map((owner) => Number(owner.slice(source.length + 1)));
  const names = async (catalog: string, column: string, source: CallRow['source']): Promise<Set<string>> => {
    const { rows } = await client.query<{ name: string }>(
      `SELECT DISTINCT ${column} AS name FROM pg_catalog.${catalog} WHERE oid = ANY ($1::oid[])`,
      [named(source)],
    );
    return new Set(rows.map(({ name }) => name));
  };
  return {
    volatileNames,
    volatileOperators: await names('pg_operator', 'oprname', 'operator'),
    volatileTypes: await names('pg_type', 'typname', 'type'),
    taintedRelations: await names('pg_class', 'relname', 'relation'),
    hiddenAdvisory: await loadHiddenAdvisory(client),
    hidesLocks: (await client.query<{ hides: boolean }>(HIDES_LOCKS)).rows[0].hides,
  };
}

const LOCKING_FUNCTIONS = `
SELECT p.proname AS name,
  pg_catalog.concat(pg_catalog.pg_get_function_sqlbody(p.oid), ' ', p.prosrc) AS body
FROM pg_catalog.pg_proc p
JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace
JOIN pg_catalog.pg_language l ON l.oid = p.prolang
WHERE l.lanname NOT IN ('c', 'internal') AND p.prokind <> 'a' AND ${NOT_BUILT_IN}`;

const VIEWS = `
SELECT c.relname AS name, pg_catalog.pg_get_viewdef(c.oid) AS body
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND ${NOT_BUILT_IN}`;

/** Functions that call one of PostgreSQL's for advisory locks, or one another that does, and views over them. */
async function loadHiddenAdvisory(client: ClientBase): Promise<HiddenLocks> {
  type Row = { readonly name: string; readonly body: string };
  const functions = closeOverNames((await client.query<Row>(LOCKING_FUNCTIONS)).rows);
  const relations = closeOverNames((await client.query<Row>(VIEWS)).rows, functions);
  return { functions, relations };
}

/** Names of what mentions a lock function, one of `names`, or another of these. */
function closeOverNames(
  bodies: readonly { readonly name: string; readonly body: string }[],
  names: ReadonlySet<string> = new Set(),
): Set<string> {
  const found = new Set<string>();
  const words = bodies.map(({ name, body }) => ({ name, locks: mentionsLocks(body), words: new Set(wordsOf(body)) }));
  for (let before = -1; before !== found.size;) {
    before = found.size;
    for (const { name, locks, words: used } of words)
      if (locks || [...used].some((word) => found.has(word) || names.has(word))) found.add(name);
  }
  return found;
}

/**
 * A function that is declared stable or immutable may all the same call one that is not: PostgreSQL keeps only its own
 * statements from writing. So a name in a body taints it, and so does dynamic SQL.
 */
function closeOverBodies(functions: readonly FunctionRow[]): Set<string> {
  const names = new Set(functions.filter(({ volatile }) => volatile).map(({ name }) => name));
  const words = functions
    .filter(({ volatile, body }) => !volatile && body !== null)
    .map(({ name, body }) => ({ name, words: new Set(wordsOf(body!)) }));
  for (let before = -1; before !== names.size;) {
    before = names.size;
    for (const { name, words: used } of words) {
      if (names.has(name)) continue;
      if ([...used].some((word) => names.has(word) || isUnsafeBuiltin(word) || word === 'execute')) names.add(name);
    }
  }
  return names;
}

/** Everything that could be an identifier, as written in quotes or folded. */
function* wordsOf(body: string): Iterable<string> {
  for (const [word] of body.matchAll(/[\p{L}_][\p{L}\p{N}_$]*/gu)) {
    yield word;
    yield word.toLowerCase();
  }
}

/** The object ids of functions that are unsafe, and of built-in operators in front of unsafe ones. */
async function unsafeFunctions(
  client: ClientBase,
  functions: readonly FunctionRow[],
  volatileNames: ReadonlySet<string>,
  calls: readonly CallRow[],
): Promise<Set<string>> {
  const unsafe = new Set(functions.filter(({ name }) => volatileNames.has(name)).map(({ oid }) => `function ${oid}`));
  const builtins = calls.filter(({ kind, oid }) => kind !== 'relid' && kind !== 'opno' && oid < 16_384);
  const { rows } = await client.query<{ oid: number; name: string }>(
    'SELECT oid::int8::float8 AS oid, proname AS name FROM pg_catalog.pg_proc WHERE oid = ANY ($1::oid[])',
    [[...new Set(builtins.map(({ oid }) => oid))]],
  );
  for (const { oid, name } of rows) if (isUnsafeBuiltin(name)) unsafe.add(`function ${oid}`);
  return unsafe;
}

/** `relation 16400`, `operator …`, `type …`: whatever calls an unsafe function, or a tainted view or operator. */
function closeOverViews(calls: readonly CallRow[], unsafe: ReadonlySet<string>): Set<string> {
  const tainted = new Set<string>();
  for (let before = -1; before !== tainted.size;) {
    before = tainted.size;
    for (const { source, owner, kind, oid } of calls) {
      const hit =
        kind === 'relid'
          ? tainted.has(`relation ${oid}`)
          : kind === 'opno'
            ? tainted.has(`operator ${oid}`)
            : unsafe.has(`function ${oid}`);
      if (hit) tainted.add(`${source} ${owner}`);
    }
  }
  return tainted;
}
