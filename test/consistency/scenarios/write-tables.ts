import { readFileSync, writeFileSync } from 'node:fs';
import { DOCUMENT, withTables } from './table.ts';

/** Brings docs/isolation.md up to date with the scenarios. */
writeFileSync(DOCUMENT, await withTables(readFileSync(DOCUMENT, 'utf8')));
