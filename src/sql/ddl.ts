import type { StatementKind } from './kinds.ts';
import { DDL, unsupported } from './kinds.ts';
import { child, descendants, firstEntry, flag, list, text } from './parser.ts';
import type { Node } from './parser.ts';

const TEMPORARY = unsupported(
  'temporary objects are not supported in a coordinated database',
  'A transaction that touches a temporary object cannot be prepared. Use a permanent table, or a WITH query.',
);
const UNLOGGED = unsupported('unlogged tables are not replicated', 'Create the table without UNLOGGED.');
const CONCURRENTLY = unsupported(
  'CONCURRENTLY is not supported in a coordinated database yet',
  'Run the statement without CONCURRENTLY: it takes a lock for its duration on every node.',
);
const TABLESPACE = unsupported(
  'tablespaces belong to one server',
  'Leave the TABLESPACE clause out; every node uses its own default.',
);
const TABLESPACE_ITSELF = unsupported(
  'tablespaces belong to one server',
  'Connect to the PostgreSQL of each node itself for this, as a superuser: its directory may be another one on each node.',
);
const QUERY_ROWS = unsupported(
  'a table cannot be created from a query yet',
  'Create the table with its columns first, then use INSERT … SELECT.',
);
const SEQUENCE = unsupported(
  'sequences cannot be created or changed on their own yet',
  'Use a serial or identity column in CREATE TABLE.',
);
const REWRITE = unsupported(
  'this form of ALTER TABLE computes values for existing rows, which could differ between nodes',
  'Add the column without a default, UPDATE the rows, then set the default with ALTER COLUMN … SET DEFAULT.',
);
const ALWAYS_TRIGGER = unsupported(
  'triggers and rules that fire on replay are not supported',
  'Replay on the other nodes relies on triggers not firing a second time. Use ENABLE TRIGGER.',
);
const onlyHere = (what: string): StatementKind =>
  unsupported(
    `${what} cannot be changed through the cluster`,
    'Connect to the servers themselves and make the change on every node.',
  );
const FOREIGN = unsupported(
  'foreign data objects are not supported yet',
  'Create them on every server itself, outside the coordinated database.',
);
const REFRESH = unsupported(
  'materialized views cannot be filled in a coordinated database yet',
  'Use a view, or a table that is filled by INSERT … SELECT.',
);

/** Types of objects that DROP, COMMENT, RENAME and the like may name but that are not replayed. */
const OBJECTS: Readonly<Partial<Record<string, StatementKind>>> = {
  OBJECT_SEQUENCE: SEQUENCE,
  OBJECT_DATABASE: onlyHere('databases'),
  OBJECT_TABLESPACE: TABLESPACE_ITSELF,
  OBJECT_EVENT_TRIGGER: onlyHere('event triggers'),
  OBJECT_PUBLICATION: onlyHere('publications'),
  OBJECT_SUBSCRIPTION: onlyHere('subscriptions'),
  OBJECT_FOREIGN_SERVER: FOREIGN,
  OBJECT_FOREIGN_TABLE: FOREIGN,
  OBJECT_FDW: FOREIGN,
  OBJECT_USER_MAPPING: FOREIGN,
  OBJECT_LARGEOBJECT: unsupported('large objects are not replicated', 'Store the value in a bytea column.'),
};

const byObject =
  (key: string) =>
  (node: Node): StatementKind =>
    OBJECTS[text(node, key)] ?? DDL;

type Rule = StatementKind | ((node: Node) => StatementKind);

/**
 * What becomes of a schema statement, by the name of its node in PostgreSQL's grammar. One that is not here and nowhere else
 * in this folder either is refused: a new kind of statement must be thought about first.
 */
