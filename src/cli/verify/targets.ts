import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { ClientConfig } from 'pg';
import { clientConfig } from '../../config/client-config.ts';
import { loadConfig } from '../../config/load.ts';

/** A PostgreSQL server to compare, as it can be connected to without going through a proxy. */
export interface Target {
  readonly name: string;
  connection(database: string): ClientConfig;
}

export interface Targets {
  readonly targets: readonly Target[];
  readonly databases: readonly string[];
}

/** The nodes of a configuration file. The proxy's own credentials are taken for all of them. */
export function targetsOfConfig(file: string): Targets {
  const config = loadConfig(file);
  const targets = config.nodes
    .filter(({ witness }) => !witness)
    .map(({ id, postgres }): Target => {
      if (id === config.node)
        return { name: `node ${id}`, connection: (database) => clientConfig(config.postgres, database) };
      if (postgres === undefined) throw new Error(`${file}: nodes: node ${id} has no postgres address to verify it at`);
      return {
        name: `node ${id}`,
        connection: (database) => clientConfig({ ...config.postgres, ...postgres }, database),
      };
    });
  return { targets, databases: config.databases };
}

interface Playground {
  readonly nodes: readonly { readonly id: number; readonly uri: string; readonly postgresPort: number }[];
}

/** The nodes of a playground of `pgmm dev`. */
export function targetsOfPlayground(dir: string): Targets {
  const { nodes } = JSON.parse(readFileSync(join(dir, 'cluster.json'), 'utf8')) as Playground;
  const targets = nodes.map(({ id, uri, postgresPort }): Target => {
    const url = new URL(uri);
    url.port = String(postgresPort);
    return { name: `node ${id}`, connection: (database) => ({ connectionString: withDatabase(url, database) }) };
  });
  return { targets, databases: [...new Set(nodes.map(({ uri }) => databaseOf(new URL(uri))))] };
}

/** Servers given by their addresses; the database is that of the first. */
export function targetsOfUris(uris: readonly string[]): Targets {
  const urls = uris.map((uri) => new URL(uri));
  const targets = urls.map((url, index): Target => {
    return { name: `${index + 1} (${url.host})`, connection: () => ({ connectionString: url.href }) };
  });
  return { targets, databases: [databaseOf(urls[0])] };
}

const databaseOf = (url: URL): string => decodeURIComponent(url.pathname.slice(1)) || url.username || 'postgres';

function withDatabase(url: URL, database: string): string {
  const copy = new URL(url);
  copy.pathname = `/${encodeURIComponent(database)}`;
  return copy.href;
}
