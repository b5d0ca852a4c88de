import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const run = promisify(execFile);

/** One client that inserts numbered rows until it is told to stop, and knows which of them it was told are committed. */
class Writer {
  readonly acknowledged: number[] = [];
  /** The longest time between two acknowledgements, in milliseconds. */
  longestGap = 0;
  readonly #client: pg.Client;
  #stopped = false;
  #done: Promise<void> = Promise.resolve();

  constructor(uri: string) {
    this.#client = new pg.Client({ connectionString: uri });
  }

  async start(node: number): Promise<void> {
    await this.#client.connect();
    this.#done = this.#run(node);
  }

  async #run(node: number): Promise<void> {
    let last = performance.now();
    for (let value = node; !this.#stopped; value += 10) {
      try {
        await this.#client.query('INSERT INTO ledger (value, node) VALUES ($1, $2)', [value, node]);
        this.acknowledged.push(value);
        const now = performance.now();
        this.longestGap = Math.max(this.longestGap, now - last);
        last = now;
      } catch (error) {
        // Refused or overruled: never acknowledged, so the next value is tried.
        if (!(error instanceof pg.DatabaseError)) throw error;
      }
    }
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    await this.#done;
    await this.#client.end();
  }
}

describe('a node that dies and returns', () => {
  let cluster: TestCluster;

  beforeAll(async () => {
    cluster = await startCluster({ relays: false });
    await cluster.ready();
    await run('psql', ['-qX', '-c', 'CREATE TABLE ledger (value int PRIMARY KEY, node int)', cluster.node(1).uri]);
  });

  afterAll(async () => {
    await cluster.stop();
  });

  it.each([
    ['3', 'proxy'],
    ['3', 'postgres'],
    ['2', 'both'],
  ])('node %s, %s: the others go on, nothing acknowledged is lost, all nodes end equal', async (node, what) => {
    const writer = new Writer(cluster.node(1).uri);
    await run('psql', ['-qX', '-c', 'TRUNCATE ledger', cluster.node(1).uri]);
    await writer.start(1);
    const written = (count: number) => () => writer.acknowledged.length >= count;
    await waitFor('writes before the crash', written(20));
    await cluster.dev('kill', node, what);
    const before = writer.acknowledged.length;
    await waitFor('writes after the crash', written(before + 50), { timeoutMs: 60_000 });
    await cluster.dev('start', node, what);
    await waitFor('the node to be a member again', () => isReady(cluster, Number(node)), { timeoutMs: 90_000 });
    await waitFor('writes after the return', written(writer.acknowledged.length + 20), { timeoutMs: 60_000 });
    await writer.stop();

    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
    const { stdout } = await run('psql', [
      ...['-qAtX', '-c', 'SELECT value FROM ledger ORDER BY value'],
      cluster.node(Number(node)).uri,
    ]);
    expect(stdout.trim().split('\n').map(Number)).toEqual(writer.acknowledged);
  });

  it('gets rows and transactions that do not fit into one answer of a donor', async () => {
    const on = (node: number, sql: string) => run('psql', ['-qAtX', '-c', sql, cluster.node(node).uri]);
    await on(1, 'CREATE TABLE large (id int PRIMARY KEY, content text)');
    await cluster.dev('kill', '3', 'proxy');
    await waitFor('writes without it', () => on(1, `INSERT INTO large VALUES (0, 'small') ON CONFLICT DO NOTHING`), {
      timeoutMs: 60_000,
    });
    await on(2, `INSERT INTO large VALUES (1, repeat('0123456789', 700000))`);
    await on(1, `INSERT INTO large SELECT i, repeat(md5(i::text), 10) FROM generate_series(2, 20000) i`);
    await on(2, `UPDATE large SET content = content || id WHERE id < 3`);
    await cluster.dev('start', '3', 'proxy');
    await waitFor('the node to be a member again', () => isReady(cluster, 3), { timeoutMs: 90_000 });
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
    const { stdout } = await on(3, 'SELECT count(*), max(length(content)) FROM large');
    expect(stdout.trim()).toBe('20001|7000001');
  });
});
