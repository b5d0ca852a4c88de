import { scanSync } from 'libpg-query';
import type { LockCall, LockStatement, StatementKind } from './kinds.ts';
import { unsupported } from './kinds.ts';
import { child, descendants, flag, list, text } from './parser.ts';
import type { Node, RawStatement } from './parser.ts';

const SETTING_HINT =
  'Set advisory_locks to local in the configuration of the nodes if locks that hold on one node only will do.';

function refused(reason: string): StatementKind {
  return unsupported(
    `${reason}: advisory locks are taken on all nodes by a call in the select list of a SELECT, with keys that are known before it runs`,
    `Call the function in a SELECT of its own, such as SELECT pg_advisory_lock(1). ${SETTING_HINT}`,
  );
}

const HIDDEN = unsupported(
  'a function or view that the statement uses takes advisory locks, which would hold on this node only',
  `Take the lock in the client, by SELECT pg_advisory_lock(…). ${SETTING_HINT}`,
);

const FUNCTION = /^pg_(try_)?advisory_(xact_)?(?:(unlock)(_all)?|lock)(_shared)?$/;

/** Every function that is looked for, by name. */
export const LOCK_FUNCTIONS: readonly string[] = [
  ...['', 'try_'].flatMap((how) =>
    ['', 'xact_'].flatMap((until) => ['', '_shared'].map((mode) => `pg_${how}advisory_${until}lock${mode}`)),
  ),
  ...['pg_advisory_unlock', 'pg_advisory_unlock_shared', 'pg_advisory_unlock_all'],
];

/** The same functions by oid, for the FunctionCall message (pg_proc.dat; built-in oids never change). */
export const LOCK_OIDS: ReadonlySet<number> = new Set([
  ...Array.from({ length: 13 }, (_, i) => 2880 + i),
  ...Array.from({ length: 8 }, (_, i) => 3089 + i),
]);

/** Functions that a key may be computed with: the same for the same arguments, whoever asks. */
const SAFE_FUNCTIONS: ReadonlySet<string> = new Set([
  ...['hashtext', 'hashtextextended', 'hashint4', 'hashint8', 'abs', 'mod', 'md5', 'length', 'ascii', 'lower', 'upper'],
  ...[
    'concat',
    'left',
    'right',
    'substring',
    'substr',
    'current_database',
    'current_schema',
    'to_regclass',
    'bit_length',
  ],
  ...['crc32', 'digest', 'sha256', 'convert_to', 'get_byte', 'format', 'replace', 'trim', 'btrim', 'decode', 'encode'],
]);

/** What of a SELECT may stand beside its list. */
const PLAIN_FIELDS: ReadonlySet<string> = new Set(['targetList', 'fromClause', 'limitOption', 'limitCount', 'op']);

const nameOf = (call: Node): string => text(child(list(call, 'funcname').at(-1) ?? {}, 'String'), 'sval');

/** What the catalog knows of functions and views that take advisory locks in their bodies. */
export interface HiddenLocks {
  readonly functions: ReadonlySet<string>;
  readonly relations: ReadonlySet<string>;
}

/**
 * What a statement has to do with advisory locks; undefined for nothing. `sql` is the whole text that the statement stands in: locations in the
 * tree count its bytes. Whatever locks in a way that can't be followed here is refused.
 */
export function classifyLocks(statement: RawStatement, sql: string, hidden: HiddenLocks): StatementKind | undefined {
  const { name, node } = statement;
  if (
    name === 'ExplainStmt' &&
    !list(node, 'options').some((one) => text(child(one, 'DefElem'), 'defname') === 'analyze')
  )
    return undefined;
  if (name === 'DoStmt') return mentionsLocks(sql.slice(statement.start, statement.end)) ? refused('DO') : undefined;
  if (usesHidden(node, hidden)) return HIDDEN;
  const calls = [...descendants(node, 'FuncCall')].filter((call) => FUNCTION.test(nameOf(call)));
  if (calls.length === 0) return undefined;
  if (name !== 'SelectStmt' || !isPlain(node)) return refused('not supported in this statement');
  return new LockReader(statement, sql).read(calls);
}

