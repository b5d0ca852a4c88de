import pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { withoutCommits } from '../support/stopped-backends.ts';
import { waitFor } from '../support/wait-for.ts';

/** How a session comes to a level of synchronous_commit, and how it then writes the row `id`. */
interface Way {
  readonly name: string;
  readonly user?: string;
  readonly options?: (level: string) => string;
  readonly write: (client: pg.Client, level: string, id: number) => Promise<unknown>;
}

const insert = (id: number) => `INSERT INTO t VALUES (${id})`;

const WAYS: readonly Way[] = [
  {
    name: 'SET, implicit transaction',
    write: async (client, level, id) => {
      await client.query(`SET synchronous_commit = ${level}`);
      await client.query(insert(id));
    },
  },
  {
    name: 'SET, extended protocol',
    write: async (client, level, id) => {
      await client.query(`SET synchronous_commit = ${level}`);
      await client.query('INSERT INTO t VALUES ($1)', [id]);
    },
  },
  {
    name: 'SET LOCAL in a block',
    write: async (client, level, id) => {
      await client.query('BEGIN');
      await client.query(`SET LOCAL synchronous_commit = ${level}`);
      await client.query(insert(id));
      await client.query('COMMIT');
    },
  },
  {
    name: 'SET LOCAL after the write, in one Query',
    write: (client, level, id) => client.query(`BEGIN; ${insert(id)}; SET LOCAL synchronous_commit = ${level}; COMMIT`),
  },
  {
    name: 'SET in the same Query as an implicit transaction',
    write: (client, level, id) => client.query(`SET synchronous_commit = ${level}; ${insert(id)}`),
  },
  {
    name: 'set_config()',
    write: (client, level, id) =>
      client.query(`SELECT set_config('synchronous_commit', '${level}', true); ${insert(id)}`),
  },
  {
    name: 'options of the connection',
    options: (level) => `-c synchronous_commit=${level}`,
    write: (client, _level, id) => client.query(insert(id)),
  },
  { name: 'ALTER ROLE', user: 'alice', write: (client, _level, id) => client.query(insert(id)) },
  { name: 'ALTER ROLE IN DATABASE', user: 'bob', write: (client, _level, id) => client.query(insert(id)) },
  { name: 'ALTER DATABASE', write: (client, _level, id) => client.query(insert(id)) },
];

describe('commit levels', () => {
  let cluster: TestCluster;
  let admin: pg.Client;
  let onNode1: pg.Client;
  /** On nodes 2 and 3: each statement waits until its node has committed all that is decided. */
  let strict: pg.Client[];
  let next = 0;

  beforeAll(async () => {
    cluster = await (await startCluster()).ready();
    admin = await connect(2);
    onNode1 = await connect(1);
    const options = '-c multimaster.read_level=strict';
    strict = [await connect(2, { options }), await connect(3, { options })];
    await admin.query('SET synchronous_commit = remote_apply');
    await admin.query('CREATE TABLE t (id int PRIMARY KEY)');
    await admin.query('CREATE ROLE alice LOGIN; CREATE ROLE bob LOGIN');
    await admin.query('GRANT ALL ON t TO alice, bob');
    await admin.query('SET synchronous_commit = on');
  });
  beforeEach(async () => {
    for (const client of strict) await client.query('SELECT');
  });
  afterAll(async () => {
    for (const client of [admin, onNode1, ...strict]) await client.end();
    await cluster.stop();
  });

  async function connect(node: number, config: pg.ClientConfig = {}): Promise<pg.Client> {
    const { hostname: host, port } = new URL(cluster.node(node).uri);
    const client = new pg.Client({ host, port: Number(port), user: 'postgres', database: 'postgres', ...config });
    await client.connect();
    return client;
  }

  /** A session of that kind on node 2. */
  async function session(way: Way, level: string): Promise<pg.Client> {
    if (way.user === 'alice') await admin.query(`ALTER ROLE alice SET synchronous_commit = ${level}`);
    if (way.user === 'bob') await admin.query(`ALTER ROLE bob IN DATABASE postgres SET synchronous_commit = ${level}`);
    const isForAll = way.name === 'ALTER DATABASE';
    if (isForAll) await admin.query(`ALTER DATABASE postgres SET synchronous_commit = ${level}`);
    const client = await connect(2, {
      ...(way.user !== undefined && { user: way.user }),
      ...(way.options !== undefined && { options: way.options(level) }),
    });
    if (isForAll) await admin.query('ALTER DATABASE postgres RESET synchronous_commit');
    return client;
  }

  const has = async (client: pg.Client, id: number) =>
    (await client.query('SELECT FROM t WHERE id = $1', [id])).rowCount === 1;

  it.each(WAYS)('remote_apply waits for every member: $name', async (way) => {
    const client = await session(way, 'remote_apply');
    const id = ++next;
    let answer: Promise<unknown> = Promise.resolve();
    let answered = false;
    await withoutCommits(cluster, 3, async () => {
      answer = way.write(client, 'remote_apply', id).finally(() => (answered = true));
      await waitFor('the row is there', () => has(onNode1, id));
      await waitFor('it is committed at its origin', () => has(admin, id));
      // Had it been answered at that, the answer would have come before one that takes a round trip to the leader.
      await strict[0].query('SELECT');
      expect(answered).toBe(false);
    });
    await answer;
    await client.end();
  });

  it.each(WAYS.flatMap((way) => ['on', 'off'].map((level) => ({ ...way, level }))))(
    '$level waits for no other node to commit, and for its own: $name',
    async ({ level, ...way }) => {
      const client = await session(way, level);
      await withoutCommits(cluster, 3, async () => {
        await way.write(client, level, ++next);
        expect(await has(admin, next)).toBe(true);
      });
      const id = ++next;
      let answer: Promise<unknown> = Promise.resolve();
      let answered = false;
      await withoutCommits(cluster, 2, async () => {
        answer = way.write(client, level, id).finally(() => (answered = true));
        await waitFor('another node has it', () => has(onNode1, id));
        expect(answered).toBe(false);
        expect(await has(admin, id)).toBe(false);
      });
      await answer;
      await client.end();
    },
  );

  it.each(['local', 'remote_write'])('raises %s to on', async (level) => {
    const client = await connect(2);
    const id = ++next;
    let answered = false;
    let answer: Promise<unknown> = Promise.resolve();
    await client.query(`SET synchronous_commit = ${level}`);
    await withoutCommits(cluster, 2, async () => {
      answer = client.query(insert(id)).finally(() => (answered = true));
      await waitFor('another node has it', () => has(onNode1, id));
      expect(answered).toBe(false);
    });
    await answer;
    expect((await client.query('SHOW synchronous_commit')).rows).toEqual([{ synchronous_commit: level }]);
    await client.end();
  });
});
