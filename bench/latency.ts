/** Percentiles of transaction times, in milliseconds. */
export interface Latency {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

/**
 * The times of the transactions that went through, in milliseconds, out of a file that `pgbench --log` wrote:
 * `client number time script epoch µs [retries]`. A transaction that failed has a word in place of its time.
 */
export function readTimes(log: string): number[] {
  const times: number[] = [];
  for (const line of log.split('\n')) {
    const fields = line.split(' ');
    if (fields.length < 6) continue;
    const microseconds = Number(fields[2]);
    if (Number.isFinite(microseconds)) times.push(microseconds / 1000);
  }
  return times;
}

/** Undefined when there was nothing. */
export function latency(times: Iterable<number>): Latency | undefined {
  const sorted = Float64Array.from(times).sort();
  if (sorted.length === 0) return undefined;
  const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)];
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99), max: sorted.at(-1)! };
}

/** The middle one, or the mean of the two in the middle. NaN of nothing. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
