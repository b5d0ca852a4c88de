import type pg from 'pg';
import { parseGid } from '../../commit/gid.ts';
import type { Config } from '../../config/schema.ts';
import { quoteIdentifier } from './connection.ts';
import { checkDumpTools } from './dump-tools.ts';
import { needs } from './needs.ts';
import { failed, ok, warning } from './result.ts';
import type { CheckResult } from './result.ts';

const OLDEST = 150_000;
const RESTART = 'then restart PostgreSQL.';
const RELOAD = 'SELECT pg_reload_conf();';
/** Clocks decide priority only, so a difference costs fairness, not correctness. */
const CLOCK_TOLERANCE_MS = 1000;

type Settings = ReadonlyMap<string, string>;

/** What holds for the server as a whole. */
export async function checkServer(client: pg.Client, config: Config): Promise<CheckResult[]> {
  const settings = await readSettings(client);
  const version = Number(settings.get('server_version_num'));
  const results = [
    version >= OLDEST
      ? ok('version', settings.get('server_version') ?? '')
      : failed('version', settings.get('server_version') ?? '', 'PostgreSQL 15 or newer is needed: use pg_upgrade.'),
    ...checkLimits(settings, config, version),
    ...checkModes(settings),
  ];
  results.push(await checkRole(client, config), await checkRecovery(client), await checkClock(client));
  results.push(...(await checkPrepared(client, config)), ...(await checkDumpTools(client, config)));
  return results;
}

async function readSettings(client: pg.Client): Promise<Settings> {
  const { rows } = await client.query<{ name: string; setting: string }>(
    'SELECT name, setting FROM pg_catalog.pg_settings',
  );
  return new Map(rows.map(({ name, setting }) => [name, setting]));
}

function checkLimits(settings: Settings, config: Config, version: number): CheckResult[] {
  const need = needs(config);
  const atLeast = (name: string, wanted: number): CheckResult => {
    const found = Number(settings.get(name));
    if (found >= wanted) return ok(name, `${found} (needs ${wanted})`);
    return failed(name, `${found}, at least ${wanted} needed`, `ALTER SYSTEM SET ${name} = ${wanted};  ${RESTART}`);
  };
  const origins = version >= 180_000 ? 'max_active_replication_origins' : 'max_replication_slots';
  const reserved =
    Number(settings.get('superuser_reserved_connections')) + Number(settings.get('reserved_connections') ?? 0);
  return [
    checkMaxPrepared(settings, config),
    atLeast('max_wal_senders', need.walSenders),
    atLeast('max_replication_slots', Math.max(need.replicationSlots, version >= 180_000 ? 0 : need.replicationOrigins)),
    ...(version >= 180_000 ? [atLeast(origins, need.replicationOrigins)] : []),
    atLeast('max_connections', need.connections + reserved),
  ];
}

function checkMaxPrepared(settings: Settings, config: Config): CheckResult {
  const name = 'max_prepared_transactions';
  const { preparedTransactions: least, preparedTransactionsAtMost: most } = needs(config);
  const found = Number(settings.get(name));
  const cure = `ALTER SYSTEM SET ${name} = ${Math.max(least, most)};  ${RESTART}`;
  if (found === 0) return failed(name, '0: PREPARE TRANSACTION is switched off, and every write needs it', cure);
  if (found < least) return failed(name, `${found}, at least ${least} needed`, cure);
  if (found < most) {
    return warning(name, `${found}, too few if all ${most} clients of all nodes commit at once`, cure);
  }
  return ok(name, `${found} (needs ${most})`);
}

