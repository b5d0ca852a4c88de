import type { Lsn } from '../runtime/ids.ts';
import type { HiddenLocks } from './advisory.ts';
import { LOCK_FUNCTIONS } from './advisory.ts';

/** What the catalog knows of this database that a statement's text does not show. Names as the catalog stores them. */
export interface SafetyNames {
  /** Functions that may change something, or whose effects are not known. */
  readonly volatileNames: ReadonlySet<string>;
  /** Relations whose mere reading runs such a function (views, tables with policies). */
  readonly taintedRelations: ReadonlySet<string>;
  /** Functions, and views, that take advisory locks. */
  readonly hiddenAdvisory?: HiddenLocks;
  /** Some function, rule or view locks rows or tables. */
  readonly hidesLocks: boolean;
  /** A schema change is being committed, or has been and was not looked at yet: since this position in the WAL there may be more than is said here. */
  readonly changingSince?: Lsn;
}

/**
 * Built-in functions that a read must not be passed on with: they change something that read-only mode does not stop, or
 * tell that the session runs read-only.
 */
const EFFECTFUL_FUNCTIONS: readonly string[] = [
  ...['nextval', 'set_config', 'current_setting'],
  ...['txid_current', 'pg_current_xact_id', 'pg_export_snapshot', 'pg_logical_emit_message'],
  ...['dblink', 'dblink_exec', 'dblink_open', 'dblink_fetch', 'dblink_send_query', 'dblink_get_result'],
  ...['query_to_xml', 'query_to_xmlschema', 'query_to_xml_and_xmlschema', 'cursor_to_xml', 'ts_stat', 'ts_rewrite'],
  ...['pg_import_system_collations', 'pg_extension_config_dump', 'brin_summarize_new_values', 'gin_clean_pending_list'],
  ...['brin_summarize_range', 'brin_desummarize_range', 'pg_replication_origin_create', 'pg_replication_origin_drop'],
];

/** Their effect would stay on this node only: refused wherever a statement calls them by name. */
export const UNSUPPORTED_FUNCTIONS: ReadonlyMap<string, string> = new Map([
  [
    'setval',
    'Every node hands out its own part of a sequence. Use ALTER SEQUENCE through the operator, or insert with explicit values.',
  ],
  ['pg_notify', 'Notifications are not delivered to the other nodes yet.'],
  ...[
    'lo_create',
    'lo_creat',
    'lo_unlink',
    'lo_put',
    'lo_from_bytea',
    'lo_import',
    'lowrite',
    'lo_truncate',
    'lo_truncate64',
  ].map((name) => [name, 'Large objects are not replicated. Store the value in a bytea column.'] as const),
]);

/**
 * The same functions by oid for the FunctionCall message (pg_proc.dat; built-in oids never change):
 * lo_create, lo_creat, lo_unlink, lo_put, lo_from_bytea, lo_import, lowrite, lo_truncate, lo_truncate64, setval, pg_notify.
 */
export const UNSUPPORTED_OIDS: ReadonlyMap<number, string> = new Map([
  ...[715, 957, 964, 3460, 3457, 764, 767, 955, 1004, 3172].map((oid) => [oid, 'lo_create'] as const),
  ...[1576, 1765].map((oid) => [oid, 'setval'] as const),
  [3036, 'pg_notify'] as const,
]);

/** FNV-1a over bytes; a collision only makes a statement look less harmless than it is. */
export function hashName(name: string): number {
  const bytes = Buffer.from(name, 'utf8');
  let hash = 0x811c9dc5 | 0;
  for (const byte of bytes) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash | 0;
}

/** Names as hashes, the form in which the lexer meets them. */
export interface NameHashes {
  readonly volatile: ReadonlySet<number>;
  readonly tainted: ReadonlySet<number>;
  /** Functions that need the parser's look. */
  readonly unsupported: ReadonlySet<number>;
  /** Relations, all of them tainted, that do. */
  readonly locking: ReadonlySet<number>;
}

const UNSUPPORTED_HASHES: ReadonlySet<number> = new Set([...UNSUPPORTED_FUNCTIONS.keys()].map(hashName));
const NONE: ReadonlySet<number> = new Set();

/** `followLocks`: advisory locks are the cluster's. */
export function hashNames(names: SafetyNames, followLocks = false): NameHashes {
  const hidden = names.hiddenAdvisory;
  return {
    volatile: new Set([...names.volatileNames, ...EFFECTFUL_FUNCTIONS].map(hashName)),
    tainted: new Set([...names.taintedRelations].map(hashName)),
    unsupported: followLocks
      ? new Set([...UNSUPPORTED_HASHES, ...[...LOCK_FUNCTIONS, ...(hidden?.functions ?? [])].map(hashName)])
      : UNSUPPORTED_HASHES,
    locking: followLocks && hidden !== undefined ? new Set([...hidden.relations].map(hashName)) : NONE,
  };
}
