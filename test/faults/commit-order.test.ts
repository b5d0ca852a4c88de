import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { parse, stringify } from 'yaml';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster, type TestCluster } from '../support/cluster.ts';
import { restartProxy } from '../support/committers.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };
const CLIENTS = 6;
const ROUNDS = 3;

/** What the clients of a node are told whose proxy or PostgreSQL is killed: the connection ends, or the node says that it can't write now or doesn't know. */
const OF_A_KILLED_NODE = ['ECONNREFUSED', 'ECONNRESET', 'EPIPE', 'ended', '57P01', '57P03', '08006', '08007', '40001'];

/** An SQLSTATE, a system's error, or `ended` for what node-postgres says of a connection that ended without a word. */
function codeOf(error: unknown): string {
  const { code, message } = error as Error & { code?: string };
  return code ?? (/^Connection terminated|not queryable$/.test(message) ? 'ended' : message);
}

/** What a writer has to know of its node. */
interface Target {
  readonly uri: () => string;
  /** Whether what was done to the cluster accounts for an error. */
  readonly explains: (code: string) => boolean;
  readonly takesWrites: () => Promise<boolean>;
}

/** Keeps inserting, over a new connection where one breaks; what it was told is committed. It ends at an error that nothing explains. */
class Writer {
  readonly acknowledged: number[] = [];
  unexplained: unknown;
  readonly #target: Target;
  readonly #next: () => number;
  #stopped = false;
  #done: Promise<void> | undefined;

  constructor(target: Target, next: () => number) {
    this.#target = target;
    this.#next = next;
  }

  start(): void {
    this.#done = this.#run();
  }

  async #run(): Promise<void> {
    while (!this.#stopped) {
      const client = new pg.Client({ connectionString: this.#target.uri() });
      // Told to the query under way as well; without one, the next query fails.
      client.on('error', () => undefined);
      try {
        await client.connect();
        while (!this.#isStopped) await this.#insert(client);
      } catch (error) {
        if (!this.#target.explains(codeOf(error))) {
          this.unexplained = error;
          return;
        }
        await waitFor('the node takes writes', () => this.#isStopped || this.#target.takesWrites(), {
          ...PATIENCE,
          everyMs: 250,
        });
      } finally {
        // Not waited for: where the connection broke there is no answer to come.
        void client.end();
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
  /** Nodes of which something was killed since the writers began. */
  const killed = new Set<number>();

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

  async function kill(node: number, what: string): Promise<void> {
    killed.add(node);
    await cluster.dev('kill', String(node), what);
  }

  function configure(node: number, commit: object): void {
    const file = join(cluster.dir, `node${node}`, 'pgmm.yaml');
    writeFileSync(file, stringify({ ...(parse(readFileSync(file, 'utf8')) as object), commit }));
  }

  async function restart(node: number): Promise<boolean> {
    killed.add(node);
    return restartProxy(cluster, node);
  }

  async function setOrder(node: number, commit: object): Promise<void> {
    configure(node, commit);
    // Committers that are new are not used where something in progress began before they were there.
    while (!(await restart(node)));
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
      // Where another node is killed, this one's clients notice nothing but a pause.
      const explains = (code: string) => killed.has(node) && OF_A_KILLED_NODE.includes(code);
      const target = {
        uri: () => cluster.node(node).uri,
        explains,
        takesWrites: () => isReady(cluster, node),
      };
      return new Writer(target, () => ++id);
    });
    killed.clear();
    for (const writer of writers) writer.start();
  }

  const unexplained = () => writers.flatMap((writer) => (writer.unexplained === undefined ? [] : [writer.unexplained]));
  const written = () => writers.reduce((sum, { acknowledged }) => sum + acknowledged.length, 0);

  async function more(count: number): Promise<void> {
    const before = written();
    await waitFor(`${count} more commits`, () => written() >= before + count || unexplained().length > 0, PATIENCE);
    expect(unexplained()).toEqual([]);
  }

  /** Every acknowledged row on every node, all nodes alike, nothing left prepared. */
  async function expectAllThere(): Promise<void> {
    await Promise.all(writers.map((writer) => writer.stop()));
    expect(unexplained()).toEqual([]);
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
      await kill(1, what);
      await cluster.dev('start', '1', what);
      await back(1);
      await more(100);
      await expectAllThere();
    }
  });

  it('is a donor for a node that was away, and catches up by itself', { timeout: 300_000 }, async () => {
    await kill(3, 'both');
    write([1, 2]);
    await more(500);
    // Writes go on meanwhile, over a third of the clients: the machine that runs all nodes has to get ahead of them.
    await Promise.all(writers.slice(2).map((writer) => writer.stop()));
    await cluster.dev('start', '3', 'both');
    await back(3);
    await kill(1, 'both');
    await more(100);
    await cluster.dev('start', '1', 'both');
    await back(1);
    await expectAllThere();
  });

  it('commits strictly as long as something is in progress that began before the committers', async () => {
    const older = new pg.Client({ connectionString: cluster.node(3).postgresUri });
    await older.connect();
    await older.query('BEGIN; SELECT pg_current_xact_id()');
    configure(3, { order: 'relaxed', committers: 2 });
    for (let start = 1; start <= 2; start++) {
      expect(await restart(3)).toBe(false);
      write([1, 2, 3]);
      await more(50);
      await expectAllThere();
      expect(await origins(3)).toEqual([]);
    }
    await older.query('ROLLBACK');
    await older.end();
    expect(await restart(3)).toBe(true);
    write([1, 2, 3]);
    await more(50);
    await expectAllThere();
    expect(await origins(3)).toEqual(['0of2', '1of2']);
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
