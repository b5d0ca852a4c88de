import pg from 'pg';
import { clientConfig } from '../../config/client-config.ts';
import { findFiringOnReplay } from '../../catalog/firing.ts';
import type { Config } from '../../config/schema.ts';
import { connectionCure, hbaLine, quoteIdentifier } from './connection.ts';
import { failed, ok, warning } from './result.ts';
import type { CheckResult } from './result.ts';

/** One coordinated database: that it is there, can be connected to, and can be decoded from. */
export async function checkDatabase(client: pg.Client, config: Config, name: string): Promise<CheckResult[]> {
  const title = `database ${name}`;
  const { rows } = await client.query<{ encoding: string; allowed: boolean; template: boolean }>(
    `SELECT pg_catalog.pg_encoding_to_char(encoding) AS encoding, datallowconn AS allowed, datistemplate AS template
     FROM pg_catalog.pg_database WHERE datname = $1`,
    [name],
  );
  if (rows.length === 0) return [failed(title, 'does not exist', `CREATE DATABASE ${quoteIdentifier(name)};`)];
  const [{ encoding, allowed }] = rows;
  if (!allowed) {
    return [failed(title, 'accepts no connections', `ALTER DATABASE ${quoteIdentifier(name)} ALLOW_CONNECTIONS true;`)];
  }
  const results: CheckResult[] = [];
  if (encoding === 'UTF8') results.push(ok(title, 'UTF8'));
  else {
    const cure =
      'Make sure that it has the same encoding on every node; better, dump it and restore it into a UTF8 database.';
    results.push(warning(title, `is encoded in ${encoding}`, cure));
  }
  results.push(await checkReplication(config, name), ...(await checkTriggers(config, name)));
  return results;
}

/** Nothing where the database can't be connected to, as is said elsewhere. */
async function checkTriggers(config: Config, name: string): Promise<CheckResult[]> {
  const title = `triggers of ${name}`;
  const client = new pg.Client(clientConfig(config.postgres, name));
  client.on('error', () => undefined);
  try {
    await client.connect();
  } catch {
    return [];
  }
  try {
    const firing = await findFiringOnReplay(client);
    if (firing.length === 0) return [ok(title, 'none fires on replay')];
    const found = `${firing.map(({ what }) => what).join(', ')}: on replay, too, so what they do would be done again on every node`;
    return [failed(title, found, `In ${name}, on every node:\n${firing.map(({ cure }) => cure).join('\n')}`)];
  } finally {
    await client.end();
  }
}

/** pg_hba.conf treats a logical replication connection as one to its database. */
async function checkReplication(config: Config, name: string): Promise<CheckResult> {
  const title = `replication from ${name}`;
  // The driver knows the setting, its types don't.
  const options: pg.ClientConfig & { replication: string } = {
    ...clientConfig(config.postgres, name),
    replication: 'database',
  };
  const client = new pg.Client(options);
  client.on('error', () => undefined);
  try {
    await client.connect();
    await client.query('IDENTIFY_SYSTEM');
    return ok(title, 'possible');
  } catch (error) {
    const { code, message } = error as { code?: string; message: string };
    const { user } = config.postgres;
    // Both "no entry in pg_hba.conf" and "the role may not" come as 28000 or 42501.
    const cure =
      code === '42501' || /must be superuser or replication role|permission denied to start WAL sender/.test(message)
        ? `ALTER ROLE ${quoteIdentifier(user)} REPLICATION;`
        : code === '28000'
          ? `Add to pg_hba.conf, then SELECT pg_reload_conf();\n  ${hbaLine(config.postgres, name)}`
          : /max_wal_senders/.test(message)
            ? 'ALTER SYSTEM SET max_wal_senders = 20;  then restart PostgreSQL.'
            : connectionCure(error, config.postgres, name);
    return failed(title, message, cure);
  } finally {
    await client.end().catch(() => undefined);
  }
}