function checkModes(settings: Settings): CheckResult[] {
  const results: CheckResult[] = [];
  const setting = (name: string): string => settings.get(name) ?? '';
  results.push(
    setting('wal_level') === 'logical'
      ? ok('wal_level', 'logical')
      : failed('wal_level', setting('wal_level'), `ALTER SYSTEM SET wal_level = logical;  ${RESTART}`),
  );
  if (setting('event_triggers') === 'off') {
    const cure = `ALTER SYSTEM RESET event_triggers;  ${RELOAD}`;
    results.push(failed('event_triggers', 'off: schema changes inside functions would go unnoticed', cure));
  }
  if (setting('default_transaction_read_only') === 'on') {
    const cure = `ALTER SYSTEM RESET default_transaction_read_only;  ${RELOAD}`;
    results.push(failed('default_transaction_read_only', 'on: nothing could be applied', cure));
  }
  for (const name of ['fsync', 'full_page_writes']) {
    if (setting(name) === 'on') continue;
    const cure = `ALTER SYSTEM SET ${name} = on;  ${RELOAD}`;
    results.push(warning(name, 'off: acknowledged commits can be lost in a power failure', cure));
  }
  // From 18 on. Nobody reads the history slot as long as no node is away.
  if (!['', '0'].includes(setting('idle_replication_slot_timeout'))) {
    const cure = `ALTER SYSTEM RESET idle_replication_slot_timeout;  ${RELOAD}`;
    const found =
      'set: what is kept for nodes that are away is thrown away, and what this node needs itself while its proxy is down';
    results.push(warning('idle_replication_slot_timeout', found, cure));
  }
  if (setting('synchronous_standby_names') !== '') {
    const cure = `ALTER SYSTEM RESET synchronous_standby_names;  ${RELOAD}`;
    const found = `'${setting('synchronous_standby_names')}': every prepare and commit also waits for that standby`;
    results.push(warning('synchronous_standby_names', found, cure));
  }
  return results;
}

async function checkRole(client: pg.Client, { postgres }: Config): Promise<CheckResult> {
  const { rows } = await client.query<{ superuser: boolean }>(
    'SELECT rolsuper AS superuser FROM pg_catalog.pg_roles WHERE rolname = current_user',
  );
  if (rows[0].superuser) return ok('role', `${postgres.user} is a superuser`);
  const found = `${postgres.user} is no superuser; replay needs session_replication_role, origins, and others' objects`;
  return failed('role', found, `ALTER ROLE ${quoteIdentifier(postgres.user)} SUPERUSER;`);
}

async function checkRecovery(client: pg.Client): Promise<CheckResult> {
  const { rows } = await client.query<{ standby: boolean }>('SELECT pg_catalog.pg_is_in_recovery() AS standby');
  if (!rows[0].standby) return ok('recovery', 'a primary');
  return failed(
    'recovery',
    "a standby can't be written",
    'SELECT pg_promote();  or name the primary under postgres.host.',
  );
}

async function checkClock(client: pg.Client): Promise<CheckResult> {
  const before = Date.now();
  const { rows } = await client.query<{ ms: number }>(
    'SELECT extract(epoch FROM pg_catalog.clock_timestamp())::float8 * 1000 AS ms',
  );
  const difference = Math.round(rows[0].ms - (before + Date.now()) / 2);
  const found = `PostgreSQL's differs by ${Math.abs(difference)} ms`;
  if (Math.abs(difference) <= CLOCK_TOLERANCE_MS) return ok('clock', found);
  return warning('clock', found, 'Synchronize the clocks of all nodes (chrony, ntpd).');
}

/** What others left prepared holds locks and keeps slots from being created; what we left is resolved at the start. */
async function checkPrepared(client: pg.Client, { cluster }: Config): Promise<CheckResult[]> {
  const { rows } = await client.query<{ gid: string; database: string; owner: string }>(
    'SELECT gid, database, owner FROM pg_catalog.pg_prepared_xacts ORDER BY prepared',
  );
  const foreign = rows.filter(({ gid }) => parseGid(gid)?.cluster !== cluster.name);
  if (foreign.length === 0) return [ok('prepared transactions', `none of others, ${rows.length} of this cluster`)];
  const shown = foreign.slice(0, 5);
  const found = `${foreign.length} of others: they hold locks, and replication slots can't be created until they end`;
  const cure = shown.map(
    ({ gid, database }) => `In ${database}: COMMIT PREPARED or ROLLBACK PREPARED '${gid.replaceAll("'", "''")}';`,
  );
  return [warning('prepared transactions', found, cure.join('\n'))];
}
