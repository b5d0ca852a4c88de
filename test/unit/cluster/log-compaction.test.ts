import { expect, test } from 'vitest';
import { dispensable } from '../../../src/cluster/log-compaction.ts';
import type { LogIndex } from '../../../src/runtime/ids.ts';

const index = (n: number) => n as LogIndex;

test.each([
  ['what every node has committed', [90, 95], 100, 1000, 90],
  ['nothing that was not delivered here', [120, 130], 100, 1000, 100],
  ['nothing while a node was never heard of, and the log is short', [0, 130], 100, 1000, 0],
  ['what is far behind, however long a node is away', [7, 5000], 5000, 1000, 4000],
])('a witness dispenses with %s', (_what, committed, delivered, retain, expected) => {
  expect(dispensable(committed.map(index), index(delivered), retain)).toBe(expected);
});
