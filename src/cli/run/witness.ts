import { join } from 'node:path';
import { AdminServer } from '../../admin/http.ts';
import { Metrics } from '../../admin/metrics.ts';
import type { ClusterStatus, Readiness } from '../../admin/status.ts';
import { CatchUp } from '../../cluster/catch-up.ts';
import { CloneClient } from '../../cluster/reclone/clone-client.ts';
import { CloneServer } from '../../cluster/reclone/clone-server.ts';
import { HistoryClient } from '../../cluster/history-client.ts';
import { IdentityFile, type Identity, judgeLog, memoryOf, newIdentity } from '../../cluster/identity.ts';
import { dispensable, LogCompaction } from '../../cluster/log-compaction.ts';
import { ClusterNode } from '../../cluster/node.ts';
import { Outcomes } from '../../cluster/outcomes.ts';
import type { PeerLinks } from '../../cluster/peer-links.ts';
import { PeerLogs } from '../../cluster/peer-logs.ts';
import type { Replica } from '../../cluster/ports.ts';
import { decodeSnapshot } from '../../commit/log-codec.ts';
import type { Config } from '../../config/schema.ts';
import type { Memory } from '../../consensus/core/standing.ts';
import { LogStore } from '../../consensus/log-store.ts';
import type { RaftNode } from '../../consensus/raft-node.ts';
import type { LogIndex, NodeId } from '../../runtime/ids.ts';
import type { Logger } from '../../runtime/log.ts';
import { createLinks, createRaft, dataNodes, decisionLog, ELECTION_TICKS, lastIndexOf, nodeSettings } from './parts.ts';

const VERSION = '0.1.0';
const IS_WITNESS = 'this node is a witness: it votes, and holds no data';
/** Entries of the log that gather before they are compacted: nobody here reads them again. */
const COMPACT_EVERY = 1000;
/** Milliseconds between two looks at what every node has committed, and at who leads. */
const HOUSEKEEPING = 1000;

/**
 * A vote without data: a third voter of the decision log for two nodes, with a disk of a few megabytes. It never is a member, so
 * no transaction waits for it; when it leads, it decides what any leader would, and hands over to a node that holds data.
 */
export class Witness {
  readonly #config: Config;
  readonly #log: Logger;
  readonly #node: ClusterNode;
  readonly #links: PeerLinks;
  readonly #raft: RaftNode;
  readonly #compaction: LogCompaction;
  readonly #identity: IdentityFile;
  readonly #peerLogs: PeerLogs;
  #own: Identity;
  readonly #memory: Memory;
  readonly #admin: AdminServer;
  readonly #metrics = new Metrics();
  readonly #timers: NodeJS.Timeout[] = [];
  readonly #startedAt = new Date().toISOString();

  /** As Proxy.create. */
  static async create(
    config: Config,
    log: Logger,
    failed: (error: Error) => void,
    over: (reason: string) => void,
  ): Promise<Witness> {
    const { store, restored, isNew } = await LogStore.open(join(config.dataDir, 'raft'), {
      segmentBytes: config.raft.segmentSize,
    });
    const identity = new IdentityFile(config.dataDir);
    const lost = judgeLog(identity.current, lastIndexOf(restored), isNew);
    if (lost !== undefined)
      log.error(`${lost.reason}: this witness begins anew, and does not vote until it was let in`);
    const known = lost === undefined ? identity.current : undefined;
    // What is remembered of the others stays true.
    const own = known ?? { ...newIdentity(config.cluster.name, config.node), peers: identity.current?.peers ?? {} };
    const memory = memoryOf(own, restored);
    const { counts, founders } = memory;
    await identity.save({ ...own, voice: { counts, founders } });
    return new Witness(config, log, { failed, over }, { store, restored, identity, memory });
  }

