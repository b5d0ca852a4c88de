import { createReadStream } from 'node:fs';
import { createInterface } from 'node:readline';
import type { Difference } from './report.ts';

/** Ledgers have one line per commit, in order. Compares them line by line, and reports where they part. */
export async function compareLedgers(files: readonly string[]): Promise<Difference[]> {
  if (files.length < 2) return [];
  const readers = files.map((file) => createInterface({ input: createReadStream(file), crlfDelay: Infinity }));
  const lines = readers.map((reader) => reader[Symbol.asyncIterator]());
  try {
    for (let number = 1; ; number++) {
      const next = await Promise.all(lines.map((iterator) => iterator.next()));
      if (next.every(({ done }) => done)) return [];
      const texts = next.map(({ done, value }) => (done ? 'ends' : value));
      if (new Set(texts).size > 1) {
        const nodes = Object.fromEntries(files.map((file, index) => [file, texts[index]]));
        return [{ kind: 'ledger', object: `line ${number}`, nodes }];
      }
    }
  } finally {
    for (const reader of readers) reader.close();
  }
}
