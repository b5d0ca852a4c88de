/** The event triggers, in the order of their names, which is the order in which they fire. */
export interface EventTrigger {
  readonly name: string;
  readonly event: 'ddl_command_start' | 'ddl_command_end' | 'sql_drop' | 'table_rewrite';
  /** The function in schema multimaster. */
  readonly calls: string;
  /** Fires during replay too; the others fire only where the client's own statement runs. */
  readonly always: boolean;
}

export const EVENT_TRIGGERS: readonly EventTrigger[] = [
  { name: 'multimaster_10_start', event: 'ddl_command_start', calls: 'on_ddl_start', always: false },
  { name: 'multimaster_20_rewrite', event: 'table_rewrite', calls: 'on_table_rewrite', always: false },
  { name: 'multimaster_30_drop_check', event: 'sql_drop', calls: 'on_drop_check', always: false },
  { name: 'multimaster_40_drop', event: 'sql_drop', calls: 'on_drop', always: true },
  { name: 'multimaster_50_check', event: 'ddl_command_end', calls: 'on_ddl_check', always: false },
  { name: 'multimaster_60_end', event: 'ddl_command_end', calls: 'on_ddl_end', always: true },
];