  private constructor(
    config: Config,
    log: Logger,
    { failed, over }: { failed: (error: Error) => void; over: (reason: string) => void },
    disk: { identity: IdentityFile; memory: Memory } & Pick<
      Awaited<ReturnType<typeof LogStore.open>>,
      'store' | 'restored'
    >,
  ) {
    const { restored, store, identity, memory } = disk;
    this.#memory = memory;
    this.#config = config;
    this.#log = log;
    this.#identity = identity;
    this.#own = identity.current!;
    this.#node = new ClusterNode({
      settings: nodeSettings(config),
      cluster: config.cluster.name,
      lastIndex: lastIndexOf(restored),
      heartbeatInterval: config.heartbeat.interval,
      refuseReads: false,
      ...{ readLevel: 'local', readTimeout: 0 },
      fetchTimeout: config.member.voteTimeout,
      retryPatience: 0,
      clusterLocks: false,
      bypassed: () => false,
      needed: () => undefined,
      keepVoice: (founders) => this.#keep({ voice: { counts: true, founders } }),
      log,
      observer: { finished: () => undefined, conflict: () => undefined },
    });
    this.#peerLogs = new PeerLogs(this.#own.peers);
    this.#links = createLinks(config, log, {
      ...{ peerLogs: this.#peerLogs, node: () => this.#node, raft: () => this.#raft, ownLog: memory.name },
      wentBack: (had, reason) => void this.#onWentBack(had, reason, over),
    });
    this.#raft = createRaft(config, {
      ...{ restored, memory, storage: store, links: this.#links, node: () => this.#node, failed },
      installed: (snapshot) => this.#compaction.installed(snapshot),
      durable: (seconds) => this.#metrics.raftFsync.observe(seconds),
    });
    this.#compaction = new LogCompaction(
      restored.snapshot === null ? undefined : decodeSnapshot(restored.snapshot.state),
      this.#raft,
      COMPACT_EVERY,
    );
    this.#connect();
    this.#admin = new AdminServer({
      ...config.admin,
      metrics: this.#metrics,
      source: { status: () => this.#status(), readiness: () => this.#readiness() },
    });
  }

  #connect(): void {
    const [raft, links, node] = [this.#raft, this.#links, this.#node];
    const send = links.send.bind(links);
    const noData = () => Promise.reject(new Error('this is a witness, which has no data'));
    const history = new HistoryClient({ send, donors: () => [], timeout: this.#config.member.voteTimeout });
    node.connect({
      replica: NO_POSTGRES,
      raft: decisionLog(raft),
      links,
      history,
      cloneClient: new CloneClient(send),
      cloneServer: new CloneServer(noData),
      catchUp: new CatchUp({
        ...{ databases: [], history, log: this.#log, committed: () => node.core.committed },
        spool: NO_SPOOL,
        apply: impossible,
        caughtUp: impossible,
        gapFilled: impossible,
        hopeless: impossible,
      }),
      outcomes: new Outcomes({
        self: this.#config.node,
        log: {
          readIndex: () => raft.readIndex(),
          entries: (from, to) => raft.entries(from, to),
          firstIndex: raft.status.firstIndex,
          leader: null,
        },
        applied: () => node.core.guard.index,
        hasEnded: (id, epoch) => node.core.guard.hasEnded(id, epoch),
        isUnderWay: () => false,
        send,
        timeout: this.#config.heartbeat.timeout,
      }),
    });
  }

  async start(): Promise<void> {
    await this.#admin.start();
    await this.#links.start();
    this.#raft.start();
    this.#node.vote(this.#memory);
    this.#node.start();
    this.#timers.push(setInterval(() => this.#raft.tick(), this.#config.election.timeout / ELECTION_TICKS));
    this.#timers.push(setInterval(() => void this.#housekeeping(), HOUSEKEEPING));
  }

  async #housekeeping(): Promise<void> {
    const index = this.#dispensable();
    if (index > this.#node.core.stored) this.#node.step({ type: 'committed', index });
    this.#compaction.run(index);
    this.#handOver();
    this.#sample();
    const decided = this.#raft.status.deliveredIndex;
    const peers = this.#peerLogs.notes;
    if (decided <= this.#own.decided && peers === this.#own.peers) return;
    await this.#keep({ decided: Math.max(decided, this.#own.decided) as LogIndex, peers }).catch((error: unknown) => {
      this.#log.error({ err: error }, 'how far this node has come could not be noted down');
    });
  }

  /** An older copy of this log looks whole to this witness. The next run begins a new one, and is let in by the others. */
  async #onWentBack(had: LogIndex, reason: string, over: (reason: string) => void): Promise<void> {
    const { decided } = this.#own;
    if (had <= decided) return;
    try {
      await this.#keep({ decided: had });
      over(reason);
    } catch (error) {
      // It is told again with the next attempt to reach that node, and must be news then.
      this.#own = { ...this.#own, decided };
      this.#log.error({ err: error }, 'that the decision log went back could not be noted down');
    }
  }

  #keep(change: Partial<Identity>): Promise<void> {
    this.#own = { ...this.#own, ...change };
    return this.#identity.save(this.#own);
  }

  #dispensable(): LogIndex {
    const committed = dataNodes(this.#config).map(({ id }) => this.#node.heardOf(id)?.committed ?? (0 as LogIndex));
    return dispensable(committed, this.#raft.status.deliveredIndex, this.#config.raft.retainEntries);
  }

  /** The leader should be where the transactions are. */
  #handOver(): void {
    const { role, ready, commitIndex } = this.#raft.status;
    if (role !== 'leader' || !ready) return;
    const isNear = (id: NodeId) => (this.#node.heardOf(id)?.committed ?? 0) >= commitIndex && this.#links.isUp(id);
    const next = [...this.#node.core.guard.members.keys()].find(isNear);
    if (next !== undefined) this.#raft.transferLeadership(next);
  }

  #sample(): void {
    const { term, role, lastIndex, commitIndex } = this.#raft.status;
    const { logIndex, logTerm, logLeader } = this.#metrics;
    logIndex.set(lastIndex);
    logTerm.set(term);
    logLeader.set(role === 'leader' ? 1 : 0);
    for (const { id } of dataNodes(this.#config)) {
      const committed = this.#node.heardOf(id)?.committed;
      if (committed !== undefined) this.#metrics.setNode(id, committed, Math.max(0, commitIndex - committed), 0);
    }
  }

  #readiness(): Readiness {
    return { node: this.#config.node, writable: false, reasons: [IS_WITNESS] };
  }

  #status(): ClusterStatus {
    const { role, term, leader, lastIndex, commitIndex } = this.#raft.status;
    const { guard } = this.#node.core;
    return {
      ...{ version: VERSION, cluster: this.#config.cluster.name, ...this.#readiness(), term, leader },
      role: role === 'leader' ? 'leader' : role === 'follower' ? 'follower' : 'candidate',
      log: { last: lastIndex, committed: commitIndex },
      nodes: dataNodes(this.#config).map(({ id, client }) => {
        const committed = this.#node.heardOf(id)?.committed ?? null;
        const epoch = guard.lastEpoch(id);
        return {
          ...{ id, epoch, committed, reachable: this.#links.isUp(id) },
          state: guard.members.has(id) ? 'member' : epoch === 0 ? 'unknown' : 'excluded',
          lag: committed === null ? null : Math.max(0, commitIndex - committed),
          client: client === undefined ? null : `${client.host}:${client.port}`,
        };
      }),
      referee: null,
      voiceless: this.#node.core.voiceless ?? null,
      voicelessPeers: this.#node.voiceless,
      inDoubt: [],
      advisoryLocks: [],
      bypasses: { count: 0, last: null, unseen: [] },
      catchUp: null,
      reclone: null,
      postgres: { state: 'down', version: null, address: 'none' },
      clients: 0,
      startedAt: this.#startedAt,
    };
  }

  async stop(): Promise<void> {
    for (const timer of this.#timers) clearInterval(timer);
    this.#node.stop();
    await this.#raft.stop();
    await this.#links.stop();
    await this.#admin.stop();
  }
}

/** What a node without PostgreSQL is never asked: it is no member, so it neither begins nor replays anything. */
function impossible(): never {
  throw new Error('a witness holds no data');
}

const NO_POSTGRES: Replica = {
  problem: 'a witness has none',
  commit: impossible,
  apply: impossible,
  cancelApply: impossible,
  rollbackPrepared: impossible,
  recover: impossible,
  overruleBackend: impossible,
  release: () => undefined,
  readChanges: () => Promise.reject(new Error('a witness holds no data')),
  lockWaits: () => Promise.resolve(new Map()),
  readHistory: () => Promise.reject(new Error('a witness holds no data')),
  forgetHistory: impossible,
};

const NO_SPOOL = {
  begin: impossible,
  append: impossible,
  complete: impossible,
  settled: impossible,
  read: impossible,
  release: impossible,
};
