import { readFileSync } from 'node:fs';
import { expect, test } from 'vitest';
import { DOCUMENT, withTables } from '../../consistency/scenarios/table.ts';

test('docs/isolation.md says what the scenarios say: else run test/consistency/scenarios/write-tables.ts', async () => {
  const text = readFileSync(DOCUMENT, 'utf8');
  expect(text).toBe(await withTables(text));
});
