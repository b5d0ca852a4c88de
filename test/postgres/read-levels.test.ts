import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { cancelOnServer } from '../../src/session/cancel.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { withoutCommits } from '../support/stopped-backends.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const ROUNDS = 100;

describe('read levels of a cluster', () => {
  let cluster: TestCluster;
  const clients: pg.Client[] = [];

  beforeAll(async () => {
    cluster = await (await startCluster()).ready();
    for (const node of [1, 2, 3]) clients.push(await connect(node));
    await clients[0].query('CREATE TABLE t (id int PRIMARY KEY, n int)');
    await clients[0].query('SET synchronous_commit = remote_apply');
    await clients[0].query('INSERT INTO t SELECT i, 0 FROM generate_series(1, 9) i');
    await clients[0].query('RESET synchronous_commit');
  });
  afterAll(async () => {
    for (const client of clients) await client.end().catch(() => undefined);
    await cluster.stop();
  });

  async function connect(node: number, config: pg.ClientConfig = {}): Promise<pg.Client> {
    const { hostname: host, port } = new URL(cluster.node(node).uri);
    const client = new pg.Client({ host, port: Number(port), user: 'postgres', database: 'postgres', ...config });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  const value = async (client: pg.Client, sql: string): Promise<unknown> =>
    (await client.query<{ v: unknown }>(sql)).rows[0].v;
  const n = (client: pg.Client, id = 1) => value(client, `SELECT n AS v FROM t WHERE id = ${id}`);
  const token = (client: pg.Client) => value(client, 'SELECT multimaster.token() AS v') as Promise<string>;

  it('shows old data at level local, and what it must at the others', async () => {
    const [one, two] = clients;
    const old = await token(one);
    const levels = {
      strict: await connect(2),
      after: await connect(2),
      block: await connect(2),
      old: await connect(2),
    };
    await levels.strict.query('SET multimaster.read_level = strict');
    await levels.block.query('SET multimaster.read_level = strict; BEGIN ISOLATION LEVEL REPEATABLE READ');
    const reads: Promise<unknown>[] = [];
    let answered = 0;
    await withoutCommits(cluster, 2, async () => {
      await one.query('UPDATE t SET n = 1 WHERE id = 1');
      expect(await n(one)).toBe(1);
      expect(await n(two)).toBe(0);
      await levels.after.query(`SELECT set_config('multimaster.read_after', $1, false)`, [await token(one)]);
      for (const client of [levels.strict, levels.after, levels.block]) reads.push(n(client).finally(() => answered++));
      // A token of what is committed there delays nothing.
      await levels.old.query(`SET multimaster.read_after = '${old}'`);
      expect(await n(levels.old)).toBe(0);
      // Those that wait neither block others, nor answer before the node has committed.
      for (let i = 0; i < 20; i++) expect(await n(two)).toBe(0);
      expect(answered).toBe(0);
    });
    expect(await Promise.all(reads)).toEqual([1, 1, 1]);
    await levels.block.query('COMMIT');
    for (const client of Object.values(levels)) await client.end();
  });

  it('gives up after a time, and for a cancel request', async () => {
    const [one] = clients;
    const behind = await connect(2);
    await withoutCommits(cluster, 2, async () => {
      await one.query('UPDATE t SET n = n + 1 WHERE id = 2');
      await behind.query(`SET multimaster.read_after = '${await token(one)}'`);
      const failed = await n(behind, 2).then(
        () => undefined,
        (error: unknown) => error as pg.DatabaseError,
      );
      expect(failed).toMatchObject({ code: '55P03' });
      expect(failed?.detail).toMatch(/^Node 2 has committed the log up to \d+; the read needs it up to \d+\.$/);
      const reading = expect(n(behind, 2)).rejects.toMatchObject({ code: '57014' });
      const { processID, secretKey } = behind as unknown as { processID: number; secretKey: number };
      const key = Buffer.alloc(4);
      key.writeInt32BE(secretKey);
      const { hostname, port } = new URL(cluster.node(2).uri);
      await cancelOnServer({ host: hostname, port: Number(port) }, processID, key);
      await reading;
    });
    expect(await n(behind, 2)).toBe(1);
    await behind.end();
  });

  it(`is never out of date in ${ROUNDS} rounds of writing here and reading there`, async () => {
    const options = '-c multimaster.read_level=strict';
    // Three to a node: one after the other on one connection they would not share questions.
    const strict = await Promise.all(
      [1, 2, 3].map((node) => Promise.all([1, 2, 3].map(() => connect(node, { options })))),
    );
    const session = await Promise.all([1, 2, 3].map((node) => connect(node)));
    await session[0].query('SET multimaster.read_level = session');
    const stale = { local: 0, strict: 0, token: 0 };
    for (let round = 1; round <= ROUNDS; round++) {
      const [from, to] = [round % 3, (round + 1 + (round % 2)) % 3];
      await clients[from].query('UPDATE t SET n = $1 WHERE id = 3', [round]);
      const name = await token(clients[from]);
      const reads = strict[to].map((client) => n(client, 3));
      if ((await n(clients[to], 3)) !== round) stale.local++;
      for (const read of reads) if ((await read) !== round) stale.strict++;
      await session[to].query(`SET multimaster.read_after = '${name}'`);
      if ((await n(session[to], 3)) !== round) stale.token++;
    }
    expect(stale).toMatchObject({ strict: 0, token: 0 });
    for (const client of [...strict.flat(), ...session]) await client.end();
  });

  it('refuses strict reads in the minority, and nothing else', async () => {
    const strict = await connect(3, { options: '-c multimaster.read_level=strict' });
    await n(strict);
    await cluster.dev('partition', '3', '1,2');
    await waitFor('node 3 notices', async () => !(await isReady(cluster, 3)));
    const refused = await n(strict).then(
      () => undefined,
      (error: unknown) => error as pg.DatabaseError,
    );
    expect(refused).toMatchObject({ code: '57P03' });
    expect(refused?.detail).toMatch(/^Node 3: /);
    await strict.query('SET multimaster.read_level = local');
    expect(await n(strict)).toBe(1);
    await strict.query('BEGIN');
    await strict.query('SET LOCAL multimaster.read_level = strict');
    await expect(n(strict)).rejects.toMatchObject({ code: '57P03' });
    await strict.query('ROLLBACK');
    await cluster.dev('heal');
    await strict.query('SET multimaster.read_level = strict');
    await waitFor('node 3 is back', () => isReady(cluster, 3), { timeoutMs: 60_000 });
    expect(await n(strict)).toBe(1);
    await strict.end();
  });

  it('takes the level of a role that is altered on another node', async () => {
    await clients[0].query('SET synchronous_commit = remote_apply');
    await clients[0].query('CREATE ROLE reporting LOGIN');
    await clients[0].query('ALTER ROLE reporting SET multimaster.read_level = strict');
    const reporting = await connect(2, { user: 'reporting' });
    expect(await value(reporting, `SELECT current_setting('multimaster.read_level') AS v`)).toBe('strict');
    await reporting.end();
    await clients[0].query('RESET synchronous_commit');
  });
});
