import { execFileSync } from 'node:child_process';
import { closeSync, fdatasyncSync, fsyncSync, openSync, readFileSync, rmSync, writeSync } from 'node:fs';
import { cpus, loadavg, release, tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { median } from './latency.ts';
import { ROOT } from './targets.ts';

/** What figures mean nothing without. */
export interface Conditions {
  readonly date: string;
  readonly commit: string;
  readonly processor: string;
  readonly cores: number;
  readonly memoryGb: number;
  readonly system: string;
  readonly node: string;
  readonly postgres: string;
  readonly pgbench: string;
  /** Median milliseconds to make 200 bytes durable where the data is. */
  readonly fdatasyncMs: number;
  /** What others did to the machine in the minute before. */
  readonly load: number;
}

export function conditions(postgres: string, pgbench: string): Conditions {
  return {
    date: new Date().toISOString().slice(0, 16).replace('T', ' '),
    commit: commit(),
    processor: cpus()[0]?.model.trim() ?? 'unknown',
    cores: cpus().length,
    memoryGb: Math.round(totalmem() / 2 ** 30),
    system: `${process.platform} ${release()}`,
    node: process.version,
    postgres,
    pgbench,
    fdatasyncMs: fdatasyncMs(),
    load: loadavg()[0],
  };
}

function commit(): string {
  try {
    const git = (...args: string[]): string =>
      execFileSync('git', args, { cwd: ROOT, encoding: 'utf8', stdio: 'pipe' }).trim();
    return git('rev-parse', '--short', 'HEAD') + (git('status', '--porcelain', 'src') === '' ? '' : ' with changes');
  } catch {
    return readVersion();
  }
}

function readVersion(): string {
  const { version } = JSON.parse(readFileSync(join(ROOT, 'package.json'), 'utf8')) as { version: string };
  return version;
}

/** As the decision log does it: into a file that has its size already. */
function fdatasyncMs(): number {
  const file = join(tmpdir(), `pgmm-bench-fsync-${process.pid}`);
  const fd = openSync(file, 'w');
  try {
    writeSync(fd, Buffer.alloc(1 << 20));
    fsyncSync(fd);
    const record = Buffer.alloc(200, 1);
    const times = Array.from({ length: 200 }, (_, index) => {
      const begun = performance.now();
      writeSync(fd, record, 0, record.length, index * record.length);
      fdatasyncSync(fd);
      return performance.now() - begun;
    });
    return median(times);
  } finally {
    closeSync(fd);
    rmSync(file);
  }
}
