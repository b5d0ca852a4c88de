import { readFileSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { copyDirectory } from '../support/data-copy.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 90_000 };
const WITNESS = '3';

describe('two nodes and a witness', () => {
  let cluster: TestCluster;
  let next = 0;

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false, nodes: 2, witness: true })).ready();
    await write(1, 'CREATE TABLE t (id int PRIMARY KEY)');
  });
  afterAll(() => cluster.stop());

  async function write(node: number, sql = `INSERT INTO t VALUES (${++next})`): Promise<true> {
    const client = new pg.Client({ connectionString: cluster.node(node).uri });
    await client.connect();
    try {
      await client.query(sql);
      return true;
    } finally {
      await client.end();
    }
  }

  const back = (node: number) => waitFor(`node ${node} takes writes`, () => isReady(cluster, node), PATIENCE);
  const status = async (of: string | URL = cluster.witnessStatus): Promise<ClusterStatus> => {
    const response = await fetch(of, { signal: AbortSignal.timeout(2000) });
    return (await response.json()) as ClusterStatus;
  };

  it('lets one of two go on alone, and hands the lead to a node that holds data', { timeout: 300_000 }, async () => {
    await waitFor('a node with data leads', async () => [1, 2].includes((await status()).leader ?? 0), PATIENCE);
    for (const node of [2, 1]) {
      const other = node === 1 ? 2 : 1;
      await cluster.dev('kill', String(node), 'both');
      await waitFor(`node ${other} goes on`, () => write(other), PATIENCE);
      await cluster.dev('start', String(node), 'both');
      await back(node);
      await write(node);
    }
    const { nodes, reasons } = await status();
    expect(nodes.map(({ id, state }) => [id, state])).toEqual([
      [1, 'member'],
      [2, 'member'],
    ]);
    expect(reasons[0]).toContain('witness');
  });

  it('is not needed while both are there, and without it one alone refuses', { timeout: 300_000 }, async () => {
    await cluster.dev('kill', WITNESS);
    await waitFor('writes go on', () => write(1), PATIENCE);
    await write(2);
    await cluster.dev('kill', '2', 'both');
    await waitFor('node 1 notices', async () => !(await isReady(cluster, 1)), PATIENCE);
    await expect(write(1)).rejects.toMatchObject({ code: '57P03' });
    await cluster.dev('start', WITNESS);
    await waitFor('the witness brings the majority back', () => write(1), PATIENCE);
    await cluster.dev('start', '2', 'both');
    await back(2);
    await write(2);
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
  });

  it('may die while it leads', { timeout: 300_000 }, async () => {
    // Who wins an election is open, and a witness hands over within a second: it is tried until it is seen to lead.
    await waitFor(
      'the witness leads',
      async () => {
        const { leader } = await status();
        if (leader === null || leader === 3) return false;
        const node = String(leader);
        await cluster.dev('kill', node, 'both');
        const after = await waitFor('another leads', async () => {
          const { leader: now } = await status();
          return now !== null && now !== leader && now;
        });
        if (after === 3) await cluster.dev('kill', WITNESS);
        await cluster.dev('start', node, 'both');
        if (after === 3) return true;
        await back(Number(node));
        return false;
      },
      PATIENCE,
    );
    for (const node of [1, 2]) await back(node);
    for (const node of [1, 2]) await write(node);
    await cluster.dev('start', WITNESS);
    await cluster.dev('kill', '1', 'both');
    await waitFor('node 2 goes on with it', () => write(2), PATIENCE);
    await cluster.dev('start', '1', 'both');
    await back(1);
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
  });

  it('begins anew when its data_dir went back, as the others remember more of it', { timeout: 300_000 }, async () => {
    const directory = join(cluster.dir, `node${WITNESS}`, 'pgmm');
    const notes = (of: string) =>
      JSON.parse(readFileSync(join(of, 'identity.json'), 'utf8')) as {
        log: string;
        peers?: Record<string, { decided: number }>;
      };
    await cluster.dev('kill', WITNESS);
    await copyDirectory(directory, `${directory}.old`);
    await cluster.dev('start', WITNESS);
    for (let i = 0; i < 3; i++) await write(1);
    const { log } = notes(`${directory}.old`);
    const { committed } = (await status(new URL('/status', cluster.node(1).metrics))).log;
    const remember = (node: number) =>
      (notes(join(cluster.dir, `node${node}`, 'pgmm')).peers?.[WITNESS]?.decided ?? 0) >= committed;
    await waitFor('the others have noted it down', () => remember(1) && remember(2), PATIENCE);
    await cluster.dev('kill', WITNESS);
    rmSync(directory, { recursive: true });
    renameSync(`${directory}.old`, directory);
    await cluster.dev('start', WITNESS);
    await waitFor('the witness has a new log', () => notes(directory).log !== log, PATIENCE);
    await waitFor('the witness is let in', async () => (await status()).voiceless === null, PATIENCE);
    await cluster.dev('kill', '1', 'both');
    await waitFor('node 2 goes on with it', () => write(2), PATIENCE);
    await cluster.dev('start', '1', 'both');
    await back(1);
  });

  it(
    'does not let a node lead that lacks what a witness with an emptied data_dir helped to decide',
    { timeout: 300_000 },
    async () => {
      const directory = join(cluster.dir, `node${WITNESS}`, 'pgmm');
      await cluster.dev('kill', '2', 'both');
      await waitFor('node 1 goes on with the witness', () => write(1), PATIENCE);
      for (let i = 0; i < 5; i++) await write(1);
      // What was acknowledged is on node 1 and the witness; the witness forgets it, and node 1 is gone.
      await cluster.dev('kill', WITNESS);
      for (const name of readdirSync(directory)) rmSync(join(directory, name), { recursive: true });
      await cluster.dev('kill', '1', 'both');
      await cluster.dev('start', WITNESS);
      await cluster.dev('start', '2', 'both');
      const knows = async () => (await status()).voiceless?.includes('has begun without it') === true;
      await waitFor('the witness holds back', knows, PATIENCE);
      const reason = async () => {
        const text = await (await fetch(new URL('/readyz', cluster.node(2).metrics))).text();
        return text.includes(`node ${WITNESS} came with a new decision log`);
      };
      await waitFor('node 2 says why it takes no writes', reason, PATIENCE);
      await expect(write(2)).rejects.toMatchObject({ code: '57P03' });

      await cluster.dev('start', '1', 'both');
      await back(1);
      await back(2);
      expect(await count(2)).toBe(await count(1));
      const counts = async () => (await status()).voiceless === null;
      await waitFor('the witness is let in', counts, PATIENCE);
      await cluster.dev('kill', '1', 'both');
      await waitFor('node 2 goes on with it', () => write(2), PATIENCE);
      await cluster.dev('start', '1', 'both');
      await back(1);
      const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
      expect(report.differences).toEqual([]);
    },
  );

  async function count(node: number): Promise<number> {
    const client = new pg.Client({ connectionString: cluster.node(node).uri });
    await client.connect();
    try {
      return Number((await client.query<{ n: string }>('SELECT count(*) AS n FROM t')).rows[0].n);
    } finally {
      await client.end();
    }
  }
});
