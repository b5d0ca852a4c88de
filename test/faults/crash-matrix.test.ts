import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { formatReport } from '../../src/cli/verify/report.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { FAULT_POINTS } from '../../src/runtime/fault-points.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';
import { waitFor } from '../support/wait-for.ts';
import { isUnknown } from './operations.ts';

const NODES = [1, 2, 3] as const;
const PATIENCE = { timeoutMs: 90_000 };

/** Whose transaction it is, who dies at the point, and what of that node. */
interface Case {
  readonly point: string;
  readonly coordinator: 'leader' | 'follower';
  readonly dies: 'proxy' | 'postgres';
}

/** Every point, with the proxy dying; where the coordinator also leads; and with PostgreSQL dying, of which PGMM_FAULT_ALL=1 tries all. */
const CASES: Case[] = Object.entries(FAULT_POINTS).flatMap(([role, points]) =>
  points.flatMap((name): Case[] => {
    const point = `${role}.${name}`;
    const all = process.env['PGMM_FAULT_ALL'] !== undefined;
    const proxies: Case[] = [{ point, coordinator: 'follower', dies: 'proxy' }];
    // A leader sends its own proposals nowhere.
    if (role === 'coordinator' && name !== 'proposal.sent' && (all || !name.endsWith('before-send')))
      proxies.push({ point, coordinator: 'leader', dies: 'proxy' });
    const isPostgres = /prepare|replay|commit\.|decision/.test(name);
    if (isPostgres && (all || role !== 'leader')) proxies.push({ point, coordinator: 'follower', dies: 'postgres' });
    return proxies;
  }),
);

describe('a process that dies at a step of the commit protocol', () => {
  let cluster: TestCluster;
  const faults = makeTempDir('faults');
  let next = 0;

  beforeAll(async () => {
    mkdirSync(faults, { recursive: true });
    cluster = await (await startCluster({ relays: false, env: { PGMM_FAULT_DIR: faults } })).ready();
    await query(1, 'CREATE TABLE t (id int PRIMARY KEY)');
  });
  afterAll(async () => {
    await cluster.stop();
    removeTempDir(faults);
  });

  async function connect(node: number, uri = cluster.node(node).uri): Promise<pg.Client> {
    const client = new pg.Client({ connectionString: uri });
    client.on('error', () => undefined);
    await client.connect();
    return client;
  }

  async function query(node: number, sql: string): Promise<void> {
    const client = await connect(node);
    try {
      await client.query(sql);
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  async function leader(): Promise<number> {
    return await waitFor('a leader', async () => {
      const status = (await (await fetch(new URL('/status', cluster.node(1).metrics))).json()) as ClusterStatus;
      return status.leader;
    });
  }

  /** Where the row is, on each node's own PostgreSQL. */
  async function places(id: number): Promise<boolean[]> {
    return await Promise.all(
      NODES.map(async (node) => {
        const client = await connect(node, cluster.node(node).postgresUri);
        const { rows } = await client.query('SELECT 1 FROM t WHERE id = $1', [id]);
        await client.end();
        return rows.length === 1;
      }),
    );
  }

  const isStopped = async (node: number, what: Case['dies']) =>
    (await cluster.status()).nodes.find(({ id }) => id === node)?.[what] === 'stopped';

  it.each(CASES)('$dies dies at $point, the coordinator is a $coordinator', { timeout: 240_000 }, async (one) => {
    for (const node of NODES) await waitFor(`node ${node} takes writes`, () => isReady(cluster, node), PATIENCE);
    const lead = await leader();
    const others = NODES.filter((node) => node !== lead);
    const coordinator = one.coordinator === 'leader' ? lead : others[0];
    const role = one.point.split('.')[0];
    const victim = role === 'coordinator' ? coordinator : role === 'leader' ? lead : others[1];
    const survivor = NODES.find((node) => node !== victim && node !== coordinator) ?? coordinator;

    const client = await connect(coordinator);
    const id = ++next;
    const process = one.dies === 'postgres' ? ` ${cluster.node(victim).pids.postgres}` : '';
    writeFileSync(join(faults, String(victim)), `${one.point}${process}`);
    const answer = client.query(`INSERT INTO t VALUES (${id})`).then(
      () => 'committed',
      (error: unknown) => (isUnknown(error) ? 'unknown' : 'failed'),
    );
    await waitFor(`the ${one.dies} of node ${victim} dies`, () => isStopped(victim, one.dies), PATIENCE);
    await waitFor(
      'the others go on',
      () => query(survivor, `INSERT INTO t VALUES (${++next})`).then(() => true),
      PATIENCE,
    );
    await cluster.dev('start', String(victim), one.dies);
    for (const node of NODES) await waitFor(`node ${node} takes writes`, () => isReady(cluster, node), PATIENCE);

    const told = await answer;
    const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 60_000 });
    expect(report.same ? [] : formatReport(report)).toEqual([]);
    const there = await places(id);
    expect(new Set(there).size).toBe(1);
    if (told !== 'unknown') expect(there[0]).toBe(told === 'committed');
    await client.end().catch(() => undefined);
    rmSync(join(faults, String(victim)), { force: true });
  });
});
