import { describe, expect, it } from 'vitest';
import { CpuSnapshot, parseStat } from '../../../bench/cpu.ts';
import { means, readSums, values } from '../../../bench/histograms.ts';
import { latency, median, readTimes } from '../../../bench/latency.ts';
import { share } from '../../../bench/measure.ts';
import { parseResult } from '../../../bench/pgbench.ts';

describe('transaction times', () => {
  it('are read from a log of pgbench, those that failed left out', () => {
    const log = '0 1 1500 0 1700000000 1 0\n1 1 failed 0 1700000000 2 3\n0 2 500 0 1700000000 3 0\n';
    expect(readTimes(log)).toEqual([1.5, 0.5]);
  });

  it('are summed up by the nearest rank', () => {
    const times = Array.from({ length: 200 }, (_, index) => 200 - index);
    expect(latency(times)).toEqual({ p50: 100, p95: 190, p99: 198, max: 200 });
    expect(latency([7])).toEqual({ p50: 7, p95: 7, p99: 7, max: 7 });
    expect(latency([])).toBeUndefined();
  });

  it('have a median', () => {
    expect(median([3, 1, 2])).toBe(2);
    expect(median([4, 1, 2, 3])).toBe(2.5);
    expect(median([])).toBeNaN();
  });
});

describe("pgbench's report", () => {
  const stdout = `transaction type: /tmp/script.sql
number of transactions actually processed: 444
number of failed transactions: 2 (0.449%)
number of transactions retried: 5 (1.1%)
total number of retries: 9
latency average = 90.033 ms
tps = 88.856726 (without initial connection time)
`;

  it('is read', () => {
    expect(parseResult(stdout, '')).toEqual({ transactions: 444, tps: 88.856726, failed: 2, retried: 5, errors: [] });
  });

  it('names what clients gave up for, once', () => {
    const lines = [3, 5].map(
      (client) => `pgbench: error: client ${client} script 0 aborted in command 2 query 0: ERROR:  no`,
    );
    const { errors } = parseResult(stdout, `${lines.join('\n')}\npgbench: warning: something\n`);
    expect(errors).toEqual(['script 0 aborted in command 2 query 0: ERROR:  no']);
  });
});

describe('processor time', () => {
  it('is read whatever the process is called', () => {
    const stat = '42 (a (b) c) S 7 42 42 0 -1 4194560 10 20 0 0 150 50 30 20 20 0 1 0 100 0 0';
    expect(parseStat(stat)).toEqual({ parent: 7, own: 2, ended: 0.5 });
  });

  it('of a family has that of its living and its ended members', () => {
    const snapshot = new CpuSnapshot(
      new Map([
        [12, { parent: 11, own: 1, ended: 0 }],
        [10, { parent: 1, own: 2, ended: 4 }],
        [11, { parent: 10, own: 8, ended: 16 }],
        [13, { parent: 1, own: 32, ended: 64 }],
      ]),
    );
    expect(snapshot.family([10])).toBe(31);
    expect(snapshot.family([10, 13])).toBe(127);
    expect(snapshot.family([99])).toBe(0);
  });

  it.runIf(process.platform === 'linux')('of this process grows', () => {
    const before = CpuSnapshot.take()!.family([process.pid]);
    expect(before).toBeGreaterThan(0);
    const until = performance.now() + 50;
    while (performance.now() < until) Math.sqrt(until);
    expect(CpuSnapshot.take()!.family([process.pid])).toBeGreaterThan(before);
  });
});

describe('the means of histograms', () => {
  const page = (sum: number, count: number): string => `# TYPE pgmm_phase_seconds histogram
pgmm_phase_seconds_bucket{le="0.1",phase="decode"} 3
pgmm_phase_seconds_sum{phase="decode"} ${sum}
pgmm_phase_seconds_count{phase="decode"} ${count}
pgmm_phase_seconds_sum{phase="vote"} 0
pgmm_phase_seconds_count{phase="vote"} 0
pgmm_raft_fsync_seconds_sum 0.5
pgmm_raft_fsync_seconds_count 100
pgmm_lag_entries{node="1"} 0
pgmm_lag_entries{node="2"} 3
pgmm_writable 1
`;

  it('are of what was observed in between, by all nodes', () => {
    const before = [page(1, 10), page(0, 0)].map(readSums);
    const after = [page(1.2, 20), page(0.6, 10)].map(readSums);
    expect(means(before, after)).toEqual({ decode: expect.closeTo(40, 6) as number });
  });

  it('leave the other metrics alone', () => {
    expect(values(page(0, 0), 'pgmm_lag_entries')).toEqual([0, 3]);
    expect(values(page(0, 0), 'pgmm_writable')).toEqual([1]);
  });
});

describe('clients', () => {
  it('are shared evenly between nodes', () => {
    const counts = (clients: number): number[] => share(clients, [1, 2, 3]).map((part) => part.clients);
    expect(counts(8)).toEqual([3, 3, 2]);
    expect(counts(32)).toEqual([11, 11, 10]);
    expect(share(1, [5, 6])).toEqual([{ port: 5, clients: 1 }]);
  });
});
