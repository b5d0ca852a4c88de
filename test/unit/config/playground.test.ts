import { expect, it } from 'vitest';
import { PortPlan } from '../../../src/cli/dev/ports.ts';
import { proxyConfig } from '../../../src/cli/dev/proxy-config.ts';
import { isWitness } from '../../../src/config/schema.ts';
import { parseConfig } from '../../../src/config/load.ts';

const reclone = { dataDirectory: '/pg', stop: 'stop', start: 'start' };

it('what pgmm dev writes can be read', () => {
  const ports = new PortPlan(6001, 3);
  const text = proxyConfig({
    node: 2,
    ports,
    secret: 'x'.repeat(32),
    dataDir: '/d',
    postgresHost: '/s',
    relays: true,
    reclone,
  });
  const config = parseConfig(text, 'pgmm.yaml');
  expect(config.nodes.map(({ id }) => id)).toEqual([1, 2, 3]);
  expect(config.postgres).toMatchObject({ host: '/s', port: ports.postgres(2) });
});

it('what pgmm dev writes of a third vote can be read', () => {
  const of = (node: number, more: { witness?: number; referee?: string }, nodes = 3) => {
    const ports = new PortPlan(6001, nodes);
    const input = { node, ports, secret: 'x'.repeat(32), dataDir: '/d', postgresHost: '/s', relays: true, reclone };
    return parseConfig(proxyConfig({ ...input, ...more }), 'pgmm.yaml');
  };
  expect(isWitness(of(3, { witness: 3 }))).toBe(true);
  expect(isWitness(of(1, { witness: 3 }))).toBe(false);
  expect(of(1, { referee: 'redis://h' }, 2).referee).toMatchObject({ url: 'redis://h' });
});
