/** Two nodes and a Redis with the third vote: each of the three dies, hangs, or forgets. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster, type TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { TestRedis } from '../support/redis.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 90_000 };

describe('two nodes and a referee', () => {
  let redis: TestRedis;
  let cluster: TestCluster;
  let next = 0;

  beforeAll(async () => {
    redis = await TestRedis.start();
    cluster = await (await startCluster({ nodes: 2, referee: redis.url })).ready();
    await everyoneIsBack();
    await write(1, 'CREATE TABLE t (id int PRIMARY KEY, node int)');
  });
  afterAll(async () => {
    await cluster.stop();
    await redis.stop();
  });

  const status = async (node: number): Promise<ClusterStatus> => {
    const response = await fetch(new URL('/status', cluster.node(node).metrics), { signal: AbortSignal.timeout(2000) });
    return (await response.json()) as ClusterStatus;
  };
  const refereeOf = async (node: number) => (await status(node)).referee;
  const votes = (node: number) =>
    waitFor(`the referee votes, as node ${node} sees it`, async () => (await refereeOf(node))?.state === 'active', {
      ...PATIENCE,
      describe: () => cluster.log(node, 'proxy').slice(-2000),
    });
  const back = (node: number) => waitFor(`node ${node} takes writes`, () => isReady(cluster, node), PATIENCE);
  const refuses = (node: number) =>
    waitFor(`node ${node} takes no writes`, async () => !(await isReady(cluster, node)), PATIENCE);

  async function everyoneIsBack(): Promise<void> {
    for (const node of [1, 2]) await back(node);
    for (const node of [1, 2]) await votes(node);
  }

  /** Milliseconds that it took. */
  async function write(node: number, sql = `INSERT INTO t VALUES (${++next}, ${node})`): Promise<number> {
    const client = new pg.Client({ connectionString: cluster.node(node).uri });
    await client.connect();
    try {
      const begun = performance.now();
      await client.query(sql);
      return performance.now() - begun;
    } finally {
      await client.end();
    }
  }

  const goesOn = (node: number) => waitFor(`node ${node} goes on`, () => write(node), PATIENCE);

  async function expectEqual(): Promise<void> {
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
  }

  /** With one node away: what the other can do only together with the referee. */
  async function without(node: number, test: (survivor: number) => Promise<void>): Promise<void> {
    await cluster.dev('kill', String(node), 'both');
    await test(node === 1 ? 2 : 1);
    await cluster.dev('start', String(node), 'both');
    await everyoneIsBack();
    await write(node);
  }

  it('lets either node go on alone', { timeout: 300_000 }, async () => {
    for (const node of [1, 2])
      await without(node, async (survivor) => {
        await goesOn(survivor);
        for (let n = 0; n < 20; n++) await write(survivor);
        expect((await status(survivor)).leader).toBe(survivor);
      });
    await expectEqual();
  });

  it.each(['killed', 'paused'])(
    'is not missed while both are there when it is %s, and without it one alone refuses',
    {
      timeout: 300_000,
    },
    async (how) => {
      const { term, leader } = await status(1);
      if (how === 'killed') await redis.kill();
      else redis.pause();
      for (const node of [1, 2])
        await waitFor('the loss is seen', async () => (await refereeOf(node))?.state === 'connecting', PATIENCE);
      for (let n = 0; n < 20; n++) await write((n % 2) + 1);
      expect(await status(1)).toMatchObject({ term, leader, writable: true });

      await cluster.dev('kill', '2', 'both');
      await refuses(1);
      await expect(write(1)).rejects.toMatchObject({ code: '57P03' });
      if (how === 'killed') await redis.start();
      else redis.resume();
      await goesOn(1);
      await cluster.dev('start', '2', 'both');
      await everyoneIsBack();
      await write(2);
      await expectEqual();
    },
  );

  it('counts again after it was emptied only when both nodes have set it up', { timeout: 300_000 }, async () => {
    await without(2, async (survivor) => {
      await goesOn(survivor);
      await redis.ask('FLUSHALL');
      await refuses(survivor);
      await waitFor('it says why', async () => (await refereeOf(survivor))?.state === 'waiting', PATIENCE);
      await expect(write(survivor)).rejects.toMatchObject({ code: '57P03' });
      expect(cluster.log(survivor, 'proxy')).toContain('the referee has lost its memory');
    });
    // The other way round: the one that does not set it up is the survivor.
    await without(1, async (survivor) => {
      await goesOn(survivor);
      await redis.ask('FLUSHALL');
      await refuses(survivor);
      await waitFor('it says why', async () => (await refereeOf(survivor))?.state === 'waiting', PATIENCE);
    });
    await without(2, async (survivor) => {
      await goesOn(survivor);
    });
    await expectEqual();
  });

  it('is not used with settings that could lose a vote', { timeout: 300_000 }, async () => {
    await redis.ask('CONFIG', 'SET', 'appendfsync', 'everysec');
    const refused = await waitFor(
      'it is refused',
      async () => {
        const referee = await refereeOf(1);
        return referee?.state === 'refused' && referee;
      },
      PATIENCE,
    );
    expect(refused.problem).toContain('appendfsync is everysec: a crash would lose votes');
    await write(1);
    await redis.ask('CONFIG', 'SET', 'appendfsync', 'always');
    for (const node of [1, 2]) await votes(node);
  });

  it('decides which half goes on when the nodes cannot reach each other', { timeout: 300_000 }, async () => {
    await cluster.dev('partition', '1', '2');
    const survivor = await waitFor(
      'one of them goes on',
      () => Promise.any([1, 2].map((node) => write(node).then(() => node))),
      PATIENCE,
    );
    await refuses(survivor === 1 ? 2 : 1);
    await expect(write(survivor === 1 ? 2 : 1)).rejects.toMatchObject({ code: '57P03' });
    await write(survivor);
    await cluster.dev('heal');
    await everyoneIsBack();
    await expectEqual();
  });
});
