import { classifyLocks } from './advisory.ts';
import type { HiddenLocks } from './advisory.ts';
import { DDL_RULES } from './ddl.ts';
import type { StatementKind } from './kinds.ts';
import { COPY_IN, LOCAL, MAYBE, READ, TRUNCATE, WRITE, unsupported } from './kinds.ts';
import { UNSUPPORTED_FUNCTIONS } from './names.ts';
import { child, descendants, firstEntry, flag, list, parse, text } from './parser.ts';
import type { Node, RawStatement } from './parser.ts';
import { classifySet, classifyTransaction } from './transactions.ts';

export interface Statement {
  readonly kind: StatementKind;
  /** May lock rows or tables, other than by changing them, as far as its text tells. */
  readonly locks: boolean;
  /** INSERT, UPDATE, DELETE, MERGE, SELECT: what it does in the database is undone with its transaction. */
  readonly query: boolean;
  /** The name of the prepared statement that EXECUTE runs. */
  readonly executes?: string;
  /** Offsets into the text, in UTF-16 units. */
  readonly start: number;
  readonly end: number;
}

const NOTIFY = unsupported(
  'NOTIFY is not delivered to the other nodes yet',
  'Poll a table, or use LISTEN and NOTIFY outside the coordinated database.',
);
const SELECT_INTO = unsupported(
  'a table cannot be created from a query yet',
  'Create the table with its columns first, then use INSERT … SELECT.',
);

const QUERIES = new Set(['SelectStmt', 'InsertStmt', 'UpdateStmt', 'DeleteStmt', 'MergeStmt']);

type Rule = StatementKind | ((node: Node) => StatementKind);

/** What becomes of a statement that is no DDL, by the name of its node in PostgreSQL's grammar. */
const RULES: Readonly<Partial<Record<string, Rule>>> = {
  SelectStmt: (node) => ('intoClause' in node ? SELECT_INTO : MAYBE),
  InsertStmt: WRITE,
  UpdateStmt: WRITE,
  DeleteStmt: WRITE,
  MergeStmt: WRITE,
  TruncateStmt: TRUNCATE,
  CopyStmt: classifyCopy,
  CallStmt: MAYBE,
  DoStmt: MAYBE,
  ExecuteStmt: MAYBE,
  ExplainStmt: classifyExplain,
  TransactionStmt: classifyTransaction,
  VariableSetStmt: classifySet,
  VariableShowStmt: classifyShow,
  NotifyStmt: NOTIFY,

  PrepareStmt: LOCAL,
  DeallocateStmt: (node) => ({
    type: 'local',
    forgets: flag(node, 'isall') ? { what: 'statements' } : { what: 'statement', name: text(node, 'name') },
  }),
  DiscardStmt: (node) =>
    text(node, 'target') === 'DISCARD_ALL' ? { type: 'local', forgets: { what: 'everything' } } : LOCAL,
  DeclareCursorStmt: LOCAL,
  FetchStmt: LOCAL,
  ClosePortalStmt: LOCAL,
  LockStmt: LOCAL,
  ConstraintsSetStmt: LOCAL,
  ListenStmt: LOCAL,
  UnlistenStmt: LOCAL,
  LoadStmt: LOCAL,
  CheckPointStmt: LOCAL,
  VacuumStmt: LOCAL,
  ClusterStmt: LOCAL,
  ReindexStmt: LOCAL,
};

/**
 * The statements of a query string; undefined when PostgreSQL's grammar refuses it. `hidden` tells where advisory locks are taken that the
 * text does not show; undefined where such locks are each node's own.
 */
export function classify(sql: string, hidden?: HiddenLocks): Statement[] | undefined {
  return parse(sql)?.map((statement) => ({
    kind: classifyStatement(statement, sql, hidden),
    locks: takesLocks(statement),
    query: QUERIES.has(statement.name),
    ...(statement.name === 'ExecuteStmt' && { executes: text(statement.node, 'name') }),
    start: statement.start,
    end: statement.end,
  }));
}

function classifyStatement(statement: RawStatement, sql: string, hidden: HiddenLocks | undefined): StatementKind {
  const { name, node } = statement;
  const kind = byRule(name, node);
  if (kind.type !== 'write' && kind.type !== 'read' && kind !== LOCAL) return kind;
  return refusedCall(node) ?? (hidden === undefined ? undefined : classifyLocks(statement, sql, hidden)) ?? kind;
}

function byRule(name: string, node: Node): StatementKind {
  const rule = RULES[name] ?? DDL_RULES[name];
  if (rule === undefined)
    return unsupported(`${name} is not supported in a coordinated database`, 'Ask for it to be added.');
  return typeof rule === 'function' ? rule(node) : rule;
}

/** The text of a DO block that may lock something; of a dynamic statement in it one sees at least the words. */
const LOCKING_BODY = /\bfor\s+(?:update|share|no\s+key|key\s+share)\b|\block\b|\bexecute\b/i;

function takesLocks({ name, node }: RawStatement): boolean {
  switch (name) {
    case 'LockStmt':
    // What was prepared is not known here.
    case 'ExecuteStmt':
      return true;
    case 'DoStmt':
      return [...descendants(node, 'String')].some((part) => LOCKING_BODY.test(text(part, 'sval')));
    default:
      return namesLocks(node);
  }
}

/** FOR UPDATE and the like. */
const namesLocks = (node: Node): boolean => descendants(node, 'LockingClause').next().done !== true;

/** Names are compared without the schema: a function of the user's with such a name can be renamed. */
function refusedCall(node: Node): StatementKind | undefined {
  for (const call of descendants(node, 'FuncCall')) {
    const name = text(child(list(call, 'funcname').at(-1) ?? {}, 'String'), 'sval');
    const hint = UNSUPPORTED_FUNCTIONS.get(name);
    if (hint !== undefined) return unsupported(`${name}() is not supported in a coordinated database`, hint);
  }
  return undefined;
}

function classifyCopy(node: Node): StatementKind {
  if (flag(node, 'is_from')) return text(node, 'filename') === '' && !flag(node, 'is_program') ? COPY_IN : WRITE;
  const query = child(node, 'query');
  const [name, body] = firstEntry(query);
  if (name === '') return READ;
  return name === 'SelectStmt' && !('withClause' in body) && !namesLocks(body) ? READ : MAYBE;
}

/** Without ANALYZE nothing is run. With it even CREATE TABLE AS is, although read-only mode does not stop that. */
function classifyExplain(node: Node): StatementKind {
  const analyzes = list(node, 'options').some((option) => text(child(option, 'DefElem'), 'defname') === 'analyze');
  if (!analyzes) return READ;
  const [name, body] = firstEntry(child(node, 'query'));
  const kind = byRule(name, body);
  return kind.type === 'ddl' ? SELECT_INTO : kind;
}

function classifyShow(node: Node): StatementKind {
  const name = text(node, 'name').toLowerCase();
  return name === 'default_transaction_read_only' || name === 'transaction_read_only'
    ? { type: 'show-read-only', name }
    : READ;
}
