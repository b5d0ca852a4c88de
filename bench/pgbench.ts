import { execFile } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { readTimes } from './latency.ts';
import type { Workload } from './workloads.ts';

const run = promisify(execFile);
const OLDEST_MAJOR = 15;
const OUTPUT_LIMIT = 64 << 20;

/** What the person at the terminal can mend: told without a stack. */
export class BenchError extends Error {}

export interface PgbenchRun {
  readonly workload: Workload;
  readonly port: number;
  readonly clients: number;
  readonly seconds: number;
  readonly scale: number;
  readonly maxTries: number;
}

export interface PgbenchResult {
  readonly transactions: number;
  readonly tps: number;
  readonly failed: number;
  readonly retried: number;
  /** Milliseconds of each transaction that went through. */
  readonly times: readonly number[];
  /** What clients ended with before their time. */
  readonly errors: readonly string[];
}

export class Pgbench {
  readonly version: string;
  readonly #program: string;

  private constructor(program: string, version: string) {
    this.#program = program;
    this.version = version;
  }

  static async find(program = 'pgbench'): Promise<Pgbench> {
    let said: string;
    try {
      said = (await run(program, ['--version'])).stdout;
    } catch (error) {
      const reason = error instanceof Error ? error.message : String(error);
      throw new BenchError(
        `${program} can't be run (${reason.trim()}). It comes with PostgreSQL's server or contrib packages ` +
          '(Debian: postgresql-15, in /usr/lib/postgresql/15/bin); give its path with --pgbench',
      );
    }
    const version = /\(PostgreSQL\) (\d+)\S*/.exec(said);
    if (version === null || Number(version[1]) < OLDEST_MAJOR) {
      throw new BenchError(`${program} is ${said.trim()}; ${OLDEST_MAJOR} is the first that can retry a transaction`);
    }
    return new Pgbench(program, version[0].replace('(PostgreSQL) ', ''));
  }

  async load(port: number, scale: number): Promise<void> {
    const result = await this.#run(['-i', '-q', '-s', String(scale), ...connection(port), 'postgres'], 600);
    if (result.code !== 0) throw new Error(`pgbench could not load its tables:\n${result.stderr}`);
  }

  async measure({ workload, port, clients, seconds, scale, maxTries }: PgbenchRun): Promise<PgbenchResult> {
    const dir = mkdtempSync(join(tmpdir(), 'pgmm-bench-'));
    try {
      const args = ['-n', '-c', String(clients), '-j', String(Math.min(clients, 2)), '-T', String(seconds)];
      args.push('--log', `--log-prefix=${join(dir, 'log')}`, ...workload.args);
      if (workload.writes) args.push(`--max-tries=${maxTries}`);
      if (workload.script !== undefined) {
        const file = join(dir, 'script.sql');
        writeFileSync(file, workload.script);
        args.push('-f', file, '-s', String(scale));
      }
      const { stdout, stderr } = await this.#run([...args, ...connection(port), 'postgres'], seconds + 120);
      const logs = readdirSync(dir).filter((name) => name.startsWith('log.'));
      const times = logs.flatMap((name) => readTimes(readFileSync(join(dir, name), 'utf8')));
      return { ...parseResult(stdout, stderr), times };
    } finally {
      rmSync(dir, { recursive: true, force: true });
    }
  }

  async #run(args: string[], seconds: number): Promise<{ code: number; stdout: string; stderr: string }> {
    try {
      const done = await run(this.#program, args, { timeout: seconds * 1000, maxBuffer: OUTPUT_LIMIT });
      return { code: 0, ...done };
    } catch (error) {
      const { code, killed, stdout, stderr } = error as Partial<Failure>;
      if (killed === true)
        throw new Error(`pgbench did not end within ${seconds} s:\n${stderr ?? ''}`, { cause: error });
      if (typeof code !== 'number') throw error;
      return { code, stdout: stdout ?? '', stderr: stderr ?? '' };
    }
  }
}

interface Failure {
  readonly code: number | string | null;
  readonly killed: boolean;
  readonly stdout: string;
  readonly stderr: string;
}

function connection(port: number): string[] {
  return ['-h', '127.0.0.1', '-p', String(port), '-U', 'postgres'];
}

/** What pgbench says at its end, and before it about clients that gave up. */
export function parseResult(stdout: string, stderr: string): Omit<PgbenchResult, 'times'> {
  const number = (pattern: RegExp): number => Number(pattern.exec(stdout)?.[1] ?? 0);
  const errors = stderr
    .split('\n')
    .filter((line) => /\berror:|FATAL|ERROR/.test(line))
    .map((line) => line.replace(/^pgbench: error: (client \d+ )?/, '').trim());
  return {
    transactions: number(/number of transactions actually processed: (\d+)/),
    tps: number(/^tps = ([\d.]+)/m),
    failed: number(/number of failed transactions: (\d+)/),
    retried: number(/number of transactions retried: (\d+)/),
    errors: [...new Set(errors)],
  };
}
