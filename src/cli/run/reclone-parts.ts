import type { CloneClient } from '../../cluster/reclone/clone-client.ts';
import { CloneServer } from '../../cluster/reclone/clone-server.ts';
import type { CopyTarget } from '../../cluster/reclone/copy-target.ts';
import { DataDirectory } from '../../cluster/reclone/data-directory.ts';
import { donorsAmong } from '../../cluster/reclone/donors.ts';
import { LogicalTarget } from '../../cluster/reclone/logical-target.ts';
import { PhysicalTarget } from '../../cluster/reclone/physical-target.ts';
import { Recloner } from '../../cluster/reclone/recloner.ts';
import { placeTablespaces, type OwnPlaces } from '../../cluster/reclone/tablespace-places.ts';
import type { BypassRecord } from '../../cluster/bypass-record.ts';
import type { CatchUp } from '../../cluster/catch-up.ts';
import type { ClusterNode } from '../../cluster/node.ts';
import type { PeerLinks } from '../../cluster/peer-links.ts';
import { clientConfig } from '../../config/client-config.ts';
import type { Config } from '../../config/schema.ts';
import { BaseBackup } from '../../replication/base-backup/base-backup.ts';
import { readTablespaces, TABLESPACES, type Tablespace } from '../../replication/base-backup/tablespaces.ts';
import { UnlikeServer } from '../../replication/copy-source.ts';
import type { LocalReplica } from '../../replication/local-replica.ts';
import { READER } from '../../replication/logical-copy/cut.ts';
import type { TargetServer } from '../../replication/logical-copy/loader.ts';
import { LogicalCopy } from '../../replication/logical-copy/logical-copy.ts';
import { maintenanceDatabase } from '../../replication/logical-copy/names.ts';
import type { LibpqEnvironment } from '../../replication/logical-copy/schema-dump.ts';
import type { RaftNode } from '../../consensus/raft-node.ts';
import type { Logger } from '../../runtime/log.ts';
import { ServerConnection, type ConnectionOptions } from '../../wire/connection.ts';
import { dataNodes } from './parts.ts';

export interface RecloneParts {
  readonly node: ClusterNode;
  readonly raft: RaftNode;
  readonly links: PeerLinks;
  readonly catchUp: CatchUp;
  readonly replica: LocalReplica;
  readonly bypasses: BypassRecord;
  readonly client: CloneClient;
  readonly log: Logger;
  /** The proxy is to stop, so that the copy can be put in place. */
  readonly complete: () => void;
}

/** What this node gives to others. */
export function createCloneServer(config: Config, replica: LocalReplica): CloneServer {
  const server = serverOptions(config);
  const { node, databases, reclone } = config;
  return new CloneServer(async ({ method = 'physical', major, architecture, databases: wanted = [] }) => {
    if (method === 'physical') {
      if (architecture !== undefined && architecture !== process.arch)
        throw new UnlikeServer(`it runs on ${process.arch}, and a physical copy for ${architecture} is needed`);
      return BaseBackup.begin(ownServer(config), reclone.maxRate, major);
    }
    const missing = wanted.filter((name) => !databases.includes(name));
    if (missing.length > 0) throw new Error(`database ${missing.join(', ')} is not among databases: of node ${node}`);
    return LogicalCopy.begin({
      ...{ server, node, databases: wanted, rate: reclone.maxRate, forMajor: major ?? 0 },
      ...{ toolsDirectory: reclone.toolsDirectory, environment: libpqEnvironment(config) },
      hold: (limit, look) => replica.holdCommits(limit, look),
    });
  });
}

function ownServer(config: Config): ConnectionOptions {
  return { ...serverOptions(config), database: config.databases[0], applicationName: 'pgmm copy' };
}

function serverOptions({ postgres, keepalive }: Config): TargetServer['server'] {
  const { host, port, user, password, ssl } = clientConfig(postgres);
  return {
    host: host ?? postgres.host,
    port: port ?? postgres.port,
    user: user ?? postgres.user,
    password: typeof password === 'string' ? password : undefined,
    ...{ ssl, keepalive },
  };
}

