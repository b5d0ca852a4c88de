import { createServer } from 'node:net';
import { DevError, errorCode } from './dev-error.ts';
import type { Address } from './relay.ts';

export const HOST = '127.0.0.1';
const MAX_DEV_NODES = 9;

/** What one node offers to the others. */
export type Service = 'peer' | 'client' | 'postgres';
export const SERVICES: readonly Service[] = ['peer', 'client', 'postgres'];

export interface RelayPlan {
  /** The node that dials this relay, and the node that it leads to. */
  readonly from: number;
  readonly to: number;
  readonly service: Service;
  readonly port: number;
  readonly target: Address;
}

/**
 * Which port is whose, everything derived from the first one: clients at FIRST.., PostgreSQL at FIRST+100..,
 * peer links at FIRST+200.., metrics and health at FIRST+300.., relays at FIRST+400...
 */
export class PortPlan {
  readonly first: number;
  readonly nodes: number;

  constructor(first: number, nodes: number) {
    this.first = first;
    this.nodes = nodes;
    if (!Number.isInteger(nodes) || nodes < 1 || nodes > MAX_DEV_NODES) {
      throw new DevError(`--nodes must be 1 to ${MAX_DEV_NODES}, not ${nodes}`);
    }
    const last = first + 400 + SERVICES.length * nodes * (nodes - 1);
    if (!Number.isInteger(first) || first < 1 || last > 65_535) {
      throw new DevError(`--port must be 1 to ${65_535 - (last - first)}: ${last - first} ports above it are used too`);
    }
  }

  get ids(): number[] {
    return Array.from({ length: this.nodes }, (_, index) => index + 1);
  }

  client(node: number): number {
    return this.first + node - 1;
  }
  postgres(node: number): number {
    return this.first + 100 + node - 1;
  }
  peer(node: number): number {
    return this.first + 200 + node - 1;
  }
  admin(node: number): number {
    return this.first + 300 + node - 1;
  }

  of(service: Service, node: number): number {
    return this[service](node);
  }

  /** The port through which `from` reaches a service of `to`. */
  relay(from: number, to: number, service: Service): number {
    const others = this.ids.filter((id) => id !== from);
    const pair = (from - 1) * (this.nodes - 1) + others.indexOf(to);
    return this.first + 400 + pair * SERVICES.length + SERVICES.indexOf(service);
  }

  get relays(): RelayPlan[] {
    return this.ids.flatMap((from) =>
      this.ids
        .filter((to) => to !== from)
        .flatMap((to) =>
          SERVICES.map((service) => ({
            from,
            to,
            service,
            port: this.relay(from, to, service),
            target: { host: HOST, port: this.of(service, to) },
          })),
        ),
    );
  }

  /** Every port with its purpose, as an error message names it. */
  purposes(withRelays: boolean): { readonly port: number; readonly purpose: string }[] {
    const own = this.ids.flatMap((node) => [
      { port: this.client(node), purpose: `clients of node ${node}` },
      { port: this.postgres(node), purpose: `PostgreSQL of node ${node}` },
      { port: this.peer(node), purpose: `peer links of node ${node}` },
      { port: this.admin(node), purpose: `metrics of node ${node}` },
    ]);
    if (!withRelays) return own;
    const relays = this.relays.map(({ port, from, to, service }) => ({
      port,
      purpose: `the relay from node ${from} to node ${to}'s ${service} port`,
    }));
    return [...own, ...relays];
  }
}

/** Throws a message that names the first port in use. Whoever takes one in between still gets an error, a later one. */
export async function assertPortsFree(plan: PortPlan, withRelays: boolean): Promise<void> {
  for (const { port, purpose } of plan.purposes(withRelays)) {
    const problem = await portProblem(port);
    if (problem === undefined) continue;
    throw new DevError(
      `port ${port} (${purpose}) ${problem}; choose other ports with --port FIRST ` +
        `(clients from FIRST, PostgreSQL from FIRST+100, peer links +200, metrics +300, relays +400)`,
    );
  }
}

/** Why nothing can listen there; undefined when something can. */
export async function portProblem(port: number): Promise<string | undefined> {
  return await new Promise((resolve) => {
    const server = createServer();
    server.once('error', (error) =>
      resolve(errorCode(error) === 'EADDRINUSE' ? 'is in use' : `can't be listened on: ${error.message}`),
    );
    server.listen(port, HOST, () => server.close(() => resolve(undefined)));
  });
}
