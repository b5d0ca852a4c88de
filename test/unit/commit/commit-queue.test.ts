import { expect, test } from 'vitest';
import { CommitProgress } from '../../../src/commit/core/commit-progress.ts';
import { CommitQueue, type DecidedCommit } from '../../../src/commit/core/commit-queue.ts';
import { logIndex, type Gid } from '../../../src/runtime/ids.ts';

const at = logIndex;
const entry = (index: number): DecidedCommit => ({
  index: at(index),
  gid: `g${index}` as Gid,
  database: 'app',
  time: 0,
  dependsOn: at(0),
  notify: false,
});

test('hands out in log order, and waits for what is not prepared', () => {
  const queue = new CommitQueue(at(0), at(0));
  for (const index of [1, 2, 3]) queue.add(entry(index));
  const prepared = new Set(['g1', 'g3']);
  const isPrepared = ({ gid }: DecidedCommit) => prepared.has(gid);
  expect(queue.next(isPrepared)?.index).toBe(1);
  expect(queue.next(isPrepared)).toBeUndefined();
  prepared.add('g2');
  expect(queue.next(isPrepared)?.index).toBe(2);
  expect(queue.next(isPrepared)?.index).toBe(3);
});

test('hands out again what PostgreSQL had not committed when it came back', () => {
  const queue = new CommitQueue(at(0), at(0));
  for (const index of [1, 2]) queue.add(entry(index));
  queue.next(() => true);
  queue.next(() => true);
  queue.recovered(at(1), new CommitProgress([[at(1)]]));
  expect(queue.handedOut).toBe(1);
  expect(queue.next(() => true)?.index).toBe(2);
});

test('what commits nothing counts as committed, up to the first entry that waits', () => {
  const queue = new CommitQueue(at(0), at(0));
  queue.applied(at(4));
  expect(queue.committed).toBe(4);
  queue.add(entry(5));
  queue.applied(at(7));
  expect(queue.committed).toBe(4);
  queue.done(at(5));
  expect(queue.committed).toBe(7);
});

test('claims nothing that a snapshot hides until it is filled in', () => {
  const queue = new CommitQueue(at(8), at(9));
  queue.recovered(at(3), new CommitProgress([[at(3)]]));
  expect(queue.isComplete).toBe(false);
  expect(queue.committed).toBe(3);
  queue.add(entry(10));
  expect(queue.next(() => true)).toBeUndefined();
  expect(() => queue.fill([entry(5)])).toThrow('up to 5 only');
  queue.fill([entry(5), entry(8)]);
  expect([...queue.pending()].map(({ index }) => index)).toEqual([5, 8, 10]);
  expect(queue.has('g5' as Gid)).toBe(true);
  expect(queue.committed).toBe(4);
  expect(queue.next(() => true)?.index).toBe(5);
});

test('a committed index never goes back', () => {
  const queue = new CommitQueue(at(0), at(0));
  queue.done(at(4));
  expect(() => queue.done(at(3))).toThrow('I7');
});

test('passes over what several lanes have committed beyond the first that is missing', () => {
  const found = new CommitProgress([[at(8), at(5), at(6), at(3)], [at(2)]]);
  expect(found.contiguous).toBe(6);
  expect(found.highest).toBe(8);
  const queue = new CommitQueue(at(0), at(0));
  for (const index of [6, 7, 8]) expect(queue.add(entry(index))).toBe(true);
  queue.recovered(found.contiguous, found);
  expect([...queue.pending()].map(({ index }) => index)).toEqual([7]);
  expect(queue.has('g8' as Gid)).toBe(false);
  expect(queue.handedOut).toBe(8);
  expect([8, 9].map((index) => queue.add(entry(index)))).toEqual([false, true]);
  expect(queue.next(() => true)?.index).toBe(7);
  queue.done(at(7));
  queue.applied(at(9));
  expect(queue.committed).toBe(8);
});