/** pg_dump connects as the proxy does. Secrets are in the environment rather than in arguments, which everybody sees. */
function libpqEnvironment({ postgres }: Config): LibpqEnvironment {
  return {
    PGHOST: postgres.host,
    PGPORT: String(postgres.port),
    PGUSER: postgres.user,
    PGSSLMODE: postgres.ssl,
    PGAPPNAME: READER,
    ...(postgres.password !== undefined && { PGPASSWORD: postgres.password }),
    ...(postgres.sslCaFile !== undefined && { PGSSLROOTCERT: postgres.sslCaFile }),
  };
}

async function place(config: Config, donors: readonly Tablespace[]): Promise<readonly Tablespace[]> {
  return placeTablespaces(donors, { set: config.reclone.tablespaces, present: await presentTablespaces(config) });
}

/** Where this node's PostgreSQL has its tablespaces. It may well be down, or not start any more. */
async function presentTablespaces(config: Config): Promise<OwnPlaces['present']> {
  try {
    const server = await ServerConnection.connect(ownServer(config));
    try {
      return readTablespaces(await server.query(TABLESPACES));
    } finally {
      server.end();
    }
  } catch (error) {
    return { problem: (error as Error).message };
  }
}

/** Where this node's PostgreSQL stands for a logical copy. Throws where there is no database to make it from. */
export function createLogicalTarget(config: Config): LogicalTarget {
  const { databases, postgres, node, cluster, sequences, dataDir } = config;
  const maintenance = maintenanceDatabase(databases, postgres.database);
  const target = { databases, maintenance, node, cluster: cluster.name, stride: sequences.stride };
  return new LogicalTarget({ server: serverOptions(config), ...target }, dataDir);
}

/** The ways in which this node can take a copy in, the best one first; and why there are none. */
function createTargets(config: Config): { targets: CopyTarget[]; unusable: string } {
  const { method, dataDirectory, stop, start } = config.reclone;
  const targets: CopyTarget[] = [];
  if (method !== 'logical' && dataDirectory !== undefined && stop !== undefined && start !== undefined)
    targets.push(
      new PhysicalTarget(new DataDirectory(dataDirectory), config.databases, (donors) => place(config, donors)),
    );
  let unusable = 'reclone.data_directory, stop and start are not set';
  if (method === 'physical') return { targets, unusable };
  try {
    targets.push(createLogicalTarget(config));
  } catch (error) {
    unusable += `, and ${(error as Error).message}`;
  }
  return { targets, unusable };
}

export function createRecloner(config: Config, parts: RecloneParts): Recloner {
  const { node, raft, links, catchUp, client, log, complete } = parts;
  const { mode, wait } = config.reclone;
  const others = dataNodes(config)
    .map(({ id }) => id)
    .filter((id) => id !== config.node);
  return new Recloner({
    automatic: mode === 'automatic',
    ...createTargets(config),
    ...{ wait, others, client, log, complete, directory: config.dataDir },
    hopeless: () => catchUp.hopeless,
    isMember: () => node.core.state === 'member',
    worthKeeping: () => worthKeeping(parts),
    donors: () =>
      donorsAmong(others, {
        leader: raft.status.leader,
        isMember: (id) => node.core.guard.members.has(id),
        isUp: (id) => links.isUp(id),
        heardOf: (id) => node.heardOf(id),
      }),
  });
}

/** Automatic copies are for data that others have, too. */
function worthKeeping({ bypasses, replica }: RecloneParts): string | undefined {
  const { count, last, unseen } = bypasses.current;
  if (last !== null)
    return (
      `${count} transactions went past the proxy of this node, the last at ${last.at} on ${last.tables.join(', ')}, and their changes would be lost: ` +
      'see what is to be saved, then "pgmm reclone"'
    );
  if (unseen.length > 0)
    return (
      `writes may have gone past the proxy of this node before ${unseen[0].at}, in WAL that was lost, and their changes would be lost, too: ` +
      'see what is to be saved (pgmm verify), then "pgmm reclone"'
    );
  return replica.hasReadWal ? undefined : 'it is not known yet whether writes went past the proxy of this node';
}
