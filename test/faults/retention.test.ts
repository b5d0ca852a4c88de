import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { parse, stringify } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { adopt, replaceData } from '../support/data-copy.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };

describe('a node that is away for longer than others keep what it needs', () => {
  let cluster: TestCluster;
  let client: pg.Client;

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false })).ready();
    for (const node of [1, 2]) {
      const file = join(cluster.dir, `node${node}`, 'pgmm.yaml');
      const config = parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
      writeFileSync(file, stringify({ ...config, retention: { wal: '32MB' } }));
      await cluster.dev('kill', String(node), 'proxy');
      await cluster.dev('start', String(node), 'proxy');
      await back(node);
    }
    client = new pg.Client({ connectionString: cluster.node(1).uri });
    await client.connect();
    await client.query('CREATE TABLE t (id serial PRIMARY KEY, filler text)');
  });
  afterAll(async () => {
    await client.end();
    await cluster.stop();
  });

  const back = (node: number) => waitFor(`node ${node} is back`, () => isReady(cluster, node), PATIENCE);

  async function retained(node: number): Promise<number> {
    const page = await (await fetch(cluster.node(node).metrics)).text();
    return Number(/pgmm_slot_retained_wal_bytes\{slot="pgmm_history_[^}]*\} (\d+)/.exec(page)?.[1] ?? 0);
  }

  it('is told so, holds back no more WAL, and comes back with a copy', { timeout: 400_000 }, async () => {
    await cluster.dev('kill', '3', 'both');
    const write = () =>
      client.query(`INSERT INTO t (filler) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 5000) i`);
    await waitFor('the others go on', () => write().then(() => true), PATIENCE);
    // Several samples of where the WAL was, some seconds apart, lie beyond the limit then.
    const surrendered = (node: number) => cluster.log(node, 'proxy').includes('retention is exceeded');
    await waitFor(
      'both give it up',
      async () => {
        if (!surrendered(1) || !surrendered(2)) await write();
        return surrendered(1) && surrendered(2);
      },
      { ...PATIENCE, everyMs: 500 },
    );
    await waitFor('the WAL is let go', async () => (await retained(1)) < 200e6, PATIENCE);

    await cluster.dev('start', '3', 'both');
    const reason = async () => (await fetch(new URL('/readyz', cluster.node(3).metrics))).text();
    const isTold = async () => (await reason()).includes('the history kept here begins after');
    await waitFor('node 3 is told', isTold, { ...PATIENCE, describe: reason });
    await write();

    await cluster.dev('kill', '3', 'both');
    await cluster.dev('kill', '2', 'both');
    await replaceData(cluster, 3, 2);
    await cluster.dev('start', '2', 'both');
    await back(2);
    await cluster.dev('start', '3', 'postgres');
    expect(await adopt(cluster, 3)).toContain('a copy of node 2');
    await cluster.dev('start', '3', 'proxy');
    await back(3);
    // Each node hands out values of its own, as before.
    for (const node of [1, 2, 3]) {
      const one = new pg.Client({ connectionString: cluster.node(node).uri });
      await one.connect();
      for (let i = 0; i < 3; i++) await one.query('INSERT INTO t DEFAULT VALUES');
      await one.end();
    }
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
  });
});
