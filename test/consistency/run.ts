import { randomUUID } from 'node:crypto';
import pg from 'pg';
import { Rng } from '../sim/rng.ts';
import { waitFor } from '../support/wait-for.ts';
import { countKinds } from './checker/check.ts';
import { settleDoubts, type Settled } from './doubts.ts';
import type { Level } from './levels.ts';
import { Session, type Target } from './session.ts';
import type { Finding, Workload, WorkloadKind } from './workloads/workload.ts';

export interface RunOptions {
  readonly level: Level;
  readonly seed: number;
  readonly seconds: number;
  /** Of each workload, spread over the nodes. */
  readonly sessions?: number;
  /** Whether clients lose their connections in the middle of a COMMIT now and then. */
  readonly losses?: boolean;
  /** What else happens meanwhile; sessions go on until it is over. */
  readonly during?: () => Promise<void>;
}

export interface RunResult {
  readonly name: string;
  /** Figures for people. */
  readonly line: string;
  readonly forbidden: readonly Finding[];
  readonly transactions: number;
  /** How many of unknown outcome were asked for afterwards, by the answer. */
  readonly settled: Pick<Settled, 'committed' | 'aborted'>;
  /** What is wrong when the nodes are looked at once more. */
  readonly again: (nodes: readonly pg.Client[]) => Promise<readonly Finding[]>;
}

interface Running {
  readonly kind: WorkloadKind;
  readonly workload: Workload;
  readonly sessions: readonly Session[];
}

/** Runs a workload on fresh tables; what it found that the level forbids, and a line of figures. */
export async function runWorkload(target: Target, kind: WorkloadKind, options: RunOptions): Promise<RunResult> {
  return (await runWorkloads(target, [kind], options))[0];
}

/** Runs them at the same time, on tables of their own. */
export async function runWorkloads(
  target: Target,
  kinds: readonly WorkloadKind[],
  options: RunOptions,
): Promise<RunResult[]> {
  await prepare(target, kinds);
  const running = kinds.map((kind) => start(target, kind, options));
  await work(running, options);
  const nodes = await Promise.all(target.uris().map(connect));
  await fence(nodes);
  const results = [];
  for (const one of running) results.push(await finish(one, nodes, target, options));
  await Promise.all(nodes.map((node) => node.end()));
  return results;
}

function start(target: Target, kind: WorkloadKind, { level, seed, losses, sessions = 6 }: RunOptions): Running {
  const nodes = target.uris().length;
  const session = (_: unknown, i: number) =>
    new Session(target, {
      node: 1 + (i % nodes),
      level,
      remoteApply: kind.remoteApply === true,
      losses: losses === true ? new Rng(seed * 1000 + i) : undefined,
    });
  return { kind, workload: kind.create(), sessions: Array.from({ length: sessions }, session) };
}

async function work(running: readonly Running[], { seed, seconds, during }: RunOptions): Promise<void> {
  const until = performance.now() + seconds * 1000;
  let over = during === undefined;
  const all = running.flatMap(({ workload, sessions }, which) =>
    sessions.map(async (session, i) => {
      const rng = new Rng(seed * 1000 + which * 100 + i);
      while (!over || performance.now() < until) await workload.step(session, rng);
      await session.end();
    }),
  );
  try {
    await during?.();
  } finally {
    over = true;
    await Promise.all(all);
  }
}

async function finish(
  { kind, workload, sessions }: Running,
  nodes: readonly pg.Client[],
  target: Target,
  { level, seed }: RunOptions,
): Promise<RunResult> {
  const sum = (of: (session: Session) => number) => sessions.reduce((total, one) => total + of(one), 0);
  const settled = await settleDoubts(
    nodes,
    sessions.flatMap(({ doubts }) => doubts),
  );
  const { reads, findings } = await workload.finish(nodes);
  const transactions = sum((one) => one.transactions);
  const unknown = sum((one) => one.unknown);
  const failures: Record<string, number> = {};
  for (const one of sessions)
    for (const [code, n] of Object.entries(one.failures)) failures[code] = (failures[code] ?? 0) + n;
  const forbids = (finding: Finding) => kind.forbids(finding.kind, level, target.order);
  return {
    name: kind.name,
    transactions,
    settled,
    line:
      `${kind.name}, ${level}, ${target.name}, seed ${seed}: ${transactions} committed, ${reads} reads, ` +
      (unknown === 0
        ? ''
        : `${unknown} unknown (${settled.committed} committed, ${settled.aborted} aborted as asked), `) +
      `failures ${JSON.stringify(failures)}, anomalies ${JSON.stringify(countKinds(findings))}`,
    forbidden: [...settled.findings, ...findings.filter(forbids)],
    again: async (clients) => (await workload.finish(clients)).findings.filter(forbids),
  };
}

async function prepare(target: Target, kinds: readonly WorkloadKind[]): Promise<void> {
  const client = await connect(target.uris()[0]);
  await client.query('SET synchronous_commit = remote_apply');
  for (const { schema } of kinds) {
    for (const sql of schema) {
      const table = /^CREATE TABLE (\w+) \(/.exec(sql)?.[1];
      if (table !== undefined) await client.query(`DROP TABLE IF EXISTS ${table} CASCADE`);
    }
    for (const sql of schema) await client.query(sql);
  }
  await client.end();
}

/** A write comes after all that was decided before: a node that shows it to a strict read has all of that, without gaps. */
async function fence(nodes: readonly pg.Client[]): Promise<void> {
  const run = randomUUID();
  await nodes[0].query('CREATE TABLE IF NOT EXISTS fence (run text)');
  await nodes[0].query('INSERT INTO fence VALUES ($1)', [run]);
  for (const node of nodes) await node.query('SET multimaster.read_level = strict');
  for (const [i, node] of nodes.entries())
    await waitFor(
      `node ${i + 1} has all that was decided`,
      async () => (await node.query('SELECT FROM fence WHERE run = $1', [run])).rowCount,
      { timeoutMs: 60_000 },
    );
}

async function connect(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return client;
}
