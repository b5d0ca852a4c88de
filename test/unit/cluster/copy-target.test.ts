import { describe, expect, it } from 'vitest';
import { chooseCopy, type Choice } from '../../../src/cluster/reclone/copy-target.ts';
import { nodeId, type NodeId } from '../../../src/runtime/ids.ts';

const [ONE, TWO] = [nodeId(1), nodeId(2)];
const unlike =
  (...pairs: readonly [Choice['method'], NodeId][]) =>
  ({ method, donor }: Choice) =>
    pairs.some(([kind, node]) => kind === method && node === donor);

describe('which copy is taken', () => {
  it('is the first method that some donor can do', () => {
    const choose = (isUnlike: (choice: Choice) => boolean) =>
      chooseCopy(['physical', 'logical'], [ONE, TWO], new Set(), isUnlike);
    expect(choose(unlike())).toEqual({ method: 'physical', donor: ONE });
    expect(choose(unlike(['physical', ONE]))).toEqual({ method: 'physical', donor: TWO });
    expect(choose(unlike(['physical', ONE], ['physical', TWO]))).toEqual({ method: 'logical', donor: ONE });
    const all = unlike(['physical', ONE], ['physical', TWO], ['logical', ONE], ['logical', TWO]);
    expect(choose(all)).toBeUndefined();
    expect(chooseCopy([], [ONE], new Set(), unlike())).toBeUndefined();
  });

  it('is of each donor in turn', () => {
    const failed = new Set([ONE]);
    expect(chooseCopy(['logical'], [ONE, TWO], failed, unlike())?.donor).toBe(TWO);
    failed.add(TWO);
    expect(chooseCopy(['logical'], [ONE, TWO], failed, unlike())?.donor).toBe(ONE);
    expect([...failed]).toEqual([]);
  });
});
