import { CpuSnapshot } from './cpu.ts';
import { means, readSums } from './histograms.ts';
import type { Sums } from './histograms.ts';
import { latency } from './latency.ts';
import type { Latency } from './latency.ts';
import type { Pgbench, PgbenchRun } from './pgbench.ts';
import type { Target } from './targets.ts';

/** Which nodes the clients connect to. */
type Placement = 'one' | 'spread';

/** Processor time per committed transaction in microseconds, all nodes together. */
interface CpuPerTransaction {
  readonly postgres: number;
  readonly proxies: number;
  readonly pgbench: number;
}

/** One run of pgbench, or of one per node at the same time. */
export interface Measurement {
  readonly tps: number;
  readonly transactions: number;
  readonly failed: number;
  readonly retried: number;
  readonly latency: Latency | undefined;
  readonly cpu: CpuPerTransaction | undefined;
  /** Mean milliseconds by phase, and of the decision log's fsync; empty for plain PostgreSQL. */
  readonly phases: Readonly<Record<string, number>>;
  readonly errors: readonly string[];
}

export interface MeasureOptions extends Omit<PgbenchRun, 'port'> {
  readonly placement: Placement;
}

/** So many clients for each port, as even as can be; ports without a client are left out. */
export function share(clients: number, ports: readonly number[]): { port: number; clients: number }[] {
  return ports
    .map((port, index) => ({
      port,
      clients: Math.floor(clients / ports.length) + (index < clients % ports.length ? 1 : 0),
    }))
    .filter((part) => part.clients > 0);
}

export async function measure(target: Target, pgbench: Pgbench, options: MeasureOptions): Promise<Measurement> {
  const parts = share(options.clients, options.placement === 'one' ? target.ports.slice(0, 1) : target.ports);
  const sumsBefore = await readAll(target);
  const cpuBefore = CpuSnapshot.take();
  const results = await Promise.all(parts.map((part) => pgbench.measure({ ...options, ...part })));
  const cpuAfter = CpuSnapshot.take();
  const sumsAfter = await readAll(target);
  await target.drain();
  const total = (value: (result: (typeof results)[number]) => number): number =>
    results.reduce((sum, result) => sum + value(result), 0);
  const transactions = total((result) => result.transactions);
  return {
    tps: total((result) => result.tps),
    transactions,
    failed: total((result) => result.failed),
    retried: total((result) => result.retried),
    latency: latency(results.flatMap((result) => result.times)),
    cpu: cpuPerTransaction(target, cpuBefore, cpuAfter, transactions),
    phases: means(sumsBefore, sumsAfter),
    errors: results.flatMap((result) => result.errors),
  };
}

async function readAll(target: Target): Promise<Sums[]> {
  return (await target.metrics()).map(readSums);
}

function cpuPerTransaction(
  target: Target,
  before: CpuSnapshot | undefined,
  after: CpuSnapshot | undefined,
  transactions: number,
): CpuPerTransaction | undefined {
  if (before === undefined || after === undefined || transactions === 0) return undefined;
  const per = (seconds: (snapshot: CpuSnapshot) => number): number =>
    (1e6 * (seconds(after) - seconds(before))) / transactions;
  return {
    postgres: per((snapshot) => snapshot.family(target.postgres)),
    proxies: per((snapshot) => snapshot.family(target.proxies)),
    pgbench: per((snapshot) => snapshot.endedChildren()),
  };
}
