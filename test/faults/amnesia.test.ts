import { execFile } from 'node:child_process';
import { readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import { adopt, copyDirectory, dataOf, replaceData } from '../support/data-copy.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';

const run = promisify(execFile);
const PATIENCE = { timeoutMs: 90_000 };

describe('a node whose memory is not its own', () => {
  let cluster: TestCluster;
  let next = 0;

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false })).ready();
    await query(1, 'CREATE TABLE t (id int PRIMARY KEY)');
  });
  afterAll(() => cluster.stop());

  async function query(node: number, sql: string): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({ connectionString: cluster.node(node).uri });
    await client.connect();
    try {
      return (await client.query<Record<string, unknown>>(sql)).rows;
    } finally {
      await client.end();
    }
  }

  const write = (node: number) => query(node, `INSERT INTO t VALUES (${++next})`);
  const data = (node: number) => dataOf(cluster, node);
  const own = (node: number) => join(cluster.dir, `node${node}`, 'pgmm');
  const back = (node: number) => waitFor(`node ${node} is back`, () => isReady(cluster, node), PATIENCE);

  async function stop(node: number): Promise<void> {
    await cluster.dev('kill', String(node), 'both');
    await waitFor('the others go on', () => write(1).then(() => true), PATIENCE);
  }

  /** Starts it, and gives the reason for which it takes no part. */
  async function refusedWith(node: number, code: string): Promise<void> {
    await cluster.dev('start', String(node), 'both');
    const reason = async () => {
      const response = await fetch(new URL('/readyz', cluster.node(node).metrics));
      return (await response.text()).includes(`docs/identity.md: ${code}`);
    };
    await waitFor(`node ${node} is refused for ${code}`, reason, PATIENCE);
    await write(1);
    await expect(write(node)).rejects.toMatchObject({ code: '57P03' });
  }

  async function expectSame(): Promise<void> {
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 30_000 });
    expect(report.differences).toEqual([]);
  }

  it(
    'is refused with an old data directory, and taken back with the one that it had',
    { timeout: 180_000 },
    async () => {
      await cluster.dev('kill', '3', 'both');
      await copyDirectory(data(3), `${data(3)}.old`);
      await cluster.dev('start', '3', 'both');
      await back(3);
      for (let i = 0; i < 3; i++) await write(3);
      // Noted down once a second.
      await waitFor('the commits are noted down', () => identityHas(3), PATIENCE);
      await stop(3);
      renameSync(data(3), `${data(3)}.new`);
      await copyDirectory(`${data(3)}.old`, data(3));
      await refusedWith(3, 'went-back');
      await stop(3);
      rmSync(data(3), { recursive: true });
      renameSync(`${data(3)}.new`, data(3));
      await cluster.dev('start', '3', 'both');
      await back(3);
      await expectSame();
    },
  );

  /** Whether the node has noted down that its PostgreSQL has what all have committed. */
  async function identityHas(node: number): Promise<boolean> {
    const identity = JSON.parse(readFileSync(join(own(node), 'identity.json'), 'utf8')) as {
      postgres: { committed: number };
    };
    const { rows } = await direct(
      node,
      `SELECT max(pg_replication_origin_progress(roname, true)) - '0/0' AS n FROM pg_replication_origin WHERE roname LIKE 'pgmm_commit%'`,
    );
    return identity.postgres.committed >= Number(rows[0].n);
  }

  async function direct(node: number, sql: string): Promise<pg.QueryResult<Record<string, unknown>>> {
    const client = new pg.Client({ connectionString: cluster.node(node).postgresUri });
    await client.connect();
    try {
      return await client.query<Record<string, unknown>>(sql);
    } finally {
      await client.end();
    }
  }

  it(
    "is refused with another node's data, and taken in once an operator says that it is a copy",
    { timeout: 180_000 },
    async () => {
      await stop(3);
      await cluster.dev('kill', '2', 'both');
      await replaceData(cluster, 3, 2);
      await cluster.dev('start', '2', 'both');
      await back(2);
      await refusedWith(3, 'other-node');
      await cluster.dev('kill', '3', 'proxy');
      expect(await adopt(cluster, 3)).toContain('a copy of node 2');
      await cluster.dev('start', '3', 'proxy');
      await back(3);
      await write(3);
      await expectSame();
    },
  );

  it('does not vote without its log, until an operator says that it may', { timeout: 180_000 }, async () => {
    await stop(3);
    rmSync(join(own(3), 'raft'), { recursive: true });
    await refusedWith(3, 'log-lost');
    await stop(3);
    for (const name of readdirSync(own(3))) rmSync(join(own(3), name), { recursive: true });
    await refusedWith(3, 'log-lost');
    await cluster.dev('kill', '3', 'proxy');
    await expect(adopt(cluster, 3)).rejects.toThrow('--lost-log');
    await adopt(cluster, 3, '--lost-log');
    await cluster.dev('start', '3', 'proxy');
    await back(3);
    await write(3);
    await expectSame();
  });

  it('is refused by the others when all that it has went back together', { timeout: 180_000 }, async () => {
    await cluster.dev('kill', '3', 'both');
    await copyDirectory(data(3), `${data(3)}.old`);
    await copyDirectory(own(3), `${own(3)}.old`);
    await cluster.dev('start', '3', 'both');
    await back(3);
    for (let i = 0; i < 3; i++) await write(3);
    // Beyond the end of the copied log, which has more than was noted down of it.
    const decided = await committedBy(1);
    const remember = (node: number) => (notes(own(node)).peers?.[3]?.decided ?? 0) >= decided;
    await waitFor('the others have noted it down', () => remember(1) && remember(2), PATIENCE);
    await stop(3);
    for (const path of [data(3), own(3)]) {
      rmSync(path, { recursive: true });
      renameSync(`${path}.old`, path);
    }
    await refusedWith(3, 'log-lost');
    expect(notes(own(3)).decided).toBeGreaterThanOrEqual(decided);
    await cluster.dev('kill', '3', 'proxy');
    await adopt(cluster, 3, '--lost-log');
    await cluster.dev('start', '3', 'proxy');
    await back(3);
    await write(3);
    await expectSame();
  });

  interface Notes {
    readonly decided: number;
    readonly peers?: Record<number, { readonly decided: number }>;
  }
  const notes = (directory: string): Notes =>
    JSON.parse(readFileSync(join(directory, 'identity.json'), 'utf8')) as Notes;

  /** The last entry that a node knows to be decided. */
  async function committedBy(node: number): Promise<number> {
    const response = await fetch(new URL('/status', cluster.node(node).metrics));
    return ((await response.json()) as ClusterStatus).log.committed;
  }

  it('is refused as a standby, and once it was promoted', { timeout: 180_000 }, async () => {
    await stop(3);
    writeFileSync(join(data(3), 'standby.signal'), '');
    await run('chown', ['--reference', data(3), join(data(3), 'standby.signal')]);
    await refusedWith(3, 'standby');
    await direct(3, 'SELECT pg_promote()');
    const promoted = async () => {
      const response = await fetch(new URL('/readyz', cluster.node(3).metrics));
      return (await response.text()).includes('docs/identity.md: other-timeline');
    };
    await waitFor('node 3 is refused for its timeline', promoted, PATIENCE);
    await cluster.dev('kill', '3', 'proxy');
    await adopt(cluster, 3);
    await cluster.dev('start', '3', 'proxy');
    await back(3);
    await expectSame();
  });
});
