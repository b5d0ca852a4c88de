import type { ClusterNode, DecisionLog } from '../../cluster/node.ts';
import type { NodeSettings } from '../../cluster/core/types.ts';
import { PeerLinks } from '../../cluster/peer-links.ts';
import type { PeerLogs } from '../../cluster/peer-logs.ts';
import type { Config, NodeConfig } from '../../config/schema.ts';
import { DEFAULT_LIMITS, type Restored, type Snapshot } from '../../consensus/core/types.ts';
import type { Memory } from '../../consensus/core/standing.ts';
import { REFEREE } from '../../consensus/core/referee.ts';
import type { LogStore } from '../../consensus/log-store.ts';
import { RaftNode } from '../../consensus/raft-node.ts';
import { Referee } from '../../consensus/referee/referee.ts';
import type { Metrics } from '../../admin/metrics.ts';
import { faultPoint } from '../../runtime/fault-points.ts';
import type { LogIndex } from '../../runtime/ids.ts';
import type { Logger } from '../../runtime/log.ts';

/** Ticks of the Raft core per minimum election timeout. */
export const ELECTION_TICKS = 10;

/** The nodes that hold data: all but witnesses. */
export function dataNodes({ nodes }: Pick<Config, 'nodes'>): readonly NodeConfig[] {
  return nodes.filter(({ witness }) => !witness);
}

/** Where applications connect to this node, for hints. */
export function ownClientAddress({ node, nodes, listen }: Pick<Config, 'node' | 'nodes' | 'listen'>): string {
  const { host, port } = nodes.find(({ id }) => id === node)?.client ?? listen;
  return ['0.0.0.0', '::', '*'].includes(host) ? `port ${port} of this machine` : `${host}:${port}`;
}

export function nodeSettings(config: Config): NodeSettings {
  const { node, heartbeat, member, commit } = config;
  const ids = dataNodes(config).map(({ id }) => id);
  return {
    self: node,
    nodes: ids,
    voters: config.nodes.map(({ id }) => id),
    heartbeatTimeout: heartbeat.timeout,
    voteTimeout: member.voteTimeout,
    decisionTimeout: commit.decisionTimeout,
    resendAfter: 500,
    minimumMembers: minimumMembers(ids.length),
  };
}

/**
 * A majority of the nodes that hold data, so that what is acknowledged is on a majority of disks; of two nodes one, as
 * otherwise the third vote would be of no use.
 */
function minimumMembers(nodes: number): number {
  return nodes <= 2 ? 1 : Math.floor(nodes / 2) + 1;
}

export interface LinkParts {
  readonly peerLogs: PeerLogs;
  /** Both are asked for later: the parts are made one after the other and know each other. */
  readonly node: () => ClusterNode;
  readonly raft: () => RaftNode;
  /** The name of this node's decision log. */
  readonly ownLog: string;
  /** See PeerLinksOptions. */
  readonly wentBack: (had: LogIndex, reason: string) => void;
}

export function createLinks(config: Config, log: Logger, parts: LinkParts): PeerLinks {
  const { peerLogs, node, raft, ownLog, wentBack } = parts;
  const { nodes, cluster, peerListen, keepalive, heartbeat } = config;
  return new PeerLinks({
    self: config.node,
    cluster: cluster.name,
    secret: cluster.secret,
    listen: peerListen,
    peers: new Map(nodes.map(({ id, peer }) => [id, peer])),
    keepalive,
    silence: heartbeat.timeout * 2,
    log,
    peerLogs,
    ownLog: () => ({ name: ownLog, last: raft().status.durableIndex }),
    onWentBack: wentBack,
    onMessage: (from, message) => {
      if (message.t === 'beat' && message.decided !== undefined)
        peerLogs.heard(from, message.decided, message.votes === true);
      node().onMessage(from, message);
    },
    onBulk: (from, message) => node().onBulk(from, message),
    onUp: (peer) => node().step({ type: 'link-up', peer }),
    onDown: (peer) => {
      log.warn({ peer }, 'peer link down');
      node().onLinkDown(peer);
    },
  });
}

export interface RaftParts {
  readonly restored: Restored;
  readonly memory: Memory;
  readonly storage: LogStore;
  readonly links: PeerLinks;
  readonly node: () => ClusterNode;
  /** The leader's snapshot has replaced the log up to its index. */
  readonly installed: (snapshot: Snapshot) => void;
  /** Seconds that entries took to become durable. */
  readonly durable: (seconds: number) => void;
  readonly failed: (error: Error) => void;
  /** The third vote of two nodes, where it is a Redis. */
  readonly referee?: Referee | undefined;
}

export function createRaft(config: Config, parts: RaftParts): RaftNode {
  const { restored, memory, storage, links, node, installed, durable, failed, referee } = parts;
  return new RaftNode({
    config: {
      ...DEFAULT_LIMITS,
      id: config.node,
      voters: [...config.nodes.map(({ id }) => id), ...(referee === undefined ? [] : [REFEREE])],
      electionTicks: ELECTION_TICKS,
      heartbeatTicks: 2,
      seed: (Date.now() ^ process.pid) >>> 0,
      retainEntries: config.raft.retainEntries,
      learner: memory.counts ? undefined : memory.name,
    },
    restored,
    storage: {
      append: async (request) => {
        const begun = performance.now();
        await storage.append(request);
        if (request.entries.length > 0) faultPoint('leader.entry.durable');
        durable((performance.now() - begun) / 1000);
        const last = request.entries.at(-1);
        if (last !== undefined) referee?.stored(last);
      },
      compact: (snapshot) => storage.compact(snapshot),
      close: () => storage.close(),
    },
    send: (to, message) => {
      if (to === REFEREE) referee?.send(message);
      else links.send(to, { t: 'raft', m: message });
    },
    handlers: {
      install: (snapshot) => {
        installed(snapshot);
        node().onInstall(snapshot);
      },
      committed: (entries) => node().onEntries(entries),
      leadership: (leadership) => node().onLeadership(leadership),
      failed,
    },
  });
}

/** The log as the cluster node uses it. */
export function decisionLog(raft: RaftNode, referee?: Referee): DecisionLog {
  return {
    propose: (payload, term) => {
      const answer = raft.propose(payload, term);
      return answer.accepted ? answer.index : undefined;
    },
    receive: (from, message) => {
      referee?.heardPeer(message);
      raft.receive(from, message);
    },
    get decided() {
      return raft.status.deliveredIndex;
    },
    counts: () => {
      raft.counts();
      // A referee is told where this node's log ends, which must be true of all that this voter promised.
      referee?.start();
    },
  };
}

/** `raft` is asked for when the referee first needs it: the two know each other. */
export function createReferee(
  config: Config,
  log: Logger,
  metrics: Metrics,
  raft: () => RaftNode,
): Referee | undefined {
  const { node, referee, election, cluster } = config;
  const other = config.nodes.find(({ id }) => id !== node);
  if (referee === undefined || other === undefined) return undefined;
  return new Referee({
    ...{ self: node, other: other.id, cluster, server: referee, log },
    directory: config.dataDir,
    electionTimeout: election.timeout,
    position: () => raft().status,
    receive: (message) => raft().receive(REFEREE, message),
    answered: (seconds) => metrics.refereeSeconds.observe(seconds),
  });
}

export function lastIndexOf({ entries, snapshot }: Restored): LogIndex {
  return entries.at(-1)?.index ?? snapshot?.index ?? (0 as LogIndex);
}
