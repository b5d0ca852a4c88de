import { describe, expect, it } from 'vitest';
import { commonPart, compareLists, type History } from '../../../src/cli/verify/order.ts';

/** A history of commits whose names are their indexes, unless `renamed` says otherwise. */
const history = (name: string, indexes: readonly number[], renamed: Record<number, string> = {}): History => ({
  name,
  commits: indexes.map((index) => ({ index, gid: renamed[index] ?? `gid-${index}` })),
});

const differences = (...histories: History[]) => compareLists(commonPart(histories));

describe('the order of commits, compared', () => {
  it('compares what every node still has, wherever its history begins and ends', () => {
    const histories = [history('a', [3, 5, 6, 8, 9]), history('b', [5, 6, 8]), history('c', [1, 3, 5, 6, 8, 9])];
    expect(commonPart(histories).map(({ commits }) => commits.map(({ index }) => index))).toEqual([
      [5, 6, 8],
      [5, 6, 8],
      [5, 6, 8],
    ]);
    expect(differences(...histories)).toEqual([]);
  });

  it('compares nothing when one node has let go of all of it', () => {
    expect(differences(history('a', []), history('b', [8]), history('c', []))).toEqual([]);
  });

  it.each([
    ['another name', history('b', [5, 6, 8], { 6: 'other' })],
    ['one that is missing', history('b', [5, 8])],
    ['one too many', history('b', [5, 6, 7, 8])],
    ['another order', history('b', [5, 8, 6, 8])],
  ])('finds %s', (_, other) => {
    expect(differences(history('a', [3, 5, 6, 8, 9]), other)).toMatchObject([{ kind: 'order' }]);
  });
});
