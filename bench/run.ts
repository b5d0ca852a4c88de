/** `npm run bench`: one PostgreSQL and a cluster, measured in turn on the same machine. See docs/performance.md. */
import { execFileSync } from 'node:child_process';
import { Command, InvalidArgumentError } from 'commander';
import { compare } from './compare.ts';
import { BenchError } from './pgbench.ts';
import { profile } from './profile.ts';
import { ROOT } from './targets.ts';
import { WORKLOAD_NAMES } from './workloads.ts';
import type { WorkloadName } from './workloads.ts';

const DEFAULT_WORKLOADS = WORKLOAD_NAMES.filter((name) => name !== 'update-prepared');
/** For a look whether all works: the figures say little. */
const QUICK = { clients: [1, 8], seconds: 2, repeats: 1, scale: 1, warmUp: 2 };

interface Flags {
  readonly clients: number[];
  readonly seconds: number;
  readonly repeats: number;
  readonly scale: number;
  readonly nodes: number;
  readonly maxTries: number;
  readonly warmUp: number;
  readonly workloads?: WorkloadName[];
  readonly json?: string;
  readonly markdown?: string;
  readonly quick?: true;
}

interface CommonFlags {
  readonly pgbench?: string;
  readonly postgresBin?: string;
  /** Commander's name for `--no-build`. */
  readonly build: boolean;
}

interface ProfileFlags {
  readonly clients: number;
  readonly seconds: number;
  readonly scale: number;
  readonly nodes: number;
  readonly node: number;
  readonly warmUp: number;
  readonly top: number;
  readonly output?: string;
}

function common(command: Command): Command {
  return command
    .option('--pgbench <program>', 'which pgbench (default: the one on PATH)')
    .option('--postgres-bin <dir>', 'programs of an installed PostgreSQL instead of the one from npm')
    .option('--no-build', 'measure dist/ as it is');
}

function benchCommand(): Command {
  return common(new Command('compare'))
    .description('plain PostgreSQL and the cluster in turn: tps, latency, processor time, ratios')
    .argument('[workloads...]', `of ${WORKLOAD_NAMES.join(', ')}`)
    .option('--workloads <list>', 'the same as an option', workloadList)
    .option('--clients <list>', 'numbers of clients', integerList, [1, 8, 32])
    .option('--seconds <n>', 'length of one run', integer, 5)
    .option('--repeats <n>', 'runs of each kind; the median counts', integer, 3)
    .option('--scale <n>', "pgbench's scale: 100,000 rows each", integer, 10)
    .option('--nodes <n>', 'size of the cluster', integer, 3)
    .option('--max-tries <n>', 'how often a transaction is tried that lost a conflict', integer, 100)
    .option('--warm-up <n>', 'seconds of work before anything is measured', integer, 20)
    .option('--quick', 'short runs at a small scale, to see that all works')
    .option('--json <file>', 'write all that was measured')
    .option('--markdown <file>', 'write the tables, between the marks of a file that has them')
    .action(async (names: string[], flags: Flags & CommonFlags, command: Command) => {
      if (flags.build) build();
      const chosen = [...names.map(workloadName), ...(flags.workloads ?? [])];
      await compare({
        ...flags,
        ...(flags.quick === true ? unlessGiven(command, QUICK) : {}),
        workloads: chosen.length > 0 ? chosen : DEFAULT_WORKLOADS,
      });
    });
}

function profileCommand(): Command {
  return common(new Command('profile'))
    .description('where one proxy of the cluster spends its processor time')
    .argument('[workload]', 'what to run', workloadName, 'update')
    .option('--clients <n>', 'number of clients, all on node 1', integer, 32)
    .option('--seconds <n>', 'how long to look', integer, 10)
    .option('--scale <n>', "pgbench's scale", integer, 10)
    .option('--nodes <n>', 'size of the cluster', integer, 3)
    .option('--node <n>', 'whose proxy', integer, 1)
    .option('--warm-up <n>', 'seconds of work before the profile begins', integer, 20)
    .option('--top <n>', 'so many functions', integer, 30)
    .option('--output <file>', 'keep the profile, for the browser (*.cpuprofile)')
    .action(async (name: WorkloadName, flags: ProfileFlags & CommonFlags) => {
      if (flags.build) build();
      await profile({ ...flags, workload: name });
    });
}

/** Those of the settings that were not given on the command line. */
function unlessGiven<T extends object>(command: Command, settings: T): Partial<T> {
  const isGiven = (name: string): boolean => command.getOptionValueSource(name) === 'cli';
  return Object.fromEntries(Object.entries(settings).filter(([name]) => !isGiven(name))) as Partial<T>;
}

function build(): void {
  try {
    execFileSync('npm', ['run', '--silent', 'build'], { cwd: ROOT, stdio: ['ignore', 'inherit', 'inherit'] });
  } catch {
    throw new BenchError('the build fails, so there is nothing to measure (--no-build measures what is in dist/)');
  }
}

function integer(text: string): number {
  if (!/^[1-9]\d*$/.test(text)) throw new InvalidArgumentError('it must be a whole number above 0');
  return Number(text);
}

function integerList(text: string): number[] {
  return text.split(',').map(integer);
}

function workloadName(text: string): WorkloadName {
  const name = WORKLOAD_NAMES.find((known) => known === text);
  if (name === undefined) throw new InvalidArgumentError(`it must be one of ${WORKLOAD_NAMES.join(', ')}`);
  return name;
}

function workloadList(text: string): WorkloadName[] {
  return text.split(',').map(workloadName);
}

const program = new Command('bench').addCommand(benchCommand(), { isDefault: true }).addCommand(profileCommand());
try {
  await program.parseAsync();
} catch (error) {
  const known = error instanceof BenchError || error instanceof InvalidArgumentError;
  console.error(known ? error.message : error);
  process.exitCode = 1;
}
