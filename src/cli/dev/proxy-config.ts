import { stringify } from 'yaml';
import { HOST } from './ports.ts';
import type { PortPlan, Service } from './ports.ts';

export interface ProxyConfigInput {
  readonly node: number;
  readonly ports: PortPlan;
  readonly secret: string;
  readonly dataDir: string;
  /** Where this node's own PostgreSQL is: a socket directory or a host. */
  readonly postgresHost: string;
  /** False: the nodes reach each other directly. */
  readonly relays: boolean;
  /** The node that only votes. */
  readonly witness?: number | undefined;
  /** The URL of a Redis with the third vote. */
  readonly referee?: string | undefined;
  /** How the proxy replaces its PostgreSQL's data when they can't be brought up to date any more. */
  readonly reclone: { readonly dataDirectory: string; readonly stop: string; readonly start: string };
}

/** The text of one proxy's configuration file: its own addresses are direct, the others' lead through its relays. */
export function proxyConfig(input: ProxyConfigInput): string {
  const { node, ports, secret, dataDir, postgresHost, relays, witness, referee, reclone } = input;
  const address = (to: number, service: Service): { host: string; port: number } => ({
    host: HOST,
    port: to === node || !relays ? ports.of(service, to) : ports.relay(node, to, service),
  });
  const config = {
    node,
    cluster: { name: 'dev', secret },
    data_dir: dataDir,
    ...(node !== witness && { listen: { host: HOST, port: ports.client(node) } }),
    peer_listen: { host: HOST, port: ports.peer(node) },
    admin: { host: HOST, port: ports.admin(node) },
    ...(node !== witness && {
      postgres: { host: postgresHost, port: ports.postgres(node), user: 'postgres', database: 'postgres' },
      databases: ['postgres'],
      reclone: {
        mode: 'automatic',
        data_directory: reclone.dataDirectory,
        stop: reclone.stop,
        start: reclone.start,
        keep_old: false,
      },
    }),
    nodes: ports.ids.map((id) => ({
      id,
      peer: address(id, 'peer'),
      ...(id === witness ? { witness: true } : { postgres: address(id, 'postgres'), client: address(id, 'client') }),
    })),
    ...(referee !== undefined && { referee }),
  };
  return `# Written by \`pgmm dev up\` at each start.\n${stringify(config)}`;
}
