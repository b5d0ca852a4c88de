/** Wall clocks that are hours wrong, and jump while the cluster works. */
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const HOURS = 3_600_000;
const NODES = [1, 2, 3];
const PATIENCE = { timeoutMs: 120_000 };

describe('clocks that jump by hours', () => {
  let cluster: TestCluster;
  const shift = (node: number, hours: number) =>
    writeFileSync(join(cluster.dir, `node${node}`, 'clock'), String(hours * HOURS));
  const status = async (node: number): Promise<ClusterStatus> =>
    (await (await fetch(new URL('/status', cluster.node(node).metrics))).json()) as ClusterStatus;
  const epochs = async () => (await status(1)).nodes.map(({ id, state, epoch }) => ({ id, state, epoch }));

  beforeAll(async () => {
    const preload = new URL('../support/shifted-clock.mjs', import.meta.url).href;
    cluster = await startCluster({ relays: false, env: { NODE_OPTIONS: `--import ${preload}` } });
    await cluster.ready();
    const client = new pg.Client({ connectionString: cluster.node(1).uri });
    await client.connect();
    await client.query('CREATE TABLE hot (id int PRIMARY KEY, n int NOT NULL)');
    await client.query('INSERT INTO hot VALUES (1, 0)');
    for (const id of NODES) await client.query('INSERT INTO hot VALUES ($1, 0)', [id + 10]);
    await client.end();
  });
  afterAll(() => cluster.stop());

  /** Counts on a row that all nodes want, and on one of its own, which nobody may keep it from. */
  class Counter {
    hot = 0;
    own = 0;
    readonly unexpected: string[] = [];
    stopped = false;
    done: Promise<void> = Promise.resolve();

    readonly node: number;

    constructor(node: number) {
      this.node = node;
    }

    start(): this {
      this.done = this.#run();
      return this;
    }

    async #run(): Promise<void> {
      const client = new pg.Client({ connectionString: cluster.node(this.node).uri });
      await client.connect();
      while (!this.stopped) {
        this.hot += await this.#count(client, 1);
        this.own += await this.#count(client, this.node + 10);
      }
      await client.end();
    }

    async #count(client: pg.Client, row: number): Promise<number> {
      try {
        await client.query('UPDATE hot SET n = n + 1 WHERE id = $1', [row]);
        return 1;
      } catch (error) {
        const code = (error as pg.DatabaseError).code ?? String(error);
        // Of the hot row only: a conflict is what it is there for.
        if (row !== 1 || code !== '40001') this.unexpected.push(`${code} ${(error as Error).message}`);
        return 0;
      }
    }
  }

  it('exclude nobody, fail nothing and starve nobody, during jumps and after', async () => {
    const before = await epochs();
    expect(before.map(({ state }) => state)).toEqual(['member', 'member', 'member']);
    const counters = NODES.map((node) => new Counter(node).start());
    const progress = async (what: string): Promise<void> => {
      const from = counters.map(({ hot, own }) => ({ hot, own }));
      await waitFor(
        what,
        () => counters.every(({ hot, own }, at) => hot >= from[at].hot + 10 && own >= from[at].own + 10),
        { ...PATIENCE, describe: () => counters.map(({ node, hot, own }) => ({ node, hot, own })) },
      );
    };
    await progress('all count with right clocks');
    for (const [node, hours] of [
      [2, 5],
      [1, -5],
      [3, 48],
      [2, -3],
      [3, 0],
      [1, 0],
    ]) {
      shift(node, hours);
      await progress(`all count when the clock of node ${node} is ${hours} hours off`);
    }
    for (const counter of counters) counter.stopped = true;
    for (const { done } of counters) await done;
    expect(counters.flatMap(({ unexpected }) => unexpected)).toEqual([]);
    expect(await epochs()).toEqual(before);
    const client = new pg.Client({ connectionString: cluster.node(1).uri });
    await client.connect();
    const { rows } = await client.query<{ n: number }>('SELECT n FROM hot ORDER BY id');
    await client.end();
    const sum = counters.reduce((total, { hot }) => total + hot, 0);
    expect(rows.map(({ n }) => n)).toEqual([sum, ...counters.map(({ own }) => own)]);
    console.log('counted on the row that all want:', counters.map(({ hot }) => hot).join(', '));
  });

  it('let a node start whose clock has stepped back, and one whose clock is ahead', async () => {
    shift(2, -5);
    shift(3, 5);
    for (const node of ['2', '3']) {
      await cluster.dev('kill', node, 'proxy');
      await cluster.dev('start', node, 'proxy');
      await waitFor(`node ${node} is back`, () => isReady(cluster, Number(node)), PATIENCE);
    }
    const counters = NODES.map((node) => new Counter(node).start());
    await waitFor('all count', () => counters.every(({ hot, own }) => hot >= 10 && own >= 10), PATIENCE);
    for (const counter of counters) counter.stopped = true;
    for (const { done } of counters) await done;
    expect(counters.flatMap(({ unexpected }) => unexpected)).toEqual([]);
    expect(await verify(targetsOfPlayground(cluster.dir), { waitMs: 60_000 })).toMatchObject({ same: true });
  });
});
