import { describe, expect, it } from 'vitest';
import { check, countKinds, type AnomalyKind, type CheckOptions } from '../../consistency/checker/check.ts';
import type { Outcome, Step, Transaction } from '../../consistency/checker/history.ts';
import { isForbidden } from '../../consistency/levels.ts';

/** Steps as text: `a+1` appends 1 to a, `a=1,2` reads it. */
function transaction(id: number, text: string, more: Partial<Transaction> = {}): Transaction {
  const steps = text.split(' ').map((word): Step => {
    const key = word[0];
    if (word[1] === '+') return { kind: 'append', key, value: Number(word.slice(2)) };
    return { kind: 'read', key, values: word.slice(2).split(',').filter(Boolean).map(Number) };
  });
  return { id, process: id, steps, outcome: 'committed', begun: 0, ended: 100, ...more };
}

function kinds(texts: readonly string[], options?: CheckOptions, outcomes: Record<number, Outcome> = {}): string[] {
  const transactions = texts.map((text, i) => transaction(i + 1, text, { outcome: outcomes[i + 1] ?? 'committed' }));
  return Object.keys(countKinds(check({ transactions }, options))).sort();
}

describe('histories with known anomalies', () => {
  it.each<[string, string[], string[], Record<number, Outcome>?]>([
    ['nothing wrong', ['a+1', 'a=1 a+2', 'a=1,2'], []],
    ['G0', ['a+1 b+2', 'a+3 b+4', 'a=1,3 b=4,2'], ['G0']],
    ['G1a', ['a+1', 'a=1'], ['G1a'], { 1: 'aborted' }],
    ['G1b', ['a+1 a+2', 'a=1', 'a=1,2'], ['G-single', 'G1b']],
    ['G1c', ['a+1 b=2', 'b+2 a=1'], ['G1c']],
    ['G-single', ['a+1 b+2', 'a= b=2', 'a=1'], ['G-single']],
    ['long fork', ['a+1', 'b+2', 'a=1 b=', 'a= b=2'], ['G-nonadjacent'], {}],
    ['write skew', ['a= b+1', 'b= a+2', 'a=2 b=1'], ['G2-item']],
    ['lost update', ['a= a+1', 'a= a+2', 'a=1,2'], ['G-single', 'lost-update']],
    ['incompatible orders', ['a+1', 'a+2', 'a=1,2', 'a=2,1'], ['incompatible-order']],
    ['duplicate elements', ['a+1', 'a=1,1'], ['duplicate-elements']],
    ['garbage', ['a=7'], ['garbage']],
    ['internal', ['a+1 a='], ['internal']],
    ['unknown and seen', ['a+1', 'a=1'], [], { 1: 'unknown' }],
    ['unknown and not seen', ['a+1 b=2', 'b+2 a='], [], { 1: 'unknown' }],
    ['unknown, seen, and part of a cycle', ['a+1 b=2', 'b+2 a=1'], ['G1c'], { 1: 'unknown' }],
  ])('%s', (_, texts, expected, outcomes) => {
    expect(kinds(texts, {}, outcomes)).toEqual(expected);
  });

  it('tells an acknowledged append that is gone, and forgives one of unknown outcome', () => {
    const final = new Map([['a', [] as number[]]]);
    expect(countKinds(check({ transactions: [transaction(1, 'a+1')], final }))).toEqual({ 'lost-append': 1 });
    expect(check({ transactions: [transaction(1, 'a+1', { outcome: 'unknown' })], final })).toEqual([]);
  });

  it('holds a session to its order only when asked', () => {
    const transactions = [
      transaction(1, 'a+1', { process: 5, begun: 0, ended: 1 }),
      transaction(2, 'a=', { process: 5, begun: 2, ended: 3 }),
      transaction(3, 'a=1', { process: 6, begun: 2, ended: 3 }),
    ];
    expect(check({ transactions })).toEqual([]);
    expect(countKinds(check({ transactions }, { process: true }))).toEqual({ 'G-single-process': 1 });
  });

  it('holds all to the order of time only when asked, and nobody to that of concurrent ones', () => {
    const history = (begun: number) => ({
      transactions: [
        transaction(1, 'a+1', { begun: 0, ended: 10 }),
        transaction(2, 'a=', { begun, ended: 20 }),
        transaction(3, 'a=1', { begun: 20, ended: 30 }),
      ],
    });
    expect(check(history(11))).toEqual([]);
    expect(countKinds(check(history(11), { realtime: true }))).toEqual({ 'G-single-realtime': 1, 'stale-read': 1 });
    expect(check(history(10), { realtime: true })).toEqual([]);
  });

  it('holds to the order of time whoever is strict, and nobody else', () => {
    const history = (strict: number) => ({
      transactions: [
        transaction(1, 'a+1', { begun: 0, ended: 10 }),
        transaction(2, 'a=', { begun: 11, ended: 20 }),
        transaction(3, 'a=1', { begun: 20, ended: 30 }),
      ].map((one) => ({ ...one, strict: one.id === strict })),
    });
    expect(countKinds(check(history(2)))).toEqual({ 'G-single-realtime': 1, 'stale-read': 1 });
    // T1 need not follow anything, and T3 shows it.
    expect(check(history(1))).toEqual([]);
    expect(check(history(3))).toEqual([]);
  });

  it('lets edges of time that lead to a strict one stand, though others ended in between', () => {
    const transactions = [
      transaction(1, 'a+1', { begun: 0, ended: 10 }),
      transaction(2, 'b=', { begun: 11, ended: 20 }),
      transaction(3, 'a=', { begun: 21, ended: 30, strict: true }),
      transaction(4, 'a=1', { begun: 0, ended: 40 }),
    ];
    expect(countKinds(check({ transactions }))).toEqual({ 'G-single-realtime': 1, 'stale-read': 1 });
  });

  it('takes the word of the cluster for what became of one of unknown outcome, and holds it to that', () => {
    const told = (outcome: Outcome) => transaction(1, 'a+1', { outcome, ended: Infinity });
    const final = (...values: number[]) => new Map([['a', values]]);
    expect(check({ transactions: [told('committed')], final: final(1) })).toEqual([]);
    expect(countKinds(check({ transactions: [told('committed')], final: final() }))).toEqual({ 'lost-append': 1 });
    expect(check({ transactions: [told('aborted')], final: final() })).toEqual([]);
    expect(countKinds(check({ transactions: [told('aborted')], final: final(1) }))).toEqual({ G1a: 1 });
    // Nobody knows when: neither a later one of its session nor a strict one has to show it.
    const later = transaction(2, 'a=', { process: 1, begun: 200, ended: 201, strict: true });
    expect(check({ transactions: [told('committed'), later], final: final(1) }, { process: true })).toEqual([]);
  });
});

describe('nodes that commit in the order "relaxed"', () => {
  const isAllowed = (kind: AnomalyKind) => !isForbidden(kind, 'REPEATABLE READ', 'relaxed');

  it('may let readers disagree on the order of two commits, and nothing else', () => {
    const fork = [transaction(1, 'a+1'), transaction(2, 'b+1'), transaction(3, 'a=1 b='), transaction(4, 'a= b=1')];
    const kinds = check({ transactions: fork }).map(({ kind }) => kind);
    expect(new Set(kinds)).toEqual(new Set(['G-nonadjacent']));
    expect(kinds.every(isAllowed)).toBe(true);
    expect(isForbidden('G-nonadjacent', 'REPEATABLE READ', 'strict')).toBe(true);
    const never: AnomalyKind[] = ['lost-update', 'stale-read', 'G-single', 'G-single-process', 'G1c', 'lost-append'];
    expect(never.filter(isAllowed)).toEqual([]);
  });
});
