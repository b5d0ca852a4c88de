import { readFileSync } from 'node:fs';
import type { ClientConfig } from 'pg';
import type { PostgresConfig } from './schema.ts';

/** How the proxy's own connections reach the PostgreSQL server beside it. */
export function clientConfig(postgres: PostgresConfig, database = postgres.database): ClientConfig {
  const { host, port, user, password } = postgres;
  return {
    ...{ host, port, user, database },
    ...(password !== undefined && { password }),
    ...(postgres.ssl !== 'disable' && { ssl: tlsOptions(postgres) }),
    application_name: 'pgmm',
    connectionTimeoutMillis: 10_000,
  };
}

function tlsOptions({ ssl, sslCaFile }: PostgresConfig): NonNullable<ClientConfig['ssl']> {
  if (ssl === 'require') return { rejectUnauthorized: false };
  return sslCaFile === undefined ? {} : { ca: readFileSync(sslCaFile, 'utf8') };
}
