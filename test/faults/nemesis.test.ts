import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { formatReport } from '../../src/cli/verify/report.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { Rng } from '../sim/rng.ts';
import { isReady } from '../support/ready.ts';
import { waitFor } from '../support/wait-for.ts';
import { contradictions, type Marks } from './checks.ts';
import { FaultClient, FaultReader } from './clients.ts';
import { later, Nemesis, type Fault } from './nemesis.ts';
import { MARKS, SCHEMA } from './operations.ts';

/** Which faults come, and in what order: PGMM_FAULT_SEED tries others, PGMM_FAULT_ROUNDS more of them. */
const SEED = Number(process.env['PGMM_FAULT_SEED'] ?? 1);
const ROUNDS = Number(process.env['PGMM_FAULT_ROUNDS'] ?? 8);
const CLIENTS_PER_NODE = 2;
/** How long the cluster may take to be whole again after a fault, on a slow machine. */
const HEAL_TIMEOUT = 120_000;

describe(`a cluster under faults, seed ${SEED}`, () => {
  let cluster: TestCluster;
  let ids = 0;

  beforeAll(async () => {
    cluster = await (await startCluster()).ready();
    const client = new pg.Client({ connectionString: cluster.node(1).uri });
    await client.connect();
    for (const sql of SCHEMA) await client.query(sql);
    await client.end();
  });
  afterAll(() => cluster.stop());

  const nodes = (): number[] => [1, 2, 3];
  const target = (node: number) => ({ node, uri: () => cluster.node(node).uri });

  it(
    'loses nothing, invents nothing, and ends the same everywhere',
    { timeout: 120_000 + ROUNDS * 150_000 },
    async () => {
      const clients = nodes().flatMap((node) =>
        Array.from(
          { length: CLIENTS_PER_NODE },
          () => new FaultClient(target(node), new Rng(++ids + SEED), () => ++ids),
        ),
      );
      const readers = nodes().map((node) => new FaultReader(target(node)));
      for (const one of [...clients, ...readers]) one.start();
      // Of its own, so that the seed alone says which faults come.
      const rng = new Rng(SEED);
      const nemesis = new Nemesis(cluster, rng);
      const outages = new Map<string, number>();

      for (let round = 1; round <= ROUNDS; round++) {
        const fault = nemesis.draw();
        const begun = performance.now();
        await fault.begin();
        await later(rng.between(500, 4500));
        await fault.end();
        await waitFor(`all nodes take writes after "${fault.kind}"`, allReady, {
          timeoutMs: HEAL_TIMEOUT,
          describe: states,
        });
        const outage = longestGap(clients, fault, begun, performance.now());
        outages.set(fault.kind, Math.max(outages.get(fault.kind) ?? 0, outage));
        console.log(
          `${round}: ${fault.kind}, node ${fault.nodes.join(',')}: others without a commit for ${Math.round(outage)} ms`,
        );
      }

      const before = clients.map(({ acknowledged }) => acknowledged.length);
      await waitFor('every client writes again', () => clients.every((one, i) => one.acknowledged.length > before[i]), {
        timeoutMs: HEAL_TIMEOUT,
      });
      for (const one of [...clients, ...readers]) await one.stop();

      const operations = clients.flatMap((one) => one.operations);
      const count = (answer: string) => operations.filter((one) => one.answer === answer).length;
      const failures = new Map<string, number>();
      for (const one of clients)
        for (const [code, n] of one.failures) failures.set(code, (failures.get(code) ?? 0) + n);
      console.log(
        `${operations.length} operations: ${count('committed')} committed, ${count('failed')} failed, ${count('unknown')} unknown`,
        `(${[...failures].map(([code, n]) => `${code} ${n}`).join(', ')}); ${readers.reduce((sum, r) => sum + r.reads, 0)} reads`,
      );
      console.log(
        'longest outage by kind, ms:',
        Object.fromEntries([...outages].map(([kind, ms]) => [kind, Math.round(ms)])),
      );

      expect(readers.flatMap(({ wrong }) => wrong)).toEqual([]);
      const report = await verify(targetsOfPlayground(cluster.dir), { waitMs: 60_000 });
      expect(report.same ? [] : formatReport(report)).toEqual([]);
      for (const node of nodes()) expect(contradictions(operations, await marks(node))).toEqual([]);
      for (const node of nodes()) {
        const log = readFileSync(join(cluster.dir, `node${node}`, 'proxy.log'), 'utf8');
        expect(log.split('\n').filter((line) => line.includes('an old copy was restored'))).toEqual([]);
      }
      expect(count('committed')).toBeGreaterThan(0);
    },
  );

  const allReady = async (): Promise<boolean> =>
    (await Promise.all(nodes().map((node) => isReady(cluster, node)))).every(Boolean);

  async function states(): Promise<unknown> {
    return await Promise.all(
      nodes().map(async (node) => {
        const response = await fetch(new URL('/readyz', cluster.node(node).metrics)).catch((error: unknown) =>
          String(error),
        );
        return typeof response === 'string' ? response : await response.text();
      }),
    );
  }

  async function marks(node: number): Promise<Marks> {
    const client = new pg.Client({ connectionString: cluster.node(node).postgresUri });
    await client.connect();
    const read = async (sql: string) => (await client.query<{ id: number }>(sql)).rows.map(({ id }) => id);
    const found = {
      transfer: await read(MARKS.transfer),
      append: await read(MARKS.append),
      insert: await read(MARKS.insert),
    };
    await client.end();
    return found;
  }
});

/** The longest time between two acknowledged writes at any of the nodes that the fault leaves alone. */
function longestGap(clients: readonly FaultClient[], { nodes }: Fault, begun: number, ended: number): number {
  const times = clients
    .filter(({ node }) => nodes.length === 3 || !nodes.includes(node))
    .flatMap(({ acknowledged }) => acknowledged.filter((at) => at > begun && at <= ended))
    .sort((a, b) => a - b);
  let longest = 0;
  let last = begun;
  for (const at of [...times, ended]) {
    longest = Math.max(longest, at - last);
    last = at;
  }
  return longest;
}
