import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { PlaygroundDirectory } from '../../src/cli/dev/directory.ts';
import { descendants, isAlive, isStopped, processInfo } from '../../src/cli/dev/processes.ts';
import type { ProcessRef } from '../../src/cli/dev/processes.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { waitFor } from '../support/wait-for.ts';

/** Long enough for an answer to arrive on this machine if one were let through. */
const A_WHILE_MS = 200;

interface ProxyConfig {
  readonly nodes: readonly { readonly id: number; readonly peer: { readonly host: string; readonly port: number } }[];
}

describe('pgmm dev, with stand-ins for the proxies', () => {
  let cluster: TestCluster;
  const sockets: Socket[] = [];

  beforeAll(async () => {
    cluster = await startCluster({ stub: true });
    await cluster.ready();
  });

  afterAll(async () => {
    for (const socket of sockets) socket.destroy();
    await cluster.stop();
  });

  async function query<Row extends pg.QueryResultRow>(uri: string, sql: string): Promise<Row[]> {
    const client = new pg.Client({ connectionString: uri, connectionTimeoutMillis: 2000, query_timeout: 2000 });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return (await client.query<Row>(sql)).rows;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  const answers = (id: number): Promise<boolean> =>
    query(cluster.node(id).uri, 'SELECT 1').then(
      () => true,
      () => false,
    );

  /** A connection from one node to another's peer port, made as the proxy of `from` would; the stand-in repeats what it gets. */
  function peerLink(from: number, to: number): { send(text: string): void; received(): string } {
    const { config } = new PlaygroundDirectory(cluster.dir).node(from);
    const { nodes } = parse(readFileSync(config, 'utf8')) as ProxyConfig;
    const socket = connect(nodes.find(({ id }) => id === to)!.peer);
    sockets.push(socket);
    let text = '';
    socket.on('error', () => (text += '<reset>'));
    socket.on('data', (bytes) => (text += bytes.toString()));
    return { send: (more) => socket.write(more), received: () => text };
  }

  function running(pid: number | null): ProcessRef {
    const info = processInfo(pid!);
    if (info === undefined) throw new Error(`process ${pid} is gone`);
    return { pid: info.pid, started: info.started };
  }

  it('serves on every node, with the settings that a node needs', async () => {
    for (const id of [1, 2, 3]) {
      const [row] = await query(
        cluster.node(id).uri,
        `SELECT current_setting('wal_level') AS wal, current_setting('fsync') AS fsync, current_user AS who,
                current_setting('max_prepared_transactions') AS prepared, current_setting('track_commit_timestamp') AS ts,
                (SELECT datcollate FROM pg_database WHERE datname = 'postgres') AS collate`,
      );
      expect(row).toMatchObject({ wal: 'logical', fsync: 'on', who: 'postgres', prepared: '200', ts: 'on' });
      expect(['C.UTF-8', 'C']).toContain(row.collate);
    }
    expect(cluster.output).toContain('3 nodes are up');
    expect(cluster.output).toContain(`psql ${cluster.node(2).uri}`);
  });

  it('tells what runs', async () => {
    const status = await cluster.status();
    expect(status).toMatchObject({ phase: 'up', pid: cluster.pid, dir: cluster.dir, partition: null });
    expect(status.nodes.map(({ proxy, postgres }) => [proxy, postgres])).toEqual(Array(3).fill(['running', 'running']));
    expect(await cluster.dev('status')).toContain(cluster.node(3).uri);
  });

  it('kills a proxy and starts it again', async () => {
    const before = running(cluster.node(2).pids.proxy);
    expect(await cluster.dev('kill', '2', 'proxy')).toBe("killed node 2's proxy");
    expect(isAlive(before)).toBe(false);
    expect(cluster.node(2).pids.proxy).toBeNull();
    expect(await answers(2)).toBe(false);
    expect(await query(cluster.node(2).postgresUri, 'SELECT 1')).toHaveLength(1);
    await expect(cluster.dev('kill', '2', 'proxy')).rejects.toThrow("can't kill: node 2's proxy is stopped");
    await cluster.dev('start', '2', 'proxy');
    expect(await answers(2)).toBe(true);
    expect(cluster.node(2).pids.proxy).not.toBe(before.pid);
  });

  it('kills PostgreSQL with all its processes, and it recovers what was committed', async () => {
    await query(cluster.node(2).uri, 'CREATE TABLE kept (n int)');
    await query(cluster.node(2).uri, 'INSERT INTO kept VALUES (1)');
    const postmaster = running(cluster.node(2).pids.postgres);
    const all = [postmaster, ...descendants(postmaster.pid)];
    expect(all.length).toBeGreaterThan(4);
    await cluster.dev('kill', '2', 'postgres');
    expect(all.filter(isAlive)).toEqual([]);
    await cluster.dev('start', '2', 'postgres');
    expect(await query(cluster.node(2).uri, 'SELECT n FROM kept')).toEqual([{ n: 1 }]);
    expect(cluster.log(2, 'postgres')).toContain('database system was not properly shut down');
  });

  it('kills and starts a whole node, taking what is already dead for done', async () => {
    await cluster.dev('kill', '3', 'proxy');
    expect(await cluster.dev('kill', '3')).toBe("killed node 3's PostgreSQL");
    expect(cluster.node(3).pids).toEqual({ proxy: null, postgres: null });
    expect(await cluster.dev('start', '3')).toBe("started node 3's PostgreSQL and node 3's proxy");
    expect(await answers(3)).toBe(true);
    await expect(cluster.dev('start', '3')).rejects.toThrow(
      "node 3's PostgreSQL is running, node 3's proxy is running",
    );
  });

  it('pauses and resumes a node, PostgreSQL with all its processes', async () => {
    const { proxy, postgres } = cluster.node(1).pids;
    const all = [running(proxy), running(postgres), ...descendants(postgres!)];
    await cluster.dev('pause', '1');
    expect(all.map(isStopped)).toEqual(all.map(() => true));
    expect((await cluster.status()).nodes[0]).toMatchObject({ proxy: 'paused', postgres: 'paused' });
    expect(await answers(1)).toBe(false);
    await expect(cluster.dev('start', '1')).rejects.toThrow("can't start: node 1's PostgreSQL is paused");
    await cluster.dev('resume', '1');
    expect(all.map(isStopped)).toEqual(all.map(() => false));
    expect(await answers(1)).toBe(true);
    await expect(cluster.dev('resume', '1')).rejects.toThrow("can't resume");
  });

  it('kills what is paused', async () => {
    await cluster.dev('pause', '1', 'postgres');
    await cluster.dev('kill', '1', 'postgres');
    await cluster.dev('start', '1', 'postgres');
    expect(await answers(1)).toBe(true);
  });

  it('partitions: the links between the sides fall silent, the clients of both sides are served', async () => {
    const [across, within] = [peerLink(1, 2), peerLink(2, 3)];
    across.send('a');
    within.send('a');
    await waitFor('both links work', () => across.received() === 'a' && within.received() === 'a');
    expect(await cluster.dev('partition', '1', '2,3')).toBe('cut between 1 | 2,3');
    across.send('b');
    within.send('b');
    const late = peerLink(3, 1);
    late.send('c');
    await waitFor('the link within a side works', () => within.received() === 'ab');
    await sleep(A_WHILE_MS);
    expect([across.received(), late.received()]).toEqual(['a', '']);
    expect(await Promise.all([1, 2, 3].map(answers))).toEqual([true, true, true]);
    expect(await cluster.dev('status')).toContain('partition: 1 | 2,3');
    await cluster.dev('heal');
    await waitFor('what was held back arrives', () => across.received() === 'ab' && late.received() === 'c');
  });

  it('partitions one way: what 1 says to 2 is lost, what 2 says to 1 arrives', async () => {
    const link = peerLink(1, 2);
    link.send('a');
    await waitFor('the link works', () => link.received() === 'a');
    await cluster.dev('partition', '--one-way', '1', '2');
    link.send('b');
    await sleep(A_WHILE_MS);
    expect(link.received()).toBe('a');
    // The other way round the request arrives and only the answer is late.
    await cluster.dev('partition', '--one-way', '2', '1');
    await sleep(A_WHILE_MS);
    expect(link.received()).toBe('a');
    await cluster.dev('heal');
    await waitFor('the answer arrives', () => link.received() === 'ab');
  });

  it('resets connections across a partition, if asked to', async () => {
    const link = peerLink(1, 2);
    link.send('a');
    await waitFor('the link works', () => link.received() === 'a');
    await cluster.dev('partition', '--reset', '1', '2,3');
    await waitFor('it is reset', () => link.received() === 'a<reset>');
    await cluster.dev('heal');
  });

  it.each([
    [['kill', '4'], 'there is no node 4; the nodes are 1, 2, 3'],
    [['kill', 'two'], 'it must be a whole number'],
    [['kill', '1', 'disk'], 'it must be one of proxy, postgres, both'],
    [['partition', '1'], 'at least two groups'],
    [['partition', '1', '2;3'], '"2;3" is not a list of node numbers'],
    [['partition', '1', '7'], 'there is no node 7'],
  ])('refuses %j', async (args, message) => {
    await expect(cluster.dev(...args)).rejects.toThrow(message);
  });

  it('refuses a second playground in the same directory', async () => {
    const second = await startCluster({ stub: true, dir: cluster.dir });
    expect(await second.ended()).toBe(1);
    expect(second.output).toContain(`a playground is running in ${cluster.dir} already (process ${cluster.pid})`);
    expect(await answers(1)).toBe(true);
  });

  it('says so when a process dies by itself, and keeps the rest', async () => {
    const { proxy } = cluster.node(3).pids;
    process.kill(proxy!, 'SIGKILL');
    await waitFor('it is told', () => cluster.output.includes("node 3's proxy ended unexpectedly (signal SIGKILL)"));
    expect(cluster.output).toContain('node 3: ready');
    await waitFor('it is published', () => cluster.node(3).pids.proxy === null);
    expect(await Promise.all([1, 2, 3].map(answers))).toEqual([true, true, false]);
    await cluster.dev('start', '3');
    expect(await answers(3)).toBe(true);
  });

  it('starts PostgreSQL again after it died by itself', async () => {
    process.kill(cluster.node(2).pids.postgres!, 'SIGKILL');
    await waitFor('it is published', () => cluster.node(2).pids.postgres === null);
    await cluster.dev('start', '2', 'postgres');
    expect(await query(cluster.node(2).uri, 'SELECT n FROM kept')).toEqual([{ n: 1 }]);
  });
});