export const DDL_RULES: Readonly<Partial<Record<string, Rule>>> = {
  CreateStmt: createTable,
  AlterTableStmt: alterTable,
  DropStmt: (node) => (flag(node, 'concurrent') ? CONCURRENTLY : byObject('removeType')(node)),
  RenameStmt: byObject('renameType'),
  AlterObjectSchemaStmt: byObject('objectType'),
  AlterOwnerStmt: byObject('objectType'),
  AlterObjectDependsStmt: byObject('objectType'),
  CommentStmt: byObject('objtype'),
  SecLabelStmt: byObject('objtype'),
  GrantStmt: (node) => (text(node, 'objtype') === 'OBJECT_DATABASE' ? DDL : grant(node)),
  IndexStmt: (node) => (flag(node, 'concurrent') ? CONCURRENTLY : text(node, 'tableSpace') === '' ? DDL : TABLESPACE),
  ViewStmt: (node) => persistence(child(node, 'view')) ?? DDL,
  CreateTableAsStmt: createFromQuery,
  CreateSchemaStmt: createSchema,
  RefreshMatViewStmt: REFRESH,

  CreateFunctionStmt: DDL,
  AlterFunctionStmt: DDL,
  CreateTrigStmt: DDL,
  CreatePolicyStmt: DDL,
  AlterPolicyStmt: DDL,
  RuleStmt: DDL,
  CreateEnumStmt: DDL,
  AlterEnumStmt: DDL,
  CompositeTypeStmt: DDL,
  CreateRangeStmt: DDL,
  AlterTypeStmt: DDL,
  CreateDomainStmt: DDL,
  AlterDomainStmt: DDL,
  /** CREATE AGGREGATE, OPERATOR, TYPE, COLLATION, TEXT SEARCH. */
  DefineStmt: DDL,
  AlterOperatorStmt: DDL,
  CreateOpClassStmt: DDL,
  CreateOpFamilyStmt: DDL,
  AlterOpFamilyStmt: DDL,
  CreateCastStmt: DDL,
  CreateConversionStmt: DDL,
  CreateTransformStmt: DDL,
  AlterCollationStmt: DDL,
  CreateStatsStmt: DDL,
  AlterStatsStmt: DDL,
  AlterTSDictionaryStmt: DDL,
  AlterTSConfigurationStmt: DDL,
  CreateExtensionStmt: DDL,
  AlterExtensionStmt: DDL,
  AlterExtensionContentsStmt: DDL,
  CreatePLangStmt: DDL,
  AlterDefaultPrivilegesStmt: DDL,
  CreateRoleStmt: DDL,
  AlterRoleStmt: DDL,
  AlterRoleSetStmt: DDL,
  DropRoleStmt: DDL,
  GrantRoleStmt: DDL,
  ReassignOwnedStmt: DDL,
  DropOwnedStmt: DDL,

  CreateSeqStmt: SEQUENCE,
  AlterSeqStmt: SEQUENCE,
  CreateTableSpaceStmt: TABLESPACE_ITSELF,
  DropTableSpaceStmt: TABLESPACE_ITSELF,
  AlterTableSpaceOptionsStmt: TABLESPACE_ITSELF,
  AlterTableMoveAllStmt: TABLESPACE_ITSELF,
  CreatedbStmt: onlyHere('databases'),
  DropdbStmt: onlyHere('databases'),
  AlterDatabaseStmt: onlyHere('databases'),
  AlterDatabaseSetStmt: DDL,
  AlterDatabaseRefreshCollStmt: onlyHere('databases'),
  AlterSystemStmt: onlyHere('server settings'),
  CreateEventTrigStmt: onlyHere('event triggers'),
  AlterEventTrigStmt: onlyHere('event triggers'),
  CreatePublicationStmt: onlyHere('publications'),
  AlterPublicationStmt: onlyHere('publications'),
  CreateSubscriptionStmt: onlyHere('subscriptions'),
  AlterSubscriptionStmt: onlyHere('subscriptions'),
  DropSubscriptionStmt: onlyHere('subscriptions'),
  CreateAmStmt: onlyHere('access methods'),
  CreateForeignTableStmt: FOREIGN,
  CreateForeignServerStmt: FOREIGN,
  AlterForeignServerStmt: FOREIGN,
  CreateFdwStmt: FOREIGN,
  AlterFdwStmt: FOREIGN,
  CreateUserMappingStmt: FOREIGN,
  AlterUserMappingStmt: FOREIGN,
  DropUserMappingStmt: FOREIGN,
  ImportForeignSchemaStmt: FOREIGN,
};

function persistence(relation: Node): StatementKind | undefined {
  if (text(relation, 'relpersistence') === 't' || text(relation, 'schemaname') === 'pg_temp') return TEMPORARY;
  return text(relation, 'relpersistence') === 'u' ? UNLOGGED : undefined;
}

function createTable(node: Node): StatementKind {
  return persistence(child(node, 'relation')) ?? (text(node, 'tablespacename') === '' ? DDL : TABLESPACE);
}

