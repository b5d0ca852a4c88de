/** A proxy of the playground with other settings than those that it is given: PGMM_TEST_CONFIG has them as JSON, PGMM_TEST_MAIN the program. */
import { readFileSync, writeFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { parse, stringify } from 'yaml';

const at = process.argv.indexOf('--config') + 1;
const file = process.argv[at];
const settings = JSON.parse(process.env['PGMM_TEST_CONFIG'] ?? '{}') as object;
const changed = `${file}.changed.yaml`;
writeFileSync(changed, stringify({ ...(parse(readFileSync(file, 'utf8')) as object), ...settings }));
process.argv[at] = changed;
await import(pathToFileURL(process.env['PGMM_TEST_MAIN']!).href);
