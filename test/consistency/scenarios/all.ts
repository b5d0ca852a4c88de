import { foreignKeys, keys } from './keys.ts';
import { locks } from './locks.ts';
import { reading } from './reading.ts';
import { rows } from './rows.ts';
import { schema } from './schema.ts';
import type { Section } from './scenario.ts';

/** In the order of the document. */
export const SECTIONS: readonly Section[] = [rows, keys, foreignKeys, reading, locks, schema];
