import { describe, expect, it } from 'vitest';
import { assertPartition, isCut } from '../../../src/cli/dev/relay-mesh.ts';

const IDS = [1, 2, 3, 4];

/** The pairs that are cut, as `from>to`. */
function cuts(groups: number[][], oneWay = false): string[] {
  return IDS.flatMap((from) =>
    IDS.filter((to) => to !== from && isCut({ groups, oneWay, reset: false }, from, to)).map((to) => `${from}>${to}`),
  );
}

describe('a partition', () => {
  it('cuts between groups, in both directions, and not within one', () => {
    expect(cuts([[1], [2, 3, 4]])).toEqual(['1>2', '1>3', '1>4', '2>1', '3>1', '4>1']);
    expect(cuts([[1, 2], [3], [4]])).not.toContain('1>2');
  });

  it('leaves a node that is in no group connected to all', () => {
    expect(cuts([[1], [2]])).toEqual(['1>2', '2>1']);
  });

  it('cuts one way only, if asked to', () => {
    expect(cuts([[1], [2, 3]], true)).toEqual(['1>2', '1>3']);
  });

  it.each([
    [[[1]], {}, 'at least two groups'],
    [[[1], [2], [3]], { oneWay: true }, 'exactly two groups'],
    [[[1], [2]], { oneWay: true, reset: true }, "don't go together"],
    [[[1], [5]], {}, 'there is no node 5; the nodes are 1, 2, 3, 4'],
    [[[1, 2], [2]], {}, 'node 2 is named twice'],
  ])('refuses %j with %o', (groups, more, message) => {
    expect(() => assertPartition({ groups, oneWay: false, reset: false, ...more }, IDS)).toThrow(message);
  });
});