/** Whether a text, such as that of a function, names one of the functions. */
export const mentionsLocks = (source: string): boolean => /pg_(?:try_)?advisory_/i.test(source);

function usesHidden(node: Node, { functions, relations }: HiddenLocks): boolean {
  if (functions.size === 0 && relations.size === 0) return false;
  if (functions.has(nameOf(child(node, 'funccall')))) return true;
  for (const call of descendants(node, 'FuncCall')) if (functions.has(nameOf(call))) return true;
  for (const relation of descendants(node, 'RangeVar')) if (relations.has(text(relation, 'relname'))) return true;
  return false;
}

/** One row, made of nothing but its list, or of functions for locks in FROM. */
function isPlain(node: Node): boolean {
  if (Object.keys(node).some((key) => !PLAIN_FIELDS.has(key))) return false;
  if (text(node, 'op') !== 'SETOP_NONE' || [...descendants(node, 'SubLink')].length > 0) return false;
  return list(node, 'fromClause').every((from) => {
    const functions = list(child(from, 'RangeFunction'), 'functions');
    const [call = {}] = functions.flatMap((one) => list(child(one, 'List'), 'items'));
    return functions.length === 1 && FUNCTION.test(nameOf(child(call, 'FuncCall')));
  });
}

interface Token {
  readonly start: number;
  readonly end: number;
  readonly text: string;
}

/** Cuts the calls out of a statement's text. */
class LockReader {
  readonly #statement: RawStatement;
  readonly #sql: string;
  readonly #bytes: Buffer;
  readonly #tokens: readonly Token[];
  readonly #parameters: number[] = [];

  constructor(statement: RawStatement, sql: string) {
    this.#statement = statement;
    this.#sql = sql;
    this.#bytes = Buffer.from(sql, 'utf8');
    this.#tokens = scanSync(sql).tokens;
  }

  read(nodes: readonly Node[]): StatementKind {
    const inFrom = new Set(
      [...descendants(this.#statement.node, 'RangeFunction')].flatMap((from) => [...descendants(from, 'FuncCall')]),
    );
    const calls: LockCall[] = [];
    for (const node of nodes) {
      const call = this.#call(node);
      if (call === undefined) return refused('not supported with these arguments');
      // The answer can't be put in its place there.
      if (call.effect === 'try' && inFrom.has(node)) return refused('not supported in FROM');
      calls.push(call);
    }
    calls.sort((a, b) => a.start - b.start);
    const { node } = this.#statement;
    const isBare = list(node, 'targetList').every((target) => 'FuncCall' in child(child(target, 'ResTarget'), 'val'));
    const onlyTakes = isBare && !('limitCount' in node) && calls.every(({ effect }) => effect === 'lock');
    return { type: 'lock', locks: { calls, parameters: this.#parameters, onlyTakes } };
  }

  #call(node: Node): LockCall | undefined {
    const name = nameOf(node);
    const [, tries, xact, unlock, all, shared] = (FUNCTION.exec(name) ?? []) as (string | undefined)[];
    const nodes = list(node, 'args');
    const count = all !== undefined ? 0 : nodes.length;
    const isCall = nodes.length === count && (all !== undefined || count === 1 || count === 2);
    if (!isCall || flag(node, 'func_variadic') || 'over' in node || 'agg_filter' in node || !nodes.every(isKnown))
      return undefined;
    const range = this.#arguments(typeof node['location'] === 'number' ? node['location'] : 0);
    if (range?.args.length !== count) return undefined;
    return {
      effect: all !== undefined ? 'unlock all' : unlock !== undefined ? 'unlock' : tries !== undefined ? 'try' : 'lock',
      ...{ shared: shared !== undefined, transaction: xact !== undefined, name },
      key: range.args,
      ...{
        start: this.#offset(range.start) - this.#statement.start,
        end: this.#offset(range.end) - this.#statement.start,
      },
    };
  }

  /** From the function's name to the closing parenthesis, in bytes. */
  #arguments(location: number): { start: number; end: number; args: string[] } | undefined {
    const args: string[] = [];
    let depth = 0;
    let current = '';
    for (const { start, end, text: word } of this.#tokens.slice(
      this.#tokens.findIndex((one) => one.start === location),
    )) {
      if (word === ')' || word === ']') depth--;
      if (depth === 0 && word === ')') {
        if (current !== '') args.push(current);
        return { start: location, end, args };
      }
      if (depth === 1 && word === ',') {
        args.push(current);
        current = '';
      } else if (depth > 0) current = `${current} ${this.#renumbered(start, end)}`.trim();
      if (word === '(' || word === '[') depth++;
    }
    return undefined;
  }

  #renumbered(start: number, end: number): string {
    const word = this.#bytes.toString('utf8', start, end);
    if (word.startsWith('--') || word.startsWith('/*')) return '';
    const number = /^\$(\d+)$/.exec(word)?.[1];
    if (number === undefined) return word;
    const known = this.#parameters.indexOf(Number(number));
    return `$${known === -1 ? this.#parameters.push(Number(number)) : known + 1}`;
  }

