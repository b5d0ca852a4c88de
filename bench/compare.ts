import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { conditions } from './conditions.ts';
import { CpuSnapshot } from './cpu.ts';
import { Interrupts } from './interrupts.ts';
import { measure } from './measure.ts';
import type { Measurement } from './measure.ts';
import { BenchError, Pgbench } from './pgbench.ts';
import { markdownReport, ratioToPlain, replaceBetweenMarks, SERIES, textReport } from './report.ts';
import type { Report, Result, Series } from './report.ts';
import { load, startPlain, startProxies } from './targets.ts';
import type { Target } from './targets.ts';
import { workload } from './workloads.ts';
import type { WorkloadName } from './workloads.ts';

export interface CompareOptions {
  readonly workloads: readonly WorkloadName[];
  readonly clients: readonly number[];
  readonly seconds: number;
  readonly repeats: number;
  readonly scale: number;
  readonly nodes: number;
  readonly maxTries: number;
  /** Seconds of work for both sides before anything is measured: the proxies' code is compiled as it is used. */
  readonly warmUp: number;
  readonly pgbench?: string;
  readonly postgresBin?: string;
  readonly json?: string;
  readonly markdown?: string;
}

interface Targets {
  readonly plain: Target;
  readonly cluster: Target;
}

/** Before each workload, for caches and plans. */
const WARM_UP_SECONDS = 1;
/** Enough to have every node busy at once. */
const WARM_UP_CLIENTS = 24;
const IDLE_SECONDS = 2;

/** Everything from the first server to the last line. */
export async function compare(options: CompareOptions): Promise<void> {
  const pgbench = await Pgbench.find(options.pgbench);
  const { nodes, scale, seconds, repeats, postgresBin } = options;
  const started: Target[] = [];
  const interrupts = new Interrupts();
  try {
    const plain = await startPlain({ postgresBin });
    started.push(plain);
    const on = conditions(plain.version, pgbench.version);
    const cluster = await startProxies({ nodes, postgresBin });
    started.push(cluster);
    for (const target of started) {
      console.log(`loading ${scale * 100_000} rows into ${target.name === 'plain' ? 'PostgreSQL' : 'the cluster'}`);
      await load(target, pgbench, scale);
      interrupts.check();
    }
    await warmUp(started, pgbench, options, interrupts);
    const idle = await idleCpu(cluster);
    const results: Result[] = [];
    try {
      await measureAll({ plain, cluster }, pgbench, options, interrupts, results);
    } finally {
      // What was measured before a failure is told all the same.
      if (results.length > 0)
        tell({ conditions: on, settings: { nodes, scale, seconds, repeats }, idle, results }, options);
    }
  } finally {
    await Promise.all(started.map((target) => target.stop()));
    interrupts.end();
  }
}

async function measureAll(
  targets: Targets,
  pgbench: Pgbench,
  options: CompareOptions,
  interrupts: Interrupts,
  results: Result[],
): Promise<void> {
  for (const name of options.workloads) {
    for (const clients of options.clients) {
      const result = await measureOne(targets, pgbench, { ...options, name, clients }, interrupts);
      results.push(result);
      const ratios = (['one', 'spread'] as const).map((series) => ratioToPlain(result, series)?.toFixed(2) ?? '–');
      console.log(`${name}, ${clients} clients: ratio ${ratios[0]} on one node, ${ratios[1]} on all`);
    }
  }
}

async function warmUp(
  targets: readonly Target[],
  pgbench: Pgbench,
  { warmUp: seconds, scale, maxTries }: CompareOptions,
  interrupts: Interrupts,
): Promise<void> {
  console.log('warming up');
  const run = { placement: 'spread', clients: WARM_UP_CLIENTS, seconds, scale, maxTries } as const;
  for (const target of targets) {
    interrupts.check();
    await measure(target, pgbench, { ...run, workload: workload('update') });
  }
}

/** Each repeat runs every series once, so that what slows the machine for a while slows all of them. */
async function measureOne(
  targets: Targets,
  pgbench: Pgbench,
  options: Omit<CompareOptions, 'clients'> & { name: WorkloadName; clients: number },
  interrupts: Interrupts,
): Promise<Result> {
  const { name, clients, seconds, scale, maxTries, repeats, nodes } = options;
  const chosen = SERIES.filter((series) => series !== 'spread' || clients >= nodes);
  const runs: Record<Series, Measurement[]> = { plain: [], one: [], spread: [] };
  const run = async (series: Series, length: number): Promise<Measurement> => {
    interrupts.check();
    const target = series === 'plain' ? targets.plain : targets.cluster;
    const placement = series === 'spread' ? 'spread' : 'one';
    return await measure(target, pgbench, {
      ...{ workload: workload(name), placement, clients, seconds: length, scale, maxTries },
    });
  };
  for (const series of chosen) await run(series, WARM_UP_SECONDS);
  for (let repeat = 0; repeat < repeats; repeat++) {
    for (const series of chosen) runs[series].push(await run(series, seconds));
  }
  return { workload: name, clients, series: Object.fromEntries(chosen.map((series) => [series, runs[series]])) };
}

/** What heartbeats, decoders and samples cost while nobody asks for anything. */
async function idleCpu(cluster: Target): Promise<Report['idle']> {
  const before = CpuSnapshot.take();
  await sleep(IDLE_SECONDS * 1000);
  const after = CpuSnapshot.take();
  if (before === undefined || after === undefined) return undefined;
  const used = (pids: readonly number[]): number => (1e6 * (after.family(pids) - before.family(pids))) / IDLE_SECONDS;
  return { postgres: used(cluster.postgres), proxies: used(cluster.proxies) };
}

function tell(report: Report, { json, markdown }: CompareOptions): void {
  console.log(`\n${textReport(report)}`);
  if (json !== undefined) writeFileSync(json, `${JSON.stringify(report, null, 1)}\n`);
  if (markdown === undefined) return;
  const text = markdownReport(report);
  if (!existsSync(markdown)) return writeFileSync(markdown, `${text}\n`);
  const replaced = replaceBetweenMarks(readFileSync(markdown, 'utf8'), text);
  if (replaced === undefined) throw new BenchError(`${markdown} has no marks for the table to go between`);
  writeFileSync(markdown, replaced);
}
