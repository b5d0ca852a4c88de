import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse, stringify } from 'yaml';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';
import { extended } from './session-raw.ts';

const NODES = [1, 2, 3];
const CLIENTS_A_NODE = 4;
const UPDATES = 8;
const SQL = 'UPDATE hot SET n = n + 1 WHERE a = 1 RETURNING n';

/** How a client sends its statement. */
const WAYS: Record<string, string | pg.QueryConfig> = {
  'simple protocol': SQL,
  'extended protocol': extended(SQL),
  'extended protocol, prepared under a name': { text: SQL, values: [], name: 'hot' },
};

describe('twelve clients of three nodes on one row, with session.statement_retries', () => {
  let cluster: TestCluster;
  const clients: pg.Client[] = [];

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false })).ready();
    for (const node of NODES) {
      const file = join(cluster.dir, `node${node}`, 'pgmm.yaml');
      const config = parse(readFileSync(file, 'utf8')) as Record<string, object>;
      writeFileSync(file, stringify({ ...config, session: { ...config['session'], statement_retries: 1000 } }));
      await cluster.dev('kill', String(node), 'proxy');
      await cluster.dev('start', String(node), 'proxy');
      await waitFor(`node ${node} is back`, () => isReady(cluster, node), { timeoutMs: 120_000 });
    }
    for (const node of NODES) {
      for (let n = 0; n < CLIENTS_A_NODE; n++) {
        const client = new pg.Client({ connectionString: cluster.node(node).uri });
        await client.connect();
        clients.push(client);
      }
    }
    await clients[0].query('CREATE TABLE hot (a int PRIMARY KEY, n int)');
  });

  afterAll(async () => {
    await Promise.all(clients.map((client) => client.end()));
    await cluster.stop();
  });

  async function repeated(): Promise<number> {
    const pages = NODES.map(async (node) => (await fetch(cluster.node(node).metrics)).text());
    return (await Promise.all(pages))
      .map((page) => Number(/intercepted_statements_total\{kind="repeated"\} (\d+)/.exec(page)?.[1] ?? 0))
      .reduce((sum, count) => sum + count, 0);
  }

  it.each(Object.entries(WAYS))('tells nobody of a conflict: %s', async (_way, query) => {
    await clients[0].query('DELETE FROM hot');
    await clients[0].query("SET synchronous_commit = 'remote_apply'");
    await clients[0].query('INSERT INTO hot VALUES (1, 0)');
    const before = await repeated();
    const told: number[] = [];
    const update = async (client: pg.Client): Promise<void> => {
      for (let n = 0; n < UPDATES; n++) {
        const { rows } = await client.query<{ n: number }>(query);
        told.push(rows[0].n);
      }
    };
    await Promise.all(clients.map(update));
    // Each saw the one before it: nothing was done twice, nothing lost.
    const count = clients.length * UPDATES;
    expect(told.sort((a, b) => a - b)).toEqual(Array.from({ length: count }, (_, index) => index + 1));
    expect((await clients[0].query('SELECT n FROM hot')).rows).toEqual([{ n: count }]);
    expect(await repeated()).toBeGreaterThan(before);
    expect(await verify(targetsOfPlayground(cluster.dir), { waitMs: 60_000 })).toMatchObject({ same: true });
  });
});
