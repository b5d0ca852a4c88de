/**
 * Built-in functions that write, that reach beyond their own transaction, or that run a query they are given: a
 * statement that calls one is never treated as a plain read. Volatile built-ins that are missing here (random(),
 * clock_timestamp(), pg_sleep(), reading functions of all kinds) change nothing.
 */
const NAMES = [
  // Sequences.
  ...['nextval', 'setval'],
  // Transaction ids: they assign one.
  ...['txid_current', 'pg_current_xact_id', 'pg_export_snapshot'],
  // Settings of the session, such as the proxy's own.
  ...['set_config'],
  // Notifications, messages, large objects by the fastpath's names.
  ...['pg_notify', 'pg_logical_emit_message', 'loread', 'lowrite'],
  // They run a query that is in a string, or behind a cursor, or one over a whole table, schema or database.
  ...['query_to_xml', 'query_to_xmlschema', 'query_to_xml_and_xmlschema', 'cursor_to_xml', 'cursor_to_xmlschema'],
  ...['ts_rewrite', 'ts_stat'],
  // Indexes and statistics.
  ...['brin_summarize_new_values', 'brin_summarize_range', 'brin_desummarize_range', 'gin_clean_pending_list'],
  ...['pg_clear_attribute_stats', 'pg_clear_relation_stats', 'pg_restore_attribute_stats', 'pg_restore_relation_stats'],
  // Replication slots and origins.
  ...['pg_create_logical_replication_slot', 'pg_create_physical_replication_slot', 'pg_drop_replication_slot'],
  ...['pg_copy_logical_replication_slot', 'pg_copy_physical_replication_slot', 'pg_replication_slot_advance'],
  ...['pg_logical_slot_get_changes', 'pg_logical_slot_get_binary_changes', 'pg_sync_replication_slots'],
  // The server as a whole, and other sessions.
  ...[
    'pg_backup_start',
    'pg_backup_stop',
    'pg_create_restore_point',
    'pg_switch_wal',
    'pg_log_standby_snapshot',
    'pg_promote',
  ],
  ...['pg_wal_replay_pause', 'pg_wal_replay_resume', 'pg_reload_conf', 'pg_rotate_logfile', 'pg_rotate_logfile_old'],
  ...['pg_cancel_backend', 'pg_terminate_backend', 'pg_nextoid', 'pg_stop_making_pinned_objects'],
  ...['pg_import_system_collations', 'pg_extension_config_dump', 'pg_stat_force_next_flush', 'system'],
];

/** Whole families, by how their names begin. */
const PREFIXES = [
  'lo_',
  'pg_advisory_',
  'pg_try_advisory_',
  'pg_replication_origin_',
  'pg_stat_reset',
  'binary_upgrade_',
  'dblink',
];
/** Members of those families that only read. */
const EXCEPTIONS = new Set([
  ...['lo_get', 'pg_replication_origin_oid', 'pg_replication_origin_progress'],
  ...['pg_replication_origin_session_is_setup', 'pg_replication_origin_session_progress'],
]);

const names: ReadonlySet<string> = new Set(NAMES);

/** Whether a built-in function (by its bare, folded name) must not run in a statement that is treated as a read. */
export function isUnsafeBuiltin(name: string): boolean {
  if (names.has(name)) return true;
  return !EXCEPTIONS.has(name) && PREFIXES.some((prefix) => name.startsWith(prefix));
}
