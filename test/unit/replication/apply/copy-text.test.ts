import fc from 'fast-check';
import { expect, it } from 'vitest';
import { CopyText } from '../../../../src/replication/apply/copy-text.ts';

const LETTERS: Readonly<Record<string, string>> = { t: '\t', n: '\n', r: '\r', '\\': '\\' };

/** COPY's text format as the server reads it ("File Formats"), byte by byte. */
function parse(text: string): (string | null)[][] {
  expect(text.endsWith('\n')).toBe(true);
  return text
    .slice(0, -1)
    .split('\n')
    .map((line) => {
      expect(line).not.toBe('\\.');
      return line.split('\t').map((value) => {
        if (value === '\\N') return null;
        return value.replaceAll(/\\(.?)/g, (_, letter: string) => LETTERS[letter] ?? `unknown escape ${letter}`);
      });
    });
}

/** Those that the format gives a meaning, those that escapes are made of, and some others. */
const CHARACTERS = ['\\', '\t', '\n', '\r', 'N', '.', 'n', 't', 'r', '"', 'a', '\u00e9', '\u0001'];

const ROWS = fc.integer({ min: 1, max: 5 }).chain((columns) =>
  fc.array(
    fc.array(fc.option(fc.string({ unit: fc.constantFrom(...CHARACTERS) })), {
      minLength: columns,
      maxLength: columns,
    }),
    { minLength: 1, maxLength: 30 },
  ),
);

it('gives back every row of any bytes', () => {
  fc.assert(
    fc.property(ROWS, (rows) => {
      const copy = new CopyText();
      for (const row of rows) copy.row(row.map((value) => (value === null ? null : Buffer.from(value, 'latin1'))));
      expect(parse(copy.take().toString('latin1'))).toEqual(rows);
      expect(copy.length).toBe(0);
    }),
  );
});

it('grows with what it is given', () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 0, max: 200_000 }), { maxLength: 8 }), (lengths) => {
      const copy = new CopyText();
      for (const length of lengths) copy.row([Buffer.alloc(length, length % 2 === 0 ? 'x' : '\\')]);
      const sizes = lengths.map((length) => (length % 2 === 0 ? length : 2 * length) + 1);
      expect(copy.length).toBe(sizes.reduce((sum, size) => sum + size, 0));
      expect(copy.take()).toHaveLength(sizes.reduce((sum, size) => sum + size, 0));
    }),
    { numRuns: 30 },
  );
});
