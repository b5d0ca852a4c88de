import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { parse, stringify } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
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
      writeFileSync(file, stringify({ ...config, retention: { wal: '32MB' }, reclone: { max_rate: '24MB' } }));
      await cluster.dev('kill', String(node), 'proxy');
      await cluster.dev('start', String(node), 'proxy');
      await back(node);
    }
    client = new pg.Client({ connectionString: cluster.node(1).uri });
    client.on('error', () => undefined);
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

  const recloneOf = async (node: number) =>
    ((await (await fetch(new URL('/status', cluster.node(node).metrics))).json()) as ClusterStatus).reclone;

  /** The donor, once some of the copy has come. */
  async function isCopying(): Promise<number> {
    let donor = 0;
    await waitFor(
      'node 3 fetches a copy',
      async () => {
        const status = await recloneOf(3).catch(() => null);
        donor = status?.donor ?? 0;
        return status?.state === 'copying' && status.bytes > 1e6;
      },
      PATIENCE,
    );
    return donor;
  }

  it(
    'holds back no more WAL, and copies another one when it comes back, whoever dies',
    { timeout: 600_000 },
    async () => {
      await cluster.dev('kill', '3', 'both');
      const write = () =>
        client.query(`INSERT INTO t (filler) SELECT repeat(md5(i::text), 30) FROM generate_series(1, 2500) i`);
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
      await isCopying();
      await cluster.dev('kill', '3', 'proxy');
      await write();
      await cluster.dev('start', '3', 'proxy');
      const donor = await isCopying();
      await cluster.dev('kill', String(donor), 'both');
      await waitFor('the other one takes over', async () => (await recloneOf(3))?.donor === 3 - donor, PATIENCE);
      await cluster.dev('start', String(donor), 'both');
      let written = 0;
      const writing = new AbortController();
      const other = new pg.Client({ connectionString: cluster.node(3 - donor).uri });
      await other.connect();
      const load = (async () => {
        while (!writing.signal.aborted) {
          await other.query('INSERT INTO t DEFAULT VALUES').then(
            () => written++,
            () => undefined,
          );
        }
      })();
      await back(donor);
      const before = written;
      await waitFor(
        'node 3 puts a copy in place',
        () => cluster.log(3, 'proxy').includes('goes on with a copy'),
        PATIENCE,
      );
      expect(written).toBeGreaterThan(before);
      await back(3);
      writing.abort();
      await load;
      await other.end();
      expect(readdirSync(join(cluster.dir, 'node3')).filter((name) => name.includes('.pgmm-'))).toEqual([]);
      // Each node hands out values of its own, as before.
      for (const node of [1, 2, 3]) {
        const one = new pg.Client({ connectionString: cluster.node(node).uri });
        await one.connect();
        for (let i = 0; i < 3; i++) await one.query('INSERT INTO t DEFAULT VALUES');
        await one.end();
      }
      const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
      expect(report.differences).toEqual([]);
    },
  );
});
