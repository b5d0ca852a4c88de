import { describe, expect, it } from 'vitest';
import { PortPlan, SERVICES, assertPortsFree } from '../../../src/cli/dev/ports.ts';
import { freeFirstPort, occupy } from '../../support/free-ports.ts';

describe('the port plan', () => {
  it.each([1, 2, 3, 5, 9])('gives every purpose of %i nodes a port of its own', (nodes) => {
    const plan = new PortPlan(6001, nodes);
    const ports = plan.purposes(true).map(({ port }) => port);
    expect(new Set(ports).size).toBe(ports.length);
    expect(ports).toHaveLength(4 * nodes + SERVICES.length * nodes * (nodes - 1));
  });

  it('derives all ports from the first', () => {
    const plan = new PortPlan(6001, 3);
    expect([plan.client(1), plan.client(3), plan.postgres(2), plan.peer(2), plan.admin(2)]).toEqual([
      6001, 6003, 6102, 6202, 6302,
    ]);
    expect(plan.relays[0]).toEqual({
      from: 1,
      to: 2,
      service: 'peer',
      port: 6401,
      target: { host: '127.0.0.1', port: 6202 },
    });
    expect(plan.relay(3, 2, 'postgres')).toBe(6401 + 17);
  });

  it('refuses what does not fit', () => {
    expect(() => new PortPlan(6001, 0)).toThrow('--nodes must be 1 to 9');
    expect(() => new PortPlan(6001, 10)).toThrow('--nodes must be 1 to 9');
    expect(() => new PortPlan(65_500, 3)).toThrow('--port must be 1 to 65117');
    expect(() => new PortPlan(65_117, 3)).not.toThrow();
  });

  it('names the busy port, what it is for, and the option', async () => {
    const first = await freeFirstPort(2);
    const plan = new PortPlan(first, 2);
    await assertPortsFree(plan, true);
    const release = await occupy(first + 401);
    try {
      await assertPortsFree(plan, false);
      await expect(assertPortsFree(plan, true)).rejects.toThrow(
        `port ${first + 401} (the relay from node 1 to node 2's client port) is in use; choose other ports with --port FIRST`,
      );
    } finally {
      await release();
    }
  });
});
