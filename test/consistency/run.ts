import pg from 'pg';
import { Rng } from '../sim/rng.ts';
import { countKinds } from './checker/check.ts';
import type { Level } from './levels.ts';
import { Session, type Target } from './session.ts';
import type { Finding, WorkloadKind } from './workloads/workload.ts';

const SESSIONS = 6;

export interface RunOptions {
  readonly level: Level;
  readonly seed: number;
  readonly seconds: number;
  /** What else happens meanwhile; sessions go on until it is over. */
  readonly during?: () => Promise<void>;
}

export interface RunResult {
  readonly line: string;
  readonly forbidden: readonly Finding[];
  readonly transactions: number;
}

/** Runs a workload on fresh tables; what it found that the level forbids, and a line of figures. */
export async function runWorkload(target: Target, kind: WorkloadKind, options: RunOptions): Promise<RunResult> {
  const { level, seed, seconds } = options;
  await prepare(target, kind);
  const workload = kind.create();
  const nodes = target.uris().length;
  const sessions = Array.from(
    { length: SESSIONS },
    (_, i) => new Session(target, 1 + (i % nodes), level, kind.remoteApply === true),
  );
  const until = performance.now() + seconds * 1000;
  let over = options.during === undefined;
  const work = sessions.map(async (session, i) => {
    const rng = new Rng(seed * 1000 + i);
    while (!over || performance.now() < until) await workload.step(session, rng);
    await session.end();
  });
  try {
    await options.during?.();
  } finally {
    over = true;
    await Promise.all(work);
  }
  await fence(target);
  const clients = await Promise.all(target.uris().map(connect));
  const { reads, findings } = await workload.finish(clients);
  await Promise.all(clients.map((client) => client.end()));
  const transactions = sessions.reduce((sum, one) => sum + one.transactions, 0);
  const failures: Record<string, number> = {};
  for (const one of sessions)
    for (const [code, n] of Object.entries(one.failures)) failures[code] = (failures[code] ?? 0) + n;
  return {
    transactions,
    line:
      `${kind.name}, ${level}, ${target.name}, seed ${seed}: ${transactions} committed, ${reads} reads, ` +
      `failures ${JSON.stringify(failures)}, anomalies ${JSON.stringify(countKinds(findings))}`,
    forbidden: findings.filter((finding) => kind.forbids(finding.kind, level)),
  };
}

async function prepare(target: Target, { schema }: WorkloadKind): Promise<void> {
  const client = await connect(target.uris()[0]);
  await client.query('SET synchronous_commit = remote_apply');
  for (const sql of schema) {
    const table = /^CREATE TABLE (\w+) \(/.exec(sql)?.[1];
    if (table !== undefined) await client.query(`DROP TABLE IF EXISTS ${table} CASCADE`);
  }
  for (const sql of schema) await client.query(sql);
  await client.end();
}

/** A write that every node shows comes after all that was decided before: then every node has that as well. */
async function fence(target: Target): Promise<void> {
  const client = await connect(target.uris()[0]);
  await client.query('SET synchronous_commit = remote_apply');
  await client.query('CREATE TABLE IF NOT EXISTS fence (at timestamptz)');
  await client.query('INSERT INTO fence VALUES (now())');
  await client.end();
}

async function connect(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  return client;
}
