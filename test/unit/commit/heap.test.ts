import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { Heap } from '../../../src/commit/core/heap.ts';

describe('a priority queue', () => {
  it('gives what has the lowest key, and of that what came first, up to a key', () => {
    const step = fc.oneof(
      fc.record({ push: fc.integer({ min: 0, max: 20 }) }),
      fc.record({ pop: fc.integer({ min: 0, max: 20 }) }),
    );
    fc.assert(
      fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
        const heap = new Heap<string>();
        let plain: { key: number; value: string }[] = [];
        for (const [at, one] of steps.entries()) {
          if ('push' in one) {
            heap.push(one.push, `${one.push} ${at}`);
            plain.push({ key: one.push, value: `${one.push} ${at}` });
          } else {
            const [first] = plain.toSorted((a, b) => a.key - b.key);
            const expected = plain.length > 0 && first.key <= one.pop ? first : undefined;
            expect(heap.popUpTo(one.pop)).toBe(expected?.value);
            plain = plain.filter((other) => other !== expected);
          }
          expect(heap.size).toBe(plain.length);
        }
      }),
    );
  });
});
