import type { PostgresConfig } from '../../config/schema.ts';

/** The line that pg_hba.conf needs for a connection of the proxy. */
export function hbaLine({ host, user, ssl }: PostgresConfig, database: string): string {
  if (host.startsWith('/')) return `local  ${quoteIdentifier(database)}  ${quoteIdentifier(user)}  scram-sha-256`;
  const loopback = ['localhost', '127.0.0.1', '::1'].includes(host);
  const address = loopback ? 'samehost' : "<the proxy's address>/32";
  return `${ssl === 'disable' ? 'host' : 'hostssl'}  ${quoteIdentifier(database)}  ${quoteIdentifier(user)}  ${address}  scram-sha-256`;
}

/** What to do about a connection that was not accepted. */
export function connectionCure(error: unknown, postgres: PostgresConfig, database: string): string {
  const { user, host, port } = postgres;
  switch ((error as { code?: string }).code) {
    case 'ECONNREFUSED':
    case 'ENOENT':
    case 'ETIMEDOUT':
    case 'ENOTFOUND':
    case 'EHOSTUNREACH':
      return `Start PostgreSQL, or correct postgres.host (${host}) and postgres.port (${port}).`;
    case '28P01':
      return `ALTER ROLE ${quoteIdentifier(user)} PASSWORD '…';  and set postgres.password or postgres.password_file to the same.`;
    case '28000':
      return `Add to pg_hba.conf, then SELECT pg_reload_conf();\n  ${hbaLine(postgres, database)}`;
    case '3D000':
      return `CREATE DATABASE ${quoteIdentifier(database)};`;
    case '53300':
      return 'Raise max_connections, or lower session.max_connections.';
    case '57P03':
      return 'Wait until PostgreSQL has started.';
    default:
      return /password|SASL|SCRAM/.test((error as Error).message)
        ? 'Set postgres.password or postgres.password_file.'
        : `Connect by hand with: psql -h ${host} -p ${port} -U ${user} ${database}`;
  }
}

/** As SQL and pg_hba.conf both take it; bare where that is enough. */
export const quoteIdentifier = (name: string): string =>
  /^[a-z_][a-z0-9_]*$/.test(name) ? name : `"${name.replaceAll('"', '""')}"`;
