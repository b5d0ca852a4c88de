import { expect, it } from 'vitest';
import { PortPlan } from '../../../src/cli/dev/ports.ts';
import { proxyConfig } from '../../../src/cli/dev/proxy-config.ts';
import { parseConfig } from '../../../src/config/load.ts';

it('what pgmm dev writes can be read', () => {
  const ports = new PortPlan(6001, 3);
  const text = proxyConfig({ node: 2, ports, secret: 'x'.repeat(32), dataDir: '/d', postgresHost: '/s', relays: true });
  const config = parseConfig(text, 'pgmm.yaml');
  expect(config.nodes.map(({ id }) => id)).toEqual([1, 2, 3]);
  expect(config.postgres).toMatchObject({ host: '/s', port: ports.postgres(2) });
});
