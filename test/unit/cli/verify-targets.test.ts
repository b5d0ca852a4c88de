import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, it } from 'vitest';
import { targetsOfConfig, targetsOfUris } from '../../../src/cli/verify.ts';

const dir = mkdtempSync(join(tmpdir(), 'pgmm-targets-'));
afterAll(() => rmSync(dir, { recursive: true }));

function configWith(second: string): string {
  const file = join(dir, 'pgmm.yaml');
  writeFileSync(
    file,
    `node: 1
cluster: { name: dev, secret: 0123456789abcdef }
postgres: { host: /run/pg, user: admin, password: secret }
databases: [app, other]
nodes:
  - { id: 1, peer: { host: a, port: 1 } }
  - { id: 2, peer: { host: b, port: 1 }${second} }
`,
  );
  return file;
}

it('reaches the own server as the proxy does, and the others where the configuration says', () => {
  const { targets, databases } = targetsOfConfig(configWith(', postgres: { host: b, port: 5433 }'));
  expect(databases).toEqual(['app', 'other']);
  expect(targets.map((target) => [target.name, target.connection('app')])).toMatchObject([
    ['node 1', { host: '/run/pg', port: 5432, user: 'admin', password: 'secret', database: 'app' }],
    ['node 2', { host: 'b', port: 5433, user: 'admin', password: 'secret', database: 'app' }],
  ]);
});

it('refuses a node that it has no address of', () => {
  expect(() => targetsOfConfig(configWith(''))).toThrow('node 2 has no postgres address');
});

it('takes the database of the first URI', () => {
  expect(targetsOfUris(['postgresql://u@h:1/app', 'postgresql://u@h:2/app']).databases).toEqual(['app']);
  expect(targetsOfUris(['postgresql://u@h:1', 'postgresql://u@h:2']).databases).toEqual(['u']);
});
