import { spawn, type ChildProcess } from 'node:child_process';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { parse, stringify } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { freePort } from '../support/free-ports.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 90_000 };
const HOST = '127.0.0.1';

interface FileConfig {
  readonly cluster: unknown;
  readonly nodes: readonly Record<string, unknown>[];
}

describe('two nodes and a witness', () => {
  let cluster: TestCluster;
  let witness: ChildProcess | undefined;
  let file = '';
  let admin = 0;
  let next = 0;

  const configOf = (node: number) => join(cluster.dir, `node${node}`, 'pgmm.yaml');
  const readConfig = (node: number) => parse(readFileSync(configOf(node), 'utf8')) as FileConfig;

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false, nodes: 2 })).ready();
    for (const node of ['1', '2']) await cluster.dev('kill', node, 'proxy');
    const peer = { host: HOST, port: await freePort() };
    admin = await freePort();
    const nodes = [...readConfig(1).nodes, { id: 3, peer, witness: true }];
    for (const node of [1, 2]) writeFileSync(configOf(node), stringify({ ...readConfig(node), nodes }));
    const dir = join(cluster.dir, 'witness');
    mkdirSync(dir);
    file = join(dir, 'pgmm.yaml');
    const { cluster: secret } = readConfig(1);
    const own = {
      node: 3,
      cluster: secret,
      data_dir: dir,
      peer_listen: peer,
      admin: { host: HOST, port: admin },
      nodes,
    };
    writeFileSync(file, stringify(own));
    startWitness();
    for (const node of ['1', '2']) await cluster.dev('start', node, 'proxy');
    for (const node of [1, 2]) await back(node);
    await write(1, 'CREATE TABLE t (id int PRIMARY KEY)');
  });
  afterAll(async () => {
    await endWitness('SIGTERM');
    await cluster.stop();
  });

  function startWitness(): void {
    witness = spawn(process.execPath, ['dist/main.js', 'run', '--config', file], { stdio: 'ignore' });
  }

  async function endWitness(signal: NodeJS.Signals): Promise<void> {
    const ended = new Promise((resolve) => witness?.once('exit', resolve));
    witness?.kill(signal);
    await ended;
  }

  async function write(node: number, sql = `INSERT INTO t VALUES (${++next})`): Promise<true> {
    const client = new pg.Client({ connectionString: cluster.node(node).uri });
    await client.connect();
    try {
      await client.query(sql);
      return true;
    } finally {
      await client.end();
    }
  }

  const back = (node: number) => waitFor(`node ${node} takes writes`, () => isReady(cluster, node), PATIENCE);
  const status = async (): Promise<ClusterStatus> =>
    (await (await fetch(`http://${HOST}:${admin}/status`)).json()) as ClusterStatus;

  it('lets one of two go on alone, and hands the lead to a node that holds data', { timeout: 300_000 }, async () => {
    await waitFor('a node with data leads', async () => [1, 2].includes((await status()).leader ?? 0), PATIENCE);
    for (const node of [2, 1]) {
      const other = node === 1 ? 2 : 1;
      await cluster.dev('kill', String(node), 'both');
      await waitFor(`node ${other} goes on`, () => write(other), PATIENCE);
      await cluster.dev('start', String(node), 'both');
      await back(node);
      await write(node);
    }
    const { nodes, reasons } = await status();
    expect(nodes.map(({ id, state }) => [id, state])).toEqual([
      [1, 'member'],
      [2, 'member'],
    ]);
    expect(reasons[0]).toContain('witness');
  });

  it('is not needed while both are there, and without it one alone refuses', { timeout: 300_000 }, async () => {
    await endWitness('SIGKILL');
    await waitFor('writes go on', () => write(1), PATIENCE);
    await write(2);
    await cluster.dev('kill', '2', 'both');
    await waitFor('node 1 notices', async () => !(await isReady(cluster, 1)), PATIENCE);
    await expect(write(1)).rejects.toMatchObject({ code: '57P03' });
    startWitness();
    await waitFor('the witness brings the majority back', () => write(1), PATIENCE);
    await cluster.dev('start', '2', 'both');
    await back(2);
    await write(2);
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
  });
});
