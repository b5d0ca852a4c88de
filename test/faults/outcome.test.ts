import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

describe('the outcome of a transaction', () => {
  let cluster: TestCluster;
  const clients: pg.Client[] = [];

  beforeAll(async () => {
    cluster = await (await startCluster()).ready();
    for (const node of [1, 2, 3]) clients.push(await connect(node));
    await clients[0].query('CREATE TABLE t (id int PRIMARY KEY)');
  });
  afterAll(async () => {
    for (const client of clients) await client.end().catch(() => undefined);
    await cluster.stop();
  });

  async function connect(node: number): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: cluster.node(node).uri });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  /** What each node says, to a literal and to a parameter. */
  async function outcomes(gid: string): Promise<string[]> {
    const all: string[] = [];
    for (const client of clients) {
      const text = await client.query<{ outcome: string }>(`SELECT multimaster.outcome('${gid}')`);
      const bound = await client.query<{ outcome: string }>('SELECT multimaster.outcome($1)', [gid]);
      const named = { name: 'ask', text: 'SELECT multimaster.outcome($1) AS outcome', values: [gid] };
      all.push(
        text.rows[0].outcome,
        bound.rows[0].outcome,
        (await client.query<{ outcome: string }>(named)).rows[0].outcome,
      );
    }
    return [...new Set(all)];
  }

  async function begin(client: pg.Client, id: number): Promise<string> {
    await client.query('BEGIN');
    await client.query('INSERT INTO t VALUES ($1)', [id]);
    const { rows } = await client.query<{ gid: string }>('SELECT multimaster.current_gid() AS gid');
    return rows[0].gid;
  }

  const code = (error: unknown) => (error as pg.DatabaseError).code;

  it('is told by every node, before, during and after', async () => {
    const client = await connect(2);
    const gid = await begin(client, 1);
    expect(gid).toMatch(/^pgmm:dev:2:/);
    expect(await outcomes(gid)).toEqual(['in progress']);
    await client.query('COMMIT');
    expect(await outcomes(gid)).toEqual(['committed']);
    const other = await begin(client, 2);
    expect(other).not.toBe(gid);
    await client.query('ROLLBACK');
    expect(await outcomes(other)).toEqual(['aborted']);
    const lost = await begin(client, 3);
    await clients[0].query('INSERT INTO t VALUES (3)');
    await expect(client.query('COMMIT')).rejects.toMatchObject({ code: '40001' });
    expect(await outcomes(lost)).toEqual(['aborted']);
    expect((await client.query('SELECT multimaster.current_gid() AS gid')).rows).toEqual([{ gid: null }]);
    await client.end();
  });

  it('refuses what is no name of this cluster, or was not given as it is', async () => {
    await expect(clients[0].query(`SELECT multimaster.outcome('pgmm:other:1:2:3:4')`)).rejects.toMatchObject({
      code: '22023',
    });
    await expect(clients[0].query(`SELECT multimaster.outcome('nonsense')`)).rejects.toMatchObject({ code: '22023' });
    const direct = new pg.Client({ connectionString: cluster.node(1).postgresUri });
    await direct.connect();
    await expect(direct.query(`SELECT multimaster.outcome('pgmm:dev:1:2:3:4')`)).rejects.toMatchObject({
      code: '55000',
    });
    await direct.end();
  });

  it('is learned after a client was told that it is unknown', { timeout: 180_000 }, async () => {
    const client = await connect(3);
    const gid = await begin(client, 10);
    await cluster.dev('partition', '3', '1,2');
    // Not decided yet: node 3 can't reach a majority, and gives up in the end, one way or the other.
    const answer = client.query('COMMIT').then(() => undefined, code);
    // A minority does not guess.
    await waitFor('node 3 notices', async () => !(await isReady(cluster, 3)));
    await expect(clients[2].query(`SELECT multimaster.outcome('${gid}')`)).rejects.toMatchObject({ code: '57P03' });
    const doubts = await clients[2].query<Record<string, unknown>>(
      `SELECT gid, origin, database, state, age > '0' AND age < '10min' AS plausible, waits_for FROM multimaster.in_doubt()`,
    );
    expect(doubts.rows).toContainEqual({
      ...{ gid, origin: 3, database: 'postgres', state: 'voting', plausible: true },
      waits_for: 'the votes of nodes 1, 2',
    });
    // Once node 3 is excluded, the others know that it is over.
    const others = () => clients[0].query<{ outcome: string }>(`SELECT multimaster.outcome('${gid}')`);
    await waitFor('the others know', async () => (await others()).rows[0].outcome === 'aborted', { timeoutMs: 60_000 });
    await cluster.dev('heal');
    // It may believe itself a member for a moment, until it has read that it was excluded.
    const writes = async () =>
      await connect(3).then((one) => one.query('INSERT INTO t VALUES (11)').finally(() => one.end()));
    await waitFor('node 3 is back', writes, { timeoutMs: 60_000 });
    expect(await answer).toBe('40001');
    expect(await outcomes(gid)).toEqual(['aborted']);
    await client.end();
  });

  it('outlives the node and its proxy', { timeout: 180_000 }, async () => {
    const client = await connect(3);
    const gid = await begin(client, 20);
    await client.query('COMMIT');
    await cluster.dev('kill', '3', 'both');
    await waitFor('the others go on', () => isReady(cluster, 1));
    const { rows } = await clients[0].query<{ outcome: string }>(`SELECT multimaster.outcome('${gid}')`);
    expect(rows[0].outcome).toBe('committed');
    await cluster.dev('start', '3', 'both');
    await waitFor('node 3 is back', () => isReady(cluster, 3), { timeoutMs: 60_000 });
    clients[2] = await connect(3);
    expect(await outcomes(gid)).toEqual(['committed']);
  });
});
