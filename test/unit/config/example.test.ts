import { readFileSync } from 'node:fs';
import { describe, expect, it } from 'vitest';
import { parse } from 'yaml';
import { parseConfig } from '../../../src/config/load.ts';
import { allSettings } from '../../../src/config/shape.ts';

const FILE = 'config.example.yaml';
const text = readFileSync(new URL(`../../../${FILE}`, import.meta.url), 'utf8');
/** `#name:` is a setting without a default, `# words` is prose. */
const uncommented = text.replaceAll(/^( *)#(?=[a-z_]+:)/gm, '$1');

/** The settings that a parsed file gives, named as `allSettings` names them. */
function settingsIn(value: unknown, name = ''): string[] {
  if (Array.isArray(value)) {
    return [
      ...new Set(value.flatMap((element) => settingsIn(element, typeof element === 'object' ? `${name}[]` : name))),
    ];
  }
  if (typeof value !== 'object' || value === null) return [name];
  return Object.entries(value).flatMap(([key, inner]) => settingsIn(inner, name === '' ? key : `${name}.${key}`));
}

describe('config.example.yaml', () => {
  it('lists exactly the settings there are', () => {
    expect(settingsIn(parse(uncommented)).sort()).toEqual(allSettings().sort());
  });

  it('loads, and its values are the defaults', () => {
    const { node, cluster, nodes } = parse(text) as Record<string, unknown>;
    const required = JSON.stringify({ node, cluster, nodes });
    expect(parseConfig(text, FILE)).toEqual(parseConfig(required, FILE));
  });

  it('says something about every setting', () => {
    const plain = ['host', 'port', 'id', 'peer'];
    const lines = text.split('\n');
    const undocumented = lines.filter((line, i) => {
      const name = /^ *#?(?:- )?([a-z_]+): \S/.exec(line)?.[1];
      return name !== undefined && !plain.includes(name) && !/^ *# /.test(lines[i - 1]);
    });
    expect(undocumented).toEqual([]);
  });
});
