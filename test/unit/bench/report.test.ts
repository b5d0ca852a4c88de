import { describe, expect, it } from 'vitest';
import { busyTime, byArea, hotSpots, locator } from '../../../bench/cpu-profile.ts';
import type { CallFrame, CpuProfile } from '../../../bench/cpu-profile.ts';
import type { Measurement } from '../../../bench/measure.ts';
import {
  aligned,
  errorLines,
  phaseRows,
  ratioToPlain,
  replaceBetweenMarks,
  resultRows,
} from '../../../bench/report.ts';
import type { Result } from '../../../bench/report.ts';

const run = (tps: number, more: Partial<Measurement> = {}): Measurement => ({
  tps,
  transactions: tps * 5,
  failed: 0,
  retried: 1,
  latency: { p50: 1000 / tps, p95: 9, p99: 12.34, max: 20 },
  cpu: { postgres: 100.4, proxies: 0, pgbench: 20 },
  phases: {},
  errors: [],
  ...more,
});

const RESULT: Result = {
  workload: 'update',
  clients: 8,
  series: {
    plain: [run(1000), run(500), run(2000)],
    one: [
      run(300, { phases: { total: 4, decode: 1 } }),
      run(200, { phases: { total: 6, decode: 3 } }),
      run(100, { phases: { total: 5, decode: 2 }, errors: ['FATAL: gone', 'FATAL: gone'] }),
    ],
  },
};

describe('the report', () => {
  it('compares what ran side by side', () => {
    expect(ratioToPlain(RESULT, 'one')).toBeCloseTo(0.3);
    expect(ratioToPlain(RESULT, 'plain')).toBeUndefined();
    expect(ratioToPlain(RESULT, 'spread')).toBeUndefined();
  });

  it('shows the medians of the repeats', () => {
    const [, plain, one] = resultRows([RESULT]);
    expect(plain.slice(0, 6)).toEqual(['update', '8', 'PostgreSQL', '1000', '', '1.00']);
    expect(one.slice(0, 10)).toEqual(['update', '8', 'one node', '200', '0.30', '5.00', '9.00', '12.3', '0', '3']);
  });

  it('shows phases of what has some', () => {
    expect(phaseRows([RESULT])).toEqual([
      ['workload', 'clients', 'on', 'decode', 'total'],
      ['update', '8', 'one node', '2.00', '5.00'],
    ]);
    expect(phaseRows([{ ...RESULT, series: { plain: RESULT.series.plain! } }])).toEqual([]);
  });

  it('tells each error once', () => {
    expect(errorLines([RESULT])).toEqual(['update, 8 clients, one node: FATAL: gone']);
  });

  it('aligns words to the left and numbers to the right', () => {
    expect(
      aligned([
        ['on', 'tps'],
        ['a', '5'],
        ['bcd', '1234'],
      ]),
    ).toEqual(['on    tps', 'a       5', 'bcd  1234']);
  });

  it('goes between the marks of a document', () => {
    const text = 'before\n<!-- bench:begin -->\nold\n<!-- bench:end -->\nafter\n';
    const once = replaceBetweenMarks(text, 'new');
    expect(once).toBe('before\n<!-- bench:begin -->\n\nnew\n\n<!-- bench:end -->\nafter\n');
    expect(replaceBetweenMarks(once!, 'new')).toBe(once);
    expect(replaceBetweenMarks('nothing', 'new')).toBeUndefined();
  });
});

describe('a profile', () => {
  const frame = (functionName: string, url = 'file:///p/dist/a/b.js', lineNumber = 0): { callFrame: CallFrame } => ({
    callFrame: { functionName, url, lineNumber, columnNumber: 0 },
  });
  // (root) → work → again (work) → (idle); 10 µs a sample
  const PROFILE = {
    nodes: [
      { id: 1, ...frame('(root)', ''), children: [2, 4] },
      { id: 2, ...frame('work'), children: [3] },
      { id: 3, ...frame('work'), children: [5] },
      { id: 4, ...frame('(idle)', '') },
      { id: 5, ...frame('', 'file:///p/node_modules/@a/b/c.js') },
    ],
    samples: [2, 3, 4, 5, 3],
    timeDeltas: [10, 10, 50, 10, 10],
    startTime: 0,
    endTime: 90,
  } satisfies CpuProfile;

  it('counts a function that calls itself once', () => {
    const spots = hotSpots(PROFILE, locator('/p'));
    expect(spots.find((spot) => spot.name === 'work')).toEqual({
      name: 'work',
      where: 'dist/a/b.js:1',
      self: 30,
      total: 40,
    });
    expect(spots.map((spot) => spot.name)).toEqual(['(idle)', 'work', '(anonymous)', '(root)']);
    expect(busyTime(spots)).toBe(40);
  });

  it('is summed up by what the code belongs to', () => {
    const spots = [
      { name: 'a', where: 'src/wire/x.ts:3', self: 5, total: 5 },
      { name: 'b', where: 'src/wire/y.ts:4', self: 4, total: 4 },
      { name: 'c', where: 'node:net:1', self: 3, total: 3 },
      { name: 'd', where: 'msgpackr', self: 2, total: 2 },
      { name: 'writeBuffer', where: '', self: 1.5, total: 1 },
      { name: '(program)', where: '', self: 1, total: 1 },
    ];
    expect(byArea(spots).map(({ area }) => area)).toEqual(['src/wire', 'node', 'msgpackr', 'built in', '(program)']);
  });
});
