/**
 * What makes values as text mean the same on every node, whatever its databases and roles have set: for the walsender that
 * writes them as for the session that reads them. PostgreSQL's own subscriptions do the same (libpqwalreceiver.c,
 * libpqrcv_connect), all but the last three.
 */
export const TEXT_SETTINGS = {
  DateStyle: 'ISO',
  IntervalStyle: 'postgres',
  extra_float_digits: '3',
  bytea_output: 'hex',
  /** Names of tables, functions and types as values are then qualified. */
  search_path: '',
  lc_monetary: 'C',
  TimeZone: 'UTC',
} as const;