  #offset(byte: number): number {
    return this.#bytes.length === this.#sql.length ? byte : this.#bytes.toString('utf8', 0, byte).length;
  }
}

/** An expression that is the same wherever and whenever it is computed, and reads no row. */
function isKnown(node: Node): boolean {
  for (const [type, body] of Object.entries(node)) {
    switch (type) {
      case 'A_Const':
      case 'ParamRef':
        continue;
      case 'TypeCast':
        if (!isKnown(child(body as Node, 'arg'))) return false;
        continue;
      case 'A_Expr': {
        const sides = ['lexpr', 'rexpr'].filter((side) => side in (body as Node));
        if (!sides.every((side) => isKnown(child(body as Node, side)))) return false;
        continue;
      }
      case 'CoalesceExpr':
        if (!list(body as Node, 'args').every(isKnown)) return false;
        continue;
      case 'FuncCall':
        if (!SAFE_FUNCTIONS.has(nameOf(body as Node)) || !list(body as Node, 'args').every(isKnown)) return false;
        continue;
      default:
        return false;
    }
  }
  return true;
}

/** Where the session leaves the numbers of calls that the cluster denies, as `,1,3,`. */
export const DENIED_SETTING = 'multimaster.denied_locks';

/**
 * The statement with each try_ function behind a question of the session's: a lock that another node holds is free in this PostgreSQL. A
 * sub-select, since that keeps the name of the column.
 */
export function withDenials(sql: string, { calls }: LockStatement): string {
  return replaceCalls(sql, calls, (call, number) =>
    call.effect === 'try'
      ? `CASE WHEN pg_catalog.strpos(pg_catalog.current_setting('${DENIED_SETTING}', true), ',${number},') > 0 THEN false ELSE ${sql.slice(call.start, call.end)} END`
      : undefined,
  );
}

/** The statement with `false` in the place of the calls of these numbers. */
export function withoutCalls(sql: string, { calls }: LockStatement, denied: ReadonlySet<number>): string {
  return replaceCalls(sql, calls, (_call, number) => (denied.has(number) ? 'false' : undefined));
}

function replaceCalls(
  sql: string,
  calls: readonly LockCall[],
  instead: (call: LockCall, number: number) => string | undefined,
): string {
  let result = '';
  let at = 0;
  calls.forEach((call, number) => {
    const value = instead(call, number);
    if (value === undefined) return;
    result += `${sql.slice(at, call.start)}(SELECT ${value} AS ${call.name})`;
    at = call.end;
  });
  return result + sql.slice(at);
}

/**
 * Asks PostgreSQL for the keys: per call one value or two, then lock_timeout and statement_timeout in milliseconds. The types are those that the
 * functions take.
 */
export function keysSql({ calls }: LockStatement): string {
  const keys = calls.flatMap(({ key }) =>
    key.map((sql) => `(${sql})::pg_catalog.${key.length === 1 ? 'int8' : 'int4'}`),
  );
  const timeouts = ['lock_timeout', 'statement_timeout', 'deadlock_timeout'].map(
    (name) =>
      `pg_catalog.date_part('epoch', pg_catalog.current_setting('${name}')::pg_catalog.interval) OPERATOR(pg_catalog.*) 1000`,
  );
  return `SELECT ${[...keys, ...timeouts, 'pg_catalog.pg_backend_pid()'].join(', ')}`;
}
