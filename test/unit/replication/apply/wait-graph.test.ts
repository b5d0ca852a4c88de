import { describe, expect, it } from 'vitest';
import { waitsOf } from '../../../../src/replication/apply/wait-graph.ts';

/** Each waiting backend with whom it waits for; 0 stands for a prepared transaction. */
const graph = (edges: Record<number, number[]>) => new Map(Object.entries(edges).map(([pid, to]) => [Number(pid), to]));
const backend = (pid: number, ...between: number[]) => ({ root: 1, end: { type: 'backend', pid }, between });
const prepared = (waiter: number, ...between: number[]) => ({ root: 1, end: { type: 'prepared', waiter }, between });

describe('the ends of waiting', () => {
  it.each([
    ['nobody, when the root does not wait', {}, []],
    ['a backend that waits for nobody', { 1: [2] }, [backend(2)]],
    ['a prepared transaction', { 1: [0] }, [prepared(1)]],
    ['several holders', { 1: [2, 0, 3] }, [backend(2), prepared(1), backend(3)]],
    ['the far end of a chain', { 1: [2], 2: [3], 3: [4] }, [backend(4, 2, 3)]],
    [
      'whom the queue before the root waits for',
      { 1: [2, 3, 0], 2: [3, 0], 3: [0] },
      [prepared(1), prepared(2, 2), prepared(3, 3)],
    ],
    ['nobody, in a ring', { 1: [2], 2: [1] }, []],
    ['who blocks a ring', { 1: [2], 2: [3], 3: [1, 4] }, [backend(4, 2, 3)]],
  ])('%s', (_, edges, expected) => {
    expect(waitsOf(1, graph(edges))).toEqual(expected);
  });

  it('is quick in a long queue, where everyone waits for all before', () => {
    const edges = Object.fromEntries(
      Array.from({ length: 200 }, (_, i) => [
        i + 1,
        Array.from({ length: 200 - i - 1 }, (_, j) => i + 2 + j).concat(0),
      ]),
    );
    expect(waitsOf(1, graph(edges))).toHaveLength(200);
  });
});
