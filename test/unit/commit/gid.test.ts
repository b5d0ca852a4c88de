import { describe, expect, it } from 'vitest';
import { comparePriority, formatGid, parseGid, type GidParts } from '../../../src/commit/gid.ts';
import { STEPS } from '../../../src/runtime/hybrid-clock.ts';
import { epoch, nodeId } from '../../../src/runtime/ids.ts';

const parts = (clock: number, node = 1, sequence = 1): GidParts => ({
  ...{ cluster: 'c', node: nodeId(node), epoch: epoch(7), sequence, clock },
});
const NODES = [1, 2, 3];
const MILLISECONDS = Array.from({ length: 3000 }, (_, i) => 1_796_000_000_000 + i);

describe('the name of a transaction', () => {
  it('says what was put into it', () => {
    const said = parts(1_796_000_000_000 * STEPS + 5, 3, 12_345);
    expect(parseGid(formatGid(said))).toEqual(said);
    expect(parseGid('pgmm:c:1:2')).toBeUndefined();
    expect(parseGid('somebody else')).toBeUndefined();
  });
});

describe('priority', () => {
  it('is that of the older, to the millisecond', () => {
    for (const node of NODES)
      for (const other of NODES)
        expect(comparePriority(parts(5 * STEPS + 900, node), parts(6 * STEPS, other))).toBeLessThan(0);
  });

  it('is total', () => {
    const some = NODES.flatMap((node) => [0, 1, STEPS].flatMap((clock) => [1, 2].map((n) => parts(clock, node, n))));
    for (const a of some) {
      for (const b of some) {
        expect(Math.sign(comparePriority(a, b)) + Math.sign(comparePriority(b, a))).toBe(0);
        expect(comparePriority(a, b) === 0).toBe(a === b);
        for (const c of some)
          if (comparePriority(a, b) < 0 && comparePriority(b, c) < 0) expect(comparePriority(a, c)).toBeLessThan(0);
      }
    }
  });

  it('favours no node among those that prepare in one millisecond', () => {
    const wins = new Map<number, number>();
    for (const millisecond of MILLISECONDS) {
      // A busy node's clock is ahead within the millisecond; that must not count either.
      const [first] = NODES.map((node) => parts(millisecond * STEPS + node, node)).sort(comparePriority);
      wins.set(first.node, (wins.get(first.node) ?? 0) + 1);
    }
    for (const node of NODES) expect(wins.get(node)).toBeGreaterThan(0.3 * MILLISECONDS.length);
  });

  it('is the same however far the wall clock went', () => {
    expect(comparePriority(parts(2 ** 52, 1), parts(2 ** 52 + STEPS, 2))).toBeLessThan(0);
  });
});
