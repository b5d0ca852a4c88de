/** Some of the deliberate faults; `npx tsx test/sim/mutations-main.ts` tries all of them. */
import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { judge } from './mutate.ts';
import { MUTATIONS } from './mutations.ts';

const SAMPLE: readonly (readonly [name: string, rule: string])[] = [
  ['votes before PREPARE is durable', 'I4'],
  ['commits what is prepared, in any order', 'I7'],
  ['claims what a snapshot hides', 'I7'],
  ['writes before it has what precedes its admission', 'lost update'],
  ['overrules what locks whole tables like any other', 'starvation'],
  ['blames members for what they have not heard of', 'blame'],
];

test('every deliberate fault names text that is there, once', () => {
  const lost = MUTATIONS.flatMap(({ name, edits }) =>
    edits
      .filter(
        ([file, from]) => readFileSync(new URL(`../../${file}`, import.meta.url), 'utf8').split(from).length !== 2,
      )
      .map(([file, from]) => `${name}: ${file}: ${from}`),
  );
  expect(lost).toEqual([]);
});

test.each(SAMPLE)('%s: noticed as %s', { timeout: 120_000 }, async (name, rule) => {
  const mutation = MUTATIONS.find((one) => one.name === name);
  if (mutation === undefined) throw new Error(`no mutation is named "${name}"`);
  expect(await judge(mutation, 300, 3000)).toMatchObject({ rule });
});
