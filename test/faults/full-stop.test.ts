/** All processes stop and start again, in every order of the nodes. `start` waits for a proxy to serve, not for a majority. */
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { Rng } from '../sim/rng.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const NODES = [1, 2, 3];
const PATIENCE = { timeoutMs: 120_000 };
const SEED = Number(process.env['PGMM_FAULT_SEED'] ?? 1);
const ORDERS = permutations(NODES);
/** A run takes long, so only two are played unless all are asked for. */
const PLAYED =
  process.env['PGMM_FAULT_ALL'] === undefined ? [SEED % ORDERS.length, (SEED + 3) % ORDERS.length] : ORDERS.keys();

function permutations(of: readonly number[]): number[][] {
  if (of.length <= 1) return [[...of]];
  return of.flatMap((first) => permutations(of.filter((one) => one !== first)).map((rest) => [first, ...rest]));
}

describe(`all nodes stop and start, seed ${SEED} (PGMM_FAULT_SEED)`, () => {
  let cluster: TestCluster;
  const rng = new Rng(SEED);
  const acknowledged: number[] = [];
  let next = 0;

  /** A row through that node; it counts only when the client was told that it is committed. */
  async function write(node: number): Promise<boolean> {
    const value = ++next;
    const client = new pg.Client({ connectionString: cluster.node(node).uri, connectionTimeoutMillis: 5000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.query('INSERT INTO kept VALUES ($1)', [value]);
      acknowledged.push(value);
      return true;
    } catch {
      return false;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  beforeAll(async () => {
    // Whoever writes on the last node that is left waits for as long as this.
    const settings = { commit: { decision_timeout: '5s' } };
    cluster = await (await startCluster({ relays: false, settings })).ready();
    const client = new pg.Client({ connectionString: cluster.node(1).uri });
    await client.connect();
    await client.query('CREATE TABLE kept (id int PRIMARY KEY)');
    await client.end();
  });
  afterAll(() => cluster.stop());

  it.each([...PLAYED].map((at) => ({ down: ORDERS[at], up: ORDERS[(at * 5 + SEED) % ORDERS.length] })))(
    'down in the order $down, up in the order $up',
    { timeout: 400_000 },
    async ({ down, up }) => {
      for (const node of down) {
        await write(node);
        // Some are still being committed when their node dies; a client of a node without PostgreSQL waits for as long as its proxy lives.
        const late = Promise.all(NODES.map(write));
        for (const what of shuffled(['proxy', 'postgres'])) await cluster.dev('kill', String(node), what);
        await late;
      }
      for (const [node, what] of startingOrder(up)) await cluster.dev('start', String(node), what);
      for (const node of NODES) await waitFor(`node ${node} takes writes`, () => isReady(cluster, node), PATIENCE);
      for (const node of NODES) await waitFor(`a write on node ${node}`, () => write(node), PATIENCE);
      expect(await verify(targetsOfPlayground(cluster.dir), { waitMs: 60_000 })).toMatchObject({ same: true });
      const client = new pg.Client({ connectionString: cluster.node(2).uri });
      await client.connect();
      const { rows } = await client.query<{ id: number }>('SELECT id FROM kept');
      const prepared = await client.query('SELECT gid FROM pg_prepared_xacts');
      await client.end();
      const kept = new Set(rows.map(({ id }) => id));
      expect(acknowledged.filter((id) => !kept.has(id))).toEqual([]);
      expect(prepared.rows).toEqual([]);
    },
  );

  function shuffled<Item>([first, second]: [Item, Item]): Item[] {
    return rng.below(2) === 0 ? [first, second] : [second, first];
  }

  /** The proxies in that order, each some time after its PostgreSQL: starting a proxy waits for that. */
  function startingOrder(nodes: readonly number[]): (readonly [number, string])[] {
    const waiting = nodes.map((node) => [node, 'postgres'] as const);
    const proxies = nodes.map((node) => [node, 'proxy'] as const);
    const steps: (readonly [number, string])[] = [];
    while (waiting.length + proxies.length > 0) {
      const isReadyFor = steps.some(([node, what]) => node === proxies[0][0] && what === 'postgres');
      const from = waiting.length > 0 && (!isReadyFor || rng.below(2) === 0) ? waiting : proxies;
      steps.push(...from.splice(0, 1));
    }
    return steps;
  }
});
