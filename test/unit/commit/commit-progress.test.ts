import { describe, expect, it } from 'vitest';
import { CommitProgress } from '../../../src/commit/core/commit-progress.ts';
import { logIndex } from '../../../src/runtime/ids.ts';

const progress = (...sets: number[][]) => new CommitProgress(sets.map((positions) => positions.map(logIndex)));

describe('what the positions of committers prove', () => {
  it.each<[string, number[][], number, number[], number[]]>([
    ['nothing', [], 0, [], [1, 2]],
    ['one lane', [[7]], 7, [1, 7], [8]],
    ['four lanes that are level', [[8, 5, 6, 7]], 8, [1, 8], [9, 10]],
    ['a lane that lags', [[8, 1, 6, 7]], 4, [4, 6, 7, 8], [5, 9, 10]],
    ['lanes that have never committed', [[0, 0, 0]], 0, [], [1, 2, 3]],
    ['a note beyond what the lanes prove', [[0, 13, 0, 0], [10]], 10, [1, 9, 10, 13], [11, 12, 14]],
    [
      'two sets that complete one another',
      [
        [8, 5, 6, 3],
        [4, 7],
      ],
      8,
      [7, 8],
      [9],
    ],
    [
      'fewer lanes than before',
      [
        [100, 97, 98, 99],
        [102, 101],
      ],
      102,
      [101, 102],
      [103, 104],
    ],
  ])('%s', (_name, sets, contiguous, has, lacks) => {
    const found = progress(...sets);
    expect(found.contiguous).toBe(contiguous);
    for (const index of has) expect(found.has(logIndex(index)), String(index)).toBe(true);
    for (const index of lacks) expect(found.has(logIndex(index)), String(index)).toBe(false);
  });

  it('leave in doubt whether an entry between two commits bore one, until a single committer has passed them', () => {
    const several = progress([44, 43], [0]);
    expect(several.contiguous).toBe(44);
    expect(several.provenBy(logIndex(0))).toBe(Infinity);
    const gap = progress([44, 43, 0, 47], [0]);
    expect(gap.contiguous).toBeLessThan(47);
    expect(gap.provenBy(logIndex(0))).toBe(gap.contiguous);
    expect(gap.provenBy(logIndex(46))).toBe(46);
    expect(gap.provenBy(logIndex(47))).toBe(Infinity);
  });

  it('never claims what was not committed, whatever lanes there were and however they ended', () => {
    let state = 7;
    const below = (limit: number) => (state = (Math.imul(state, 1_103_515_245) + 12_345) >>> 0) % limit;
    for (let round = 0; round < 500; round++) {
      const committed = new Set<number>();
      const sets = new Map<number, number[]>();
      for (let index = 1, run = 0; run < 4; run++) {
        const lanes = [1, 2, 4, 5][below(4)];
        const before = progress(...sets.values());
        const positions = sets.get(lanes) ?? Array<number>(lanes).fill(0);
        sets.set(lanes, positions);
        const end = index + below(20);
        // Each lane gets as far as it gets, then the server ends.
        const reached = positions.map(() => (lanes === 1 ? end : index + below(20)));
        for (let at = before.contiguous + 1; at < end; at++) {
          const lane = at % lanes;
          if (at > reached[lane] || before.has(logIndex(at))) continue;
          committed.add(at);
          positions[lane] = at;
        }
        const found = progress(...sets.values());
        for (let at = 1; at < end; at++) expect(found.has(logIndex(at)), `${round}: ${at}`).toBe(committed.has(at));
        for (let at = 1; at <= found.contiguous; at++) expect(committed.has(at)).toBe(true);
        index = end;
      }
    }
  });
});
