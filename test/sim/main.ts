/**
 * `npm run sim -- --seed 17 [--verbose]` plays one run again, `--seeds 1..10000` many, on all cores. `--steps` is how long
 * faults go on in each, `--jobs` how many processes work, `--stop` ends at the first failure.
 */
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { printFailure, runSeed, type RunResult } from './run.ts';
import { Summary } from './summary.ts';

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string', default: '1..200' },
    steps: { type: 'string', default: '4000' },
    jobs: { type: 'string', default: String(availableParallelism()) },
    verbose: { type: 'boolean', default: false },
    stop: { type: 'boolean', default: false },
    /** Internal: every `stride`-th seed, one JSON line each. */
    stride: { type: 'string' },
  },
});
const steps = Number(values.steps);

interface Line {
  readonly seed: number;
  readonly steps: number;
  readonly hash: string;
  readonly counts: [string, number][];
  readonly failure?: string;
  readonly rule?: string;
}

function replay(seed: number): void {
  const result = runSeed(seed, steps, values.verbose);
  if (!values.verbose || result.failure !== undefined) console.log(printFailure(result));
  const summary = new Summary();
  summary.add(result.steps, result.counts);
  console.log(summary.print());
  console.log(
    `seed ${seed}: ${result.steps} steps, ${Math.round(result.time)} ms of virtual time, trace ${result.hash}`,
  );
  process.exitCode = result.failure === undefined ? 0 : 1;
}

function toLine(result: RunResult): Line {
  const { seed, hash, counts, failure } = result;
  const line = { seed, steps: result.steps, hash, counts: [...counts] };
  return failure === undefined ? line : { ...line, rule: failure.rule, failure: printFailure(result) };
}

/** What a worker does. */
function share(first: number, last: number, stride: number): void {
  for (let seed = first; seed <= last; seed += stride)
    process.stdout.write(`${JSON.stringify(toLine(runSeed(seed, steps)))}\n`);
}

async function range(first: number, last: number): Promise<void> {
  const summary = new Summary();
  const jobs = Math.min(Number(values.jobs), last - first + 1);
  const begun = Date.now();
  const workers = Array.from({ length: jobs }, (_, job) => {
    const own = ['--seeds', `${first + job}..${last}`, '--steps', values.steps, '--stride', String(jobs)];
    const child = spawn(process.execPath, [...process.execArgv, fileURLToPath(import.meta.url), ...own], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    createInterface({ input: child.stdout }).on('line', (text) => {
      const line = JSON.parse(text) as Line;
      summary.add(line.steps, new Map(line.counts));
      if (line.rule !== undefined && line.failure !== undefined) {
        if (summary.fail(line.seed, line.rule)) console.log(line.failure);
        if (values.stop) for (const { child: one } of workers) one.kill();
      }
      if (summary.runs % 500 === 0)
        console.log(`${summary.runs} runs, ${summary.failures} failed, ${Math.round((Date.now() - begun) / 1000)} s`);
    });
    return { child, ended: new Promise<void>((resolve) => child.once('close', () => resolve())) };
  });
  await Promise.all(workers.map(({ ended }) => ended));
  console.log(summary.print());
  const missing = last - first + 1 - summary.runs;
  if (missing > 0 && !values.stop) console.log(`${missing} runs gave no result`);
  process.exitCode = summary.failures > 0 || (missing > 0 && !values.stop) ? 1 : 0;
}

const [first = 1, last = first] = values.seeds.split('..').map(Number);
if (values.seed !== undefined) replay(Number(values.seed));
else if (values.stride !== undefined) share(first, last, Number(values.stride));
else await range(first, last);
