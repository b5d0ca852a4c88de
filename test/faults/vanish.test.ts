/** Machines that vanish without a word: no FIN, no RST, no ICMP. In network namespaces of the test's own. */
import { execFile } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import pg from 'pg';
import { parse, stringify } from 'yaml';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { PortPlan } from '../../src/cli/dev/ports.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { Cable, namespacesMissing } from '../support/namespaces.ts';
import { waitFor } from '../support/wait-for.ts';

const run = promisify(execFile);
const PATIENCE = { timeoutMs: 120_000, everyMs: 200 };
/** Silence of at most 1 s, then 2 probes, or 3 s for what was sent. */
const KEEPALIVE = { idle: '1s', interval: '1s', count: 2, user_timeout: '3s' };
/** Several times what the settings say, for a slow machine, and much less than the 16 s or two hours of other settings. */
const NOTICED_WITHIN = { timeoutMs: 14_000, everyMs: 50 };

const missing = namespacesMissing();

if (missing !== undefined) {
  describe(`machines that vanish: NOT TESTED, network namespaces need CAP_NET_ADMIN and iproute2 (${missing})`, () => {
    it('cannot lay a cable here', () => expect(missing).toBeTruthy());
  });
} else {
  describe('machines that vanish without a word', () => {
    let cluster: TestCluster;
    let cable: Cable;
    let plan: PortPlan;
    let socket = '';

    const onNode = async (node: number, sql: string): Promise<string> => {
      const args = [
        'psql',
        '-XAtq',
        '-c',
        sql,
        '-h',
        Cable.HERE,
        '-p',
        String(plan.client(node)),
        '-U',
        'postgres',
        'postgres',
      ];
      const [program, ...rest] = [...Cable.on(cable.here), ...args];
      return (await run(program, rest, { timeout: 30_000 })).stdout.trim();
    };
    /** By unix socket, which no network namespace keeps out. */
    const behind = async (node: number, sql: string): Promise<Record<string, unknown>[]> => {
      const client = new pg.Client({ host: socket, port: plan.postgres(node), user: 'postgres', database: 'postgres' });
      await client.connect();
      try {
        return (await client.query<Record<string, unknown>>(sql)).rows;
      } finally {
        await client.end();
      }
    };
    const status = async (node: number): Promise<ClusterStatus> => {
      const url = `http://127.0.0.1:${plan.admin(node)}/status`;
      const script = `fetch('${url}').then(r => r.text()).then(console.log)`;
      const [program, ...rest] = [...Cable.on(cable.here), process.execPath, '-e', script];
      return JSON.parse((await run(program, rest, { timeout: 10_000 })).stdout) as ClusterStatus;
    };
    const stateOf = async (node: number, seenBy: number): Promise<string | undefined> =>
      (await status(seenBy)).nodes.find(({ id }) => id === node)?.state;

    beforeAll(async () => {
      cable = await Cable.lay();
      cluster = await (await startCluster({ relays: false, within: Cable.on(cable.here) })).ready();
      plan = new PortPlan(cluster.firstPort, cluster.nodes);
      const configFile = (node: number) => join(cluster.dir, `node${node}`, 'pgmm.yaml');
      type Nodes = { id: number; peer: { host: string; port: number } }[];
      const forward = (from: number, to: number) => plan.first + 500 + from * 10 + to;
      for (const node of [1, 2, 3]) {
        const config = parse(readFileSync(configFile(node), 'utf8')) as Record<string, object> & { nodes: Nodes };
        socket = (config['postgres'] as { host: string }).host;
        // All that node 3 has to do with the others goes over the other machine, and so does node 2 with its PostgreSQL.
        for (const other of config.nodes)
          if (other.id !== node && (node === 3 || other.id === 3))
            other.peer = { host: Cable.THERE, port: forward(node, other.id) };
        writeFileSync(
          configFile(node),
          stringify({
            ...config,
            listen: { ...config['listen'], host: '0.0.0.0' },
            peer_listen: { ...config['peer_listen'], host: '0.0.0.0' },
            ...(node === 2 && { postgres: { ...config['postgres'], host: Cable.THERE } }),
            keepalive: KEEPALIVE,
          }),
        );
      }
      for (const [from, to] of [
        [1, 3],
        [2, 3],
        [3, 1],
        [3, 2],
      ])
        await cable.forward(forward(from, to), Cable.HERE, String(plan.peer(to)));
      await cable.forward(plan.postgres(2), join(socket, `.s.PGSQL.${plan.postgres(2)}`));
      for (const node of [1, 2, 3]) await cluster.dev('kill', String(node), 'proxy');
      for (const node of [1, 2, 3]) await cluster.dev('start', String(node), 'proxy');
      for (const node of [1, 2, 3])
        await waitFor(`node ${node} takes writes`, async () => (await status(node)).writable, PATIENCE);
      await onNode(
        1,
        'CREATE TABLE account (id int PRIMARY KEY, balance int); INSERT INTO account VALUES (1, 0), (2, 0)',
      );
    });
    afterAll(async () => {
      await cluster.stop();
      await cable.remove();
    });

    it('a client: its transaction is rolled back; a PostgreSQL and a peer: their nodes step out, and come back', async () => {
      const args = ['psql', '-Xq', '-h', Cable.HERE, '-p', String(plan.client(1)), '-U', 'postgres', 'postgres'];
      const client = cable.start(['env', 'PGAPPNAME=lost', ...args], 'pipe');
      client.stdin!.write('BEGIN; UPDATE account SET balance = 1 WHERE id = 1;\n');
      const lost = () =>
        behind(1, "SELECT pid FROM pg_stat_activity WHERE application_name = 'lost' AND state = 'idle in transaction'");
      await waitFor('the client is in its transaction', async () => (await lost()).length === 1, PATIENCE);

      await cable.pull();
      const pulled = performance.now();
      const noticed: Record<string, number> = {};
      const notice = async (what: string, seen: () => Promise<boolean>): Promise<void> => {
        await waitFor(what, seen, NOTICED_WITHIN);
        noticed[what] = Math.round(performance.now() - pulled);
      };
      await Promise.all([
        notice("the client's connection is closed", async () => (await lost()).length === 0),
        notice('the PostgreSQL of node 2 is given up', async () => (await status(2)).postgres.state === 'down'),
        notice('node 3 is excluded', async () => (await stateOf(3, 1)) !== 'member'),
        notice('node 3 sees that it is alone', async () => !(await status(3)).writable),
      ]);
      console.log('noticed after ms:', noticed);
      // One member is no majority of three: node 1 stays alone with node 2, without PostgreSQL, and must refuse.
      await expect(onNode(3, 'UPDATE account SET balance = 3 WHERE id = 2')).rejects.toThrow();

      await cable.plug();
      for (const node of [1, 2, 3])
        await waitFor(`node ${node} is back`, async () => (await status(node)).writable, PATIENCE);
      for (const id of [1, 2, 3])
        await waitFor(`node ${id} is a member`, async () => (await stateOf(id, 1)) === 'member', PATIENCE);
      // What the lost client had locked is free.
      await onNode(2, 'UPDATE account SET balance = balance + 10');
      await waitFor(
        'it is on node 3',
        async () => (await onNode(3, 'SELECT sum(balance) FROM account')) === '20',
        PATIENCE,
      );
    });
  });
}
