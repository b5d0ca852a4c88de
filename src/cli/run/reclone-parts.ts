import type { CloneClient } from '../../cluster/reclone/clone-client.ts';
import { CloneServer } from '../../cluster/reclone/clone-server.ts';
import { DataDirectory } from '../../cluster/reclone/data-directory.ts';
import { Recloner, type Donor } from '../../cluster/reclone/recloner.ts';
import { placeTablespaces, type OwnPlaces } from '../../cluster/reclone/tablespace-places.ts';
import type { BypassRecord } from '../../cluster/bypass-record.ts';
import type { CatchUp } from '../../cluster/catch-up.ts';
import type { ClusterNode } from '../../cluster/node.ts';
import type { PeerLinks } from '../../cluster/peer-links.ts';
import { clientConfig } from '../../config/client-config.ts';
import type { Config } from '../../config/schema.ts';
import { BaseBackup } from '../../replication/base-backup/base-backup.ts';
import { readTablespaces, TABLESPACES, type Tablespace } from '../../replication/base-backup/tablespaces.ts';
import type { LocalReplica } from '../../replication/local-replica.ts';
import type { RaftNode } from '../../consensus/raft-node.ts';
import type { NodeId } from '../../runtime/ids.ts';
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

export function createCloneServer(config: Config): CloneServer {
  return new CloneServer(() => BaseBackup.begin(ownServer(config), config.reclone.maxRate));
}

function ownServer({ postgres, databases, keepalive }: Config): ConnectionOptions {
  const { host, port, user, password, ssl } = clientConfig(postgres);
  return {
    host: host ?? postgres.host,
    port: port ?? postgres.port,
    user: user ?? postgres.user,
    password: typeof password === 'string' ? password : undefined,
    ssl,
    database: databases[0],
    applicationName: 'pgmm copy',
    keepalive,
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

export function createRecloner(config: Config, parts: RecloneParts): Recloner {
  const { node, catchUp, client, log, complete } = parts;
  const { mode, dataDirectory, stop, start, wait } = config.reclone;
  const others = dataNodes(config)
    .map(({ id }) => id)
    .filter((id) => id !== config.node);
  const canBePutInPlace = dataDirectory !== undefined && stop !== undefined && start !== undefined;
  return new Recloner({
    automatic: mode === 'automatic',
    data: canBePutInPlace ? new DataDirectory(dataDirectory) : undefined,
    ...{ wait, others, client, log, complete, directory: config.dataDir },
    place: (found) => place(config, found),
    hopeless: () => catchUp.hopeless,
    isMember: () => node.core.state === 'member',
    worthKeeping: () => worthKeeping(parts),
    donors: () => donors(others, parts),
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

function donors(others: readonly NodeId[], { node, raft, links }: RecloneParts): readonly Donor[] {
  const { leader } = raft.status;
  // Without a leader it is not known who is a member.
  if (leader === null) return [];
  return others
    .filter((id) => links.isUp(id) && node.core.guard.members.has(id) && node.heardOf(id)?.postgres)
    .sort((a, b) => Number(a === leader) - Number(b === leader))
    .map((id) => ({ node: id, bypassed: node.heardOf(id)?.bypassed ?? false }));
}
