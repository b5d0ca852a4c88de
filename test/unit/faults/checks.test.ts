import { describe, expect, it } from 'vitest';
import { contradictions } from '../../faults/checks.ts';
import type { Answer, Operation } from '../../faults/operations.ts';

const operation = (id: number, answer: Answer): Operation => ({ id, kind: 'insert', node: 1, answer });
const holding = (...insert: number[]) => ({ transfer: [], append: [], insert });

describe('what clients were told, against what is there', () => {
  it('accepts what agrees, and either end of what is unknown', () => {
    const operations = [
      operation(1, 'committed'),
      operation(2, 'failed'),
      operation(3, 'unknown'),
      operation(4, 'unknown'),
    ];
    expect(contradictions(operations, holding(1, 3))).toEqual([]);
  });

  it.each([
    ['a lost update', [operation(1, 'committed')], holding(), 'acknowledged and is lost'],
    ['a failure that was none', [operation(1, 'failed')], holding(1), 'and is there'],
    ['a transaction done twice', [operation(1, 'committed')], holding(1, 1), 'there twice'],
    ['one from nowhere', [], holding(7), 'never asked for'],
    ['another kind of mark', [operation(1, 'committed')], { transfer: [1], append: [], insert: [] }, 'is lost'],
  ])('finds %s', (_, operations, marks, text) => {
    expect(contradictions(operations, marks).join()).toContain(text);
  });
});
