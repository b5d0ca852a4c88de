import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { parse, stringify } from 'yaml';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster, type TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };
const CLIENTS = 6;
const ROUNDS = 3;

/** Keeps inserting, over a new connection where one breaks; what it was told is committed, and what it was not told the end of. */
class Writer {
  readonly acknowledged: number[] = [];
  readonly #uri: () => string;
  readonly #next: () => number;
  #stopped = false;
  #done: Promise<void> | undefined;

  constructor(uri: () => string, next: () => number) {
    this.#uri = uri;
    this.#next = next;
  }

  start(): void {
    this.#done = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const client = new pg.Client({ connectionString: this.#uri(), connectionTimeoutMillis: 5000 });
      client.on('error', () => undefined);
      try {
        await client.connect();
        while (!this.#isStopped) await this.#insert(client);
      } catch {
        await new Promise((resolve) => setTimeout(resolve, 20));
      } finally {
        await client.end().catch(() => undefined);
      }
    }
  }

  /** Asked anew after each step: the compiler takes the property for what it was before. */
  get #isStopped(): boolean {
    return this.#stopped;
  }

  async #insert(client: pg.Client): Promise<void> {
    const id = this.#next();
    await client.query('INSERT INTO t VALUES ($1)', [id]);
    this.acknowledged.push(id);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
  }
}

describe('nodes that commit in the order "relaxed"', () => {
  let cluster: TestCluster;
  let id = 0;
  let writers: Writer[] = [];

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false })).ready();
    await setOrder(1, { order: 'relaxed', committers: 4 });
    await setOrder(2, { order: 'relaxed', committers: 3 });
    await ask(1, 'CREATE TABLE t (id int PRIMARY KEY)');
  });
  afterEach(async () => {
    await Promise.all(writers.map((writer) => writer.stop()));
  });
  afterAll(() => cluster.stop());

  const back = (node: number) => waitFor(`node ${node} is back`, () => isReady(cluster, node), PATIENCE);

  async function setOrder(node: number, commit: object): Promise<void> {
    const file = join(cluster.dir, `node${node}`, 'pgmm.yaml');
    writeFileSync(file, stringify({ ...(parse(readFileSync(file, 'utf8')) as object), commit }));
    // Committers that are new are used from the second start on.
    for (let start = 1; start <= 2; start++) {
      await cluster.dev('kill', String(node), 'proxy');
      await cluster.dev('start', String(node), 'proxy');
      await back(node);
    }
  }

  async function ask(node: number, sql: string, direct = false): Promise<string[][]> {
    const { uri, postgresUri } = cluster.node(node);
    const client = new pg.Client({ connectionString: direct ? postgresUri : uri });
    await client.connect();
    try {
      return (await client.query<string[]>({ text: sql, rowMode: 'array' })).rows;
    } finally {
      await client.end();
    }
  }

  function write(nodes: readonly number[]): void {
    writers = Array.from({ length: CLIENTS }, (_, i) => {
      const node = nodes[i % nodes.length];
      return new Writer(
        () => cluster.node(node).uri,
        () => ++id,
      );
    });
    for (const writer of writers) writer.start();
  }

  const written = () => writers.reduce((sum, { acknowledged }) => sum + acknowledged.length, 0);

  async function more(count: number): Promise<void> {
    const before = written();
    await waitFor(`${count} more commits`, () => written() >= before + count, PATIENCE);
  }

  /** Every acknowledged row on every node, all nodes alike, nothing left prepared. */
  async function expectAllThere(): Promise<void> {
    await Promise.all(writers.map((writer) => writer.stop()));
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 60_000 });
    expect(report.differences).toEqual([]);
    const acknowledged = writers.flatMap((writer) => writer.acknowledged);
    for (const node of [1, 2, 3]) {
      const there = new Set((await ask(node, 'SELECT id FROM t')).map(([one]) => Number(one)));
      expect(acknowledged.filter((one) => !there.has(one))).toEqual([]);
      expect(await ask(node, 'SELECT gid FROM pg_prepared_xacts', true)).toEqual([]);
    }
  }

  async function origins(node: number): Promise<string[]> {
    const used = `SELECT external_id FROM pg_replication_origin_status WHERE remote_lsn > '0/0' ORDER BY 1`;
    const names = (await ask(node, used, true)).map(([name]) => name);
    return names.filter((name) => name.includes('of')).map((name) => name.replace(/.*_/, ''));
  }

  it('commits through as many connections as it says', async () => {
    write([1, 2, 3]);
    await more(500);
    await expectAllThere();
    expect(await origins(1)).toEqual(['0of4', '1of4', '2of4', '3of4']);
    expect(await origins(2)).toEqual(['0of3', '1of3', '2of3']);
    expect(await origins(3)).toEqual([]);
  });

  it('knows exactly what is committed after its PostgreSQL or the proxy died', { timeout: 300_000 }, async () => {
    for (let round = 0; round < ROUNDS; round++) {
      write([1, 2, 3]);
      await more(200);
      const what = ['postgres', 'both', 'proxy'][round % 3];
      await cluster.dev('kill', '1', what);
      await cluster.dev('start', '1', what);
      await back(1);
      await more(100);
      await expectAllThere();
    }
  });

  it('is a donor for a node that was away, and catches up by itself', { timeout: 300_000 }, async () => {
    await cluster.dev('kill', '3', 'both');
    write([1, 2]);
    await more(500);
    // Writes go on meanwhile, over a third of the clients: the machine that runs all nodes has to get ahead of them.
    await Promise.all(writers.slice(2).map((writer) => writer.stop()));
    await cluster.dev('start', '3', 'both');
    await back(3);
    await cluster.dev('kill', '1', 'both');
    await more(100);
    await cluster.dev('start', '1', 'both');
    await back(1);
    await expectAllThere();
  });

  it('goes back to the order "strict", and to another number of committers', { timeout: 300_000 }, async () => {
    write([1, 2, 3]);
    await more(100);
    await setOrder(1, { order: 'strict' });
    await setOrder(2, { order: 'relaxed', committers: 5 });
    await more(100);
    await expectAllThere();
  });
});
