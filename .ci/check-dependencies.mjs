/**
 * Runs dependency-cruiser over src and fails on a violation, or when fewer modules were read than src has files: with a
 * compiler that dependency-cruiser does not know it reads none, and says that all is well.
 */
import { readdirSync } from 'node:fs';
import { cruise, format } from 'dependency-cruiser';
import extractTSConfig from 'dependency-cruiser/config-utl/extract-ts-config';
import config from '../.dependency-cruiser.cjs';

const files = readdirSync('src', { recursive: true }).filter((name) => name.endsWith('.ts'));
const result = await cruise(
  ['src'],
  { ...config.options, ruleSet: { forbidden: config.forbidden }, validate: true },
  undefined,
  { tsConfig: extractTSConfig('tsconfig.json') },
);
const output = result.output;
const modules = output.modules.filter((module) => module.source.startsWith('src/'));
const { output: text } = await format(output, { outputType: 'err' });
console.log(text.trim());
if (files.length === 0 || modules.length < files.length) {
  console.error(`dependency-cruiser read ${modules.length} of ${files.length} modules: the rules were not checked`);
  process.exitCode = 1;
} else if (output.summary.error > 0) {
  process.exitCode = 1;
}
