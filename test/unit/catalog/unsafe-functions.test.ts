import { expect, it } from 'vitest';
import { isUnsafeBuiltin } from '../../../src/catalog/unsafe-functions.ts';

it.each([
  'nextval',
  'lo_creat',
  'pg_advisory_lock',
  'pg_try_advisory_xact_lock',
  'set_config',
  'pg_stat_reset_slru',
  'dblink_exec',
])('%s is more than a read', (name) => expect(isUnsafeBuiltin(name)).toBe(true));

it.each(['currval', 'lo_get', 'random', 'now', 'count', 'pg_sleep', 'pg_replication_origin_progress'])(
  '%s only reads',
  (name) => expect(isUnsafeBuiltin(name)).toBe(false),
);