function createSchema(node: Node): StatementKind {
  for (const element of list(node, 'schemaElts')) {
    const [name, body] = firstEntry(element);
    const rule = DDL_RULES[name] ?? DDL;
    const kind = typeof rule === 'function' ? rule(body) : rule;
    if (kind.type !== 'ddl') return kind;
  }
  return DDL;
}

/** WITH NO DATA creates the same empty relation everywhere; anything else would run the query on each node. */
function createFromQuery(node: Node): StatementKind {
  const into = child(node, 'into');
  const refused = persistence(child(into, 'rel'));
  if (refused !== undefined) return refused;
  if (text(into, 'tableSpaceName') !== '') return TABLESPACE;
  return flag(into, 'skipData') && 'SelectStmt' in child(node, 'query') ? DDL : QUERY_ROWS;
}

function grant(node: Node): StatementKind {
  return OBJECTS[text(node, 'objtype')] === SEQUENCE ? DDL : byObject('objtype')(node);
}

function alterTable(node: Node): StatementKind {
  const object = OBJECTS[text(node, 'objtype')];
  if (object !== undefined) return object;
  for (const wrapped of list(node, 'cmds')) {
    const kind = alterCommand(child(wrapped, 'AlterTableCmd'));
    if (kind !== undefined) return kind;
  }
  return DDL;
}

function alterCommand(command: Node): StatementKind | undefined {
  const column = child(child(command, 'def'), 'ColumnDef');
  switch (text(command, 'subtype')) {
    case 'AT_AddColumn':
      return addsSameValues(column) ? undefined : REWRITE;
    case 'AT_AlterColumnType':
      return variesBetweenNodes(column['raw_default']) ? REWRITE : undefined;
    case 'AT_AddIdentity':
      return undefined;
    case 'AT_SetUnLogged':
      return UNLOGGED;
    case 'AT_SetTableSpace':
      return TABLESPACE_ITSELF;
    case 'AT_EnableAlwaysTrig':
    case 'AT_EnableReplicaTrig':
    case 'AT_EnableAlwaysRule':
    case 'AT_EnableReplicaRule':
      return ALWAYS_TRIGGER;
    case 'AT_DetachPartition':
      return flag(child(child(command, 'def'), 'PartitionCmd'), 'concurrent') ? CONCURRENTLY : undefined;
    case 'AT_DetachPartitionFinalize':
      return CONCURRENTLY;
    default:
      return undefined;
  }
}

const SERIAL = new Set(['serial', 'serial2', 'serial4', 'serial8', 'smallserial', 'bigserial']);

/** A new column gets the same values in existing rows on every node: no default, a constant, or a generation expression (immutable). */
function addsSameValues(column: Node): boolean {
  const type = list(child(column, 'typeName'), 'names').map((part) => text(child(part, 'String'), 'sval'));
  if (SERIAL.has(type.at(-1) ?? '')) return false;
  for (const wrapped of list(column, 'constraints')) {
    const constraint = child(wrapped, 'Constraint');
    const kind = text(constraint, 'contype');
    if (kind === 'CONSTR_IDENTITY') return false;
    if (kind === 'CONSTR_DEFAULT' && !isConstant(child(constraint, 'raw_expr'))) return false;
  }
  return true;
}

function isConstant(expression: Node): boolean {
  const [name, node] = firstEntry(expression);
  const body = node;
  switch (name) {
    case 'A_Const':
      return true;
    case 'TypeCast':
      return isConstant(child(body, 'arg'));
    case 'A_Expr':
      return [child(body, 'lexpr'), child(body, 'rexpr')].every(
        (side) => Object.keys(side).length === 0 || isConstant(side),
      );
    case 'A_ArrayExpr':
      return list(body, 'elements').every(isConstant);
    default:
      return false;
  }
}

/** Functions of the moment or of chance that are likely in USING. */
const VARYING = new Set([
  ...['now', 'clock_timestamp', 'statement_timestamp', 'transaction_timestamp', 'timeofday', 'random', 'nextval'],
  ...['gen_random_uuid', 'uuid_generate_v1', 'uuid_generate_v1mc', 'uuid_generate_v4', 'uuidv4', 'uuidv7'],
]);

function variesBetweenNodes(expression: unknown): boolean {
  for (const _ of descendants(expression, 'SQLValueFunction')) return true;
  for (const call of descendants(expression, 'FuncCall')) {
    if (VARYING.has(text(child(list(call, 'funcname').at(-1) ?? {}, 'String'), 'sval'))) return true;
  }
  return false;
}
