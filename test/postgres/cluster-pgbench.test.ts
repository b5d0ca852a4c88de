import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';

const run = promisify(execFile);
/** Seconds of load per mode; a minute by hand, a few seconds in CI. */
const SECONDS = Number(process.env['PGMM_TEST_SECONDS'] ?? 2);
const NODES = [1, 2, 3];
const MODES = ['simple', 'extended', 'prepared'] as const;

/** What pgbench counts; it exits non-zero when a client gave up on anything but a serialization failure. */
async function pgbench(uri: string, mode: string, ...args: string[]): Promise<{ processed: number; failed: number }> {
  const { stdout } = await run('pgbench', [
    ...['-n', '-M', mode, '-c', '4', '-T', String(SECONDS), '--max-tries', '100'],
    ...args,
    uri,
  ]);
  const number = (pattern: RegExp): number => Number(pattern.exec(stdout)?.[1] ?? Number.NaN);
  return {
    processed: number(/transactions actually processed: (\d+)/),
    failed: number(/failed transactions: (\d+)/),
  };
}

describe('pgbench against every node at once', () => {
  let cluster: TestCluster;

  beforeAll(async () => {
    cluster = await startCluster({ relays: false });
    await cluster.ready();
    await run('pgbench', ['-i', '-q', '-s', '2', cluster.node(1).uri]);
  });

  afterAll(async () => {
    await cluster.stop();
  });

  it.each(MODES)('leaves three equal nodes in mode %s', async (mode) => {
    // TPC-B changes the same branch on all nodes; the simple update hardly ever collides.
    const contended = NODES.map((node) => pgbench(cluster.node(node).uri, mode));
    for (const { processed, failed } of await Promise.all(contended)) {
      expect(processed).toBeGreaterThan(0);
      expect(failed).toBe(0);
    }
    const spread = NODES.map((node) => pgbench(cluster.node(node).uri, mode, '-N'));
    for (const { processed, failed } of await Promise.all(spread)) {
      expect(processed).toBeGreaterThan(0);
      expect(failed).toBe(0);
    }
    const report = await verify(targetsOfPlayground(cluster.dir));
    expect(report.differences).toEqual([]);
    expect(report.databases[0].commits).toBeGreaterThan(0);
  });

  it('keeps the sums that one server would keep', async () => {
    // The simple update changes accounts and history only, and TPC-B all four.
    const sums = await run('psql', [
      ...['-qAtX', '-c'],
      `SELECT (SELECT sum(delta) FROM pgbench_history) = (SELECT sum(abalance) FROM pgbench_accounts),
              (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT sum(tbalance) FROM pgbench_tellers)`,
      cluster.node(3).uri,
    ]);
    expect(sums.stdout.trim()).toBe('t|t');
  });
});
