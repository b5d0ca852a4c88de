import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { waitFor } from '../test/support/wait-for.ts';
import { busyTime, byArea, hotSpots, locator } from './cpu-profile.ts';
import type { CpuProfile, HotSpot } from './cpu-profile.ts';
import { Interrupts } from './interrupts.ts';
import { measure } from './measure.ts';
import type { Measurement } from './measure.ts';
import { BenchError, Pgbench } from './pgbench.ts';
import { aligned } from './report.ts';
import { load, ROOT, startProxies } from './targets.ts';
import { workload } from './workloads.ts';
import type { WorkloadName } from './workloads.ts';

export interface ProfileOptions {
  readonly workload: WorkloadName;
  readonly clients: number;
  readonly seconds: number;
  readonly scale: number;
  readonly nodes: number;
  readonly node: number;
  readonly warmUp: number;
  readonly top: number;
  readonly output?: string;
  readonly pgbench?: string;
  readonly postgresBin?: string;
}

/** Runs a workload on node 1 and shows what the proxy of one node does meanwhile. */
export async function profile(options: ProfileOptions): Promise<void> {
  const { nodes, node, postgresBin, scale, seconds, clients } = options;
  if (node > nodes) throw new BenchError(`there is no node ${node} of ${nodes}`);
  const pgbench = await Pgbench.find(options.pgbench);
  const dir = mkdtempSync(join(tmpdir(), 'pgmm-profile-'));
  const hook = pathToFileURL(join(ROOT, 'bench/profile-hook.mjs')).href;
  const interrupts = new Interrupts();
  try {
    const env = { NODE_OPTIONS: `--import=${hook}`, PGMM_PROFILE_DIR: dir };
    const cluster = await startProxies({ nodes, postgresBin, env });
    try {
      await load(cluster, pgbench, scale);
      interrupts.check();
      const run = { workload: workload(options.workload), placement: 'one', clients, scale, maxTries: 100 } as const;
      await measure(cluster, pgbench, { ...run, seconds: options.warmUp });
      interrupts.check();
      const pid = cluster.proxies[node - 1];
      process.kill(pid, 'SIGUSR2');
      const measured = await measure(cluster, pgbench, { ...run, seconds });
      const file = join(dir, `${pid}.cpuprofile`);
      process.kill(pid, 'SIGUSR2');
      await waitFor('the profile is written', () => existsSync(file), { timeoutMs: 60_000 });
      if (options.output !== undefined) copyFileSync(file, options.output);
      tell(JSON.parse(readFileSync(file, 'utf8')) as CpuProfile, measured, options);
    } finally {
      await cluster.stop();
    }
  } finally {
    interrupts.end();
    rmSync(dir, { recursive: true, force: true });
  }
}

function tell(
  found: CpuProfile,
  { tps, transactions, latency, cpu, phases }: Measurement,
  options: ProfileOptions,
): void {
  const spots = hotSpots(found, locator(ROOT));
  const busy = busyTime(spots);
  const row = (name: string, time: number): string[] => [
    (time / transactions).toFixed(1),
    `${((100 * time) / busy).toFixed(1)} %`,
    name,
  ];
  const named = ({ name, where }: HotSpot): string => (where === '' ? name : `${name}  ${where}`);
  const table = (title: string, rows: string[][]): void =>
    console.log(['', `${title}:`, ...aligned([['µs/tx', 'share', ''], ...rows])].join('\n'));
  const { workload: name, clients, node, top } = options;
  console.log(
    `${name}, ${clients} clients on node 1: ${Math.round(tps)} tps, median ${latency?.p50.toFixed(2) ?? '?'} ms`,
  );
  if (cpu !== undefined) {
    console.log(
      `processor µs per transaction: ${Math.round(cpu.postgres)} servers, ${Math.round(cpu.proxies)} proxies`,
    );
  }
  console.log(
    `mean ms by phase: ${JSON.stringify(phases, (_, value: unknown) => (typeof value === 'number' ? Number(value.toFixed(3)) : value))}`,
  );
  console.log(`the proxy of node ${node} was busy for ${(busy / transactions).toFixed(1)} µs per transaction`);
  const work = spots.filter((spot) => spot.name !== '(idle)');
  table(
    'by area',
    byArea(work).map(({ area, self }) => row(area, self)),
  );
  table(
    'functions by their own time',
    work.slice(0, top).map((spot) => row(named(spot), spot.self)),
  );
  const totals = work.filter((spot) => spot.where.startsWith('src/')).sort((a, b) => b.total - a.total);
  table(
    'functions of ours with all they call',
    totals.slice(0, top).map((spot) => row(named(spot), spot.total)),
  );
}
