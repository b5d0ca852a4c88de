import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { AdminServer } from '../../admin/http.ts';
import { Metrics } from '../../admin/metrics.ts';
import { DdlMessages } from '../../catalog/ddl-message.ts';
import { BypassRecord } from '../../cluster/bypass-record.ts';
import { CatchUp } from '../../cluster/catch-up.ts';
import { CloneClient } from '../../cluster/reclone/clone-client.ts';
import type { CloneServer } from '../../cluster/reclone/clone-server.ts';
import type { Recloner } from '../../cluster/reclone/recloner.ts';
import { HistoryClient } from '../../cluster/history-client.ts';
import type { Refusal } from '../../cluster/identity.ts';
import { LogCompaction } from '../../cluster/log-compaction.ts';
import { IdentityError, NodeIdentity } from '../../cluster/node-identity.ts';
import { ClusterNode, type CommitPhases } from '../../cluster/node.ts';
import { Outcomes } from '../../cluster/outcomes.ts';
import type { PeerLinks } from '../../cluster/peer-links.ts';
import { PeerLogs } from '../../cluster/peer-logs.ts';
import type { Config } from '../../config/schema.ts';
import { clientConfig } from '../../config/client-config.ts';
import { decodeSnapshot } from '../../commit/log-codec.ts';
import { parseGid } from '../../commit/gid.ts';
import type { Memory } from '../../consensus/core/standing.ts';
import { LogStore } from '../../consensus/log-store.ts';
import type { RaftNode } from '../../consensus/raft-node.ts';
import type { Admission } from '../../replication/database-replica.ts';
import { LocalReplica } from '../../replication/local-replica.ts';
import { markPostgres, readPostgresIdentity } from '../../replication/postgres-identity.ts';
import { TransactionSpool } from '../../replication/spool.ts';
import { armFaultPoints } from '../../runtime/fault-points.ts';
import { formatLsn, ZERO_LSN, type Gid, type LogIndex } from '../../runtime/ids.ts';
import type { Logger } from '../../runtime/log.ts';
import type { ConflictVictim } from '../../session/ports.ts';
import { createListener, type Listener } from '../../session/listener.ts';
import type { SafetyNames } from '../../sql/names.ts';
import type { Referee } from '../../consensus/referee/referee.ts';
import {
  createLinks,
  createRaft,
  createReferee,
  dataNodes,
  decisionLog,
  ELECTION_TICKS,
  lastIndexOf,
  nodeSettings,
  ownClientAddress,
} from './parts.ts';
import { createCloneServer, createRecloner } from './reclone-parts.ts';
import { NodeStatusSource } from './status-source.ts';

/** Milliseconds that clients' transactions get to end when the proxy stops. */
const DRAIN = 5000;

/** The composition root of a running proxy: every part, joined to the others and to real I/O. */
export class Proxy {
  readonly #config: Config;
  readonly #node: ClusterNode;
  readonly #raft: RaftNode;
  readonly #referee: Referee | undefined;
  readonly #links: PeerLinks;
  readonly #replica: LocalReplica;
  readonly #catchUp: CatchUp;
  readonly #cloneServer: CloneServer;
  readonly #recloner: Recloner;
  readonly #bypasses: BypassRecord;
  readonly #listener: Listener;
  readonly #admin: AdminServer;
  readonly #status: NodeStatusSource;
  readonly #compaction: LogCompaction;
  readonly #metrics: Metrics;
  readonly #identity: NodeIdentity;
  readonly #peerLogs: PeerLogs;
  readonly #memory: Memory;
  readonly #log: Logger;
  /** Why the log on disk must not be used. */
  readonly #logRefusal: Refusal | undefined;
  readonly #timers: NodeJS.Timeout[] = [];
  #voting = false;
  #stopWatching: (() => void) | undefined;

  /**
   * Opens what is on disk. `failed` is called when the proxy must not go on, `over` with the reason when it is to stop so that another one begins with
   * what is on disk then.
   */
  static async create(
    config: Config,
    log: Logger,
    failed: (error: Error) => void,
    over: (reason: string) => void,
  ): Promise<Proxy> {
    const { store, restored, isNew } = await LogStore.open(join(config.dataDir, 'raft'), {
      segmentBytes: config.raft.segmentSize,
    });
    const identity = new NodeIdentity(config.dataDir, config.cluster.name, config.node);
    const spool = await TransactionSpool.open({
      directory: join(config.dataDir, 'spool'),
      inline: config.spool.inline,
      memory: config.spool.memory,
    });
    return new Proxy(config, log, { failed, over }, { store, restored, isNew, spool, identity });
  }

  private constructor(
    config: Config,
    log: Logger,
    { failed, over }: { failed: (error: Error) => void; over: (reason: string) => void },
    disk: { spool: TransactionSpool; identity: NodeIdentity } & Awaited<ReturnType<typeof LogStore.open>>,
  ) {
    this.#config = config;
    armFaultPoints(config.node);
    this.#metrics = new Metrics();
    const victims = new Map<number, ConflictVictim>();
    const { restored, store, spool, isNew } = disk;
    this.#log = log;
    this.#identity = disk.identity;
    this.#bypasses = new BypassRecord(config.dataDir, log);
    this.#logRefusal = this.#identity.logRefusal(lastIndexOf(restored), isNew);
    this.#memory = this.#identity.memory(restored);
    this.#node = this.#createNode(log, restored);
    this.#peerLogs = new PeerLogs(this.#identity.peers);
    this.#links = createLinks(config, log, {
      ...{ peerLogs: this.#peerLogs, node: () => this.#node, raft: () => this.#raft, ownLog: this.#memory.name },
      wentBack: (had, reason) => void this.#onWentBack(had, reason, over),
    });
    this.#referee = createReferee(config, log, this.#metrics, () => this.#raft);
    this.#raft = createRaft(config, {
      referee: this.#referee,
      ...{ restored, memory: this.#memory, storage: store, links: this.#links, node: () => this.#node, failed },
      installed: (snapshot) => this.#compaction.installed(snapshot),
      durable: (seconds) => this.#metrics.raftFsync.observe(seconds),
    });
    this.#compaction = new LogCompaction(
      restored.snapshot === null ? undefined : decodeSnapshot(restored.snapshot.state),
      this.#raft,
      config.raft.retainEntries,
    );
    this.#replica = this.#createReplica(log, spool, victims);
    const history = this.#createHistoryClient();
    this.#catchUp = this.#createCatchUp(log, history, spool);
    const cloneClient = new CloneClient((to, message) => this.#links.send(to, message));
    this.#cloneServer = createCloneServer(config, this.#replica);
    this.#recloner = createRecloner(config, {
      ...{ node: this.#node, raft: this.#raft, links: this.#links, catchUp: this.#catchUp, log },
      ...{ replica: this.#replica, bypasses: this.#bypasses, client: cloneClient },
      complete: () => over("a copy of another node's data takes the place of this node's"),
    });
    this.#node.connect({
      cloneClient,
      cloneServer: this.#cloneServer,
      replica: this.#replica,
      raft: decisionLog(this.#raft, this.#referee),
      links: this.#links,
      history,
      catchUp: this.#catchUp,
      outcomes: this.#createOutcomes(),
    });
    this.#listener = this.#createListener(log, victims);
    this.#status = new NodeStatusSource({
      config,
      node: this.#node,
      raft: this.#raft,
      links: this.#links,
      replica: this.#replica,
      listener: this.#listener,
      spool,
      metrics: this.#metrics,
      catchUp: this.#catchUp,
      referee: this.#referee,
      recloner: this.#recloner,
      bypasses: this.#bypasses,
      log,
    });
    this.#admin = new AdminServer({ ...config.admin, metrics: this.#metrics, source: this.#status });
  }

  #createNode(log: Logger, restored: Awaited<ReturnType<typeof LogStore.open>>['restored']): ClusterNode {
    const { cluster, heartbeat, member } = this.#config;
    const lastIndex = lastIndexOf(restored);
    return new ClusterNode({
      settings: nodeSettings(this.#config),
      cluster: cluster.name,
      lastIndex,
      heartbeatInterval: heartbeat.interval,
      refuseReads: this.#config.reads.outsideCluster === 'refuse',
      readLevel: this.#config.reads.level,
      readTimeout: this.#config.reads.waitTimeout,
      fetchTimeout: member.voteTimeout,
      retryPatience: this.#config.conflicts.retryPatience,
      clusterLocks: this.#config.advisoryLocks === 'cluster',
      bypassed: () => !this.#bypasses.isEmpty,
      needed: () => this.#recloner.standsAt,
      keepVoice: (founders) => this.#identity.counts(founders),
      log,
      observer: {
        finished: (outcome, sqlstate, phases) => {
          const { transactions, phases: histograms } = this.#metrics;
          transactions[outcome].inc();
          if (sqlstate !== undefined) this.#metrics.countAbort(sqlstate);
          for (const [phase, seconds] of Object.entries(phases) as [keyof CommitPhases, number | undefined][])
            if (seconds !== undefined) histograms[phase].observe(seconds);
        },
        conflict: (kind) => this.#metrics.conflicts[kind].inc(),
      },
    });
  }

  #createReplica(log: Logger, spool: TransactionSpool, victims: ReadonlyMap<number, ConflictVictim>): LocalReplica {
    const { node, postgres, databases, cluster, sequences, apply, commit } = this.#config;
    const { host, port, user, password, ssl } = clientConfig(postgres);
    return new LocalReplica({
      cluster: cluster.name,
      databases,
      database: {
        node,
        server: {
          host: host ?? postgres.host,
          port: port ?? postgres.port,
          user: user ?? postgres.user,
          password: passwordText(password),
          ssl,
          keepalive: this.#config.keepalive,
        },
        secret: cluster.secret,
        stride: sequences.stride,
        apply,
        directory: this.#config.dataDir,
        handedOut: () => this.#node.core.handedOut,
        committers: commit.committers,
        retention: this.#config.retention,
        guard: this.#config.guard === 'on' ? ownClientAddress(this.#config) : undefined,
      },
      order: commit.order,
      neededHistory: () => this.#neededHistory(),
      admission: this.#createAdmission(),
      spool,
      conflictCheckAfter: apply.conflictCheckAfter,
      log,
      isOwn: (gid) => {
        const parts = parseGid(gid);
        return parts?.cluster === cluster.name && parts.node === node && parts.epoch === this.#node.core.epoch;
      },
      isAbandoned: (gid) => parseGid(gid)?.cluster === cluster.name && this.#node.core.isAbandoned(gid),
      victim: (pid) => victims.get(pid),
      events: {
        up: (committed, progress, prepared) =>
          this.#node.onPostgres({ type: 'postgres-up', committed, progress, prepared }),
        down: () => this.#node.onPostgres({ type: 'postgres-down' }),
        committed: (index, gid) => this.#node.onCommitted(index, gid),
        applied: (gid, error) => this.#node.onApplied(gid, error),
        rolledBack: (gid) => this.#node.step({ type: 'rolled-back', gid }),
        blocked: (gid, holder, table) => this.#node.step({ type: 'blocked', gid, holder, table }),
        decoded: (gid, database, data) => this.#node.onDecoded(gid, database, data),
        progress: (gid) => this.#node.onProgress(gid),
        decoding: (database) => this.#node.onDecoding(database),
        bypass: (database, xid, relations) => {
          this.#status.bypassed(database, xid, relations);
          log.error(
            { database, xid, relations },
            'a write went to PostgreSQL without the proxy: this node now differs from the others',
          );
        },
        unseen: (database, { from }) =>
          this.#bypasses.addUnseen({
            database,
            from: from === undefined ? null : formatLsn(from),
            at: new Date().toISOString(),
          }),
        readiness: (problem) => this.#node.step({ type: 'readiness', problem }),
        replayed: (rows, seconds) => {
          this.#metrics.replayRows.inc(rows);
          this.#metrics.phases.replay.observe(seconds);
        },
      },
    });
  }

  /** Which PostgreSQL may be used, and with it whether this node may vote. */
  #createAdmission(): Admission {
    const identity = this.#identity;
    return {
      examine: async (client) => {
        if (this.#logRefusal !== undefined) throw new IdentityError(this.#logRefusal);
        try {
          await identity.examine(await readPostgresIdentity(client), this.#raft.status.durableIndex);
        } finally {
          // A PostgreSQL that is ahead of its log can be used when the log has come in from the others.
          this.#startVoting();
        }
      },
      adopt: async (client) => {
        await markPostgres(client, identity.mark);
        await identity.adopt(await readPostgresIdentity(client));
        this.#startVoting();
      },
    };
  }

  /** Only with a log that is known to be this node's; see docs/identity.md. */
  #startVoting(): void {
    if (this.#voting || !this.#identity.mayVote || this.#logRefusal !== undefined) return;
    this.#voting = true;
    this.#raft.start();
    this.#node.vote(this.#memory);
    if (this.#memory.counts) this.#referee?.start();
  }

  /** Members that are heard of, the least loaded kind first: whoever leads the log has enough to do. */
  #createHistoryClient(): HistoryClient {
    const { node, member } = this.#config;
    const nodes = dataNodes(this.#config);
    return new HistoryClient({
      send: (to, message) => this.#links.send(to, message),
      donors: () => {
        const { leader } = this.#raft.status;
        const members = nodes.map(({ id }) => id).filter((id) => id !== node && this.#links.isUp(id));
        return members.sort((a, b) => Number(a === leader) - Number(b === leader));
      },
      timeout: member.voteTimeout,
    });
  }

  #createCatchUp(log: Logger, history: HistoryClient, spool: TransactionSpool): CatchUp {
    return new CatchUp({
      databases: this.#config.databases,
      history,
      spool,
      log,
      committed: () => this.#node.core.committed,
      apply: (gid, database, source) => this.#replica.apply(gid, database, source),
      caughtUp: (gid, index, database) => this.#node.step({ type: 'caught-up', gid, index, database }),
      gapFilled: (from, to, entries) => this.#node.step({ type: 'gap-filled', from, to, entries }),
      hopeless: (isSo) => this.#node.step({ type: 'history-gone', isSo }),
    });
  }

  #createOutcomes(): Outcomes {
    const raft = this.#raft;
    return new Outcomes({
      self: this.#config.node,
      log: {
        readIndex: () => raft.readIndex(),
        entries: (from, to) => raft.entries(from, to),
        get firstIndex() {
          return raft.status.firstIndex;
        },
        get leader() {
          return raft.status.leader;
        },
      },
      applied: () => this.#node.core.guard.index,
      hasEnded: (node, epoch) => this.#node.core.guard.hasEnded(node, epoch),
      isUnderWay: (gid) => this.#node.isUnderWay(gid),
      send: (to, message) => this.#links.send(to, message),
      timeout: this.#config.heartbeat.timeout,
    });
  }

  /** What the slowest node has committed, or a copy that one takes; nothing may be let go of while one of them has not been heard of. */
  #neededHistory(): LogIndex {
    const { node } = this.#config;
    const needed = dataNodes(this.#config).map(({ id }) => {
      if (id === node) return this.#node.core.committed;
      const { committed = 0, needed = committed } = this.#node.heardOf(id) ?? {};
      return Math.min(committed, needed);
    });
    return Math.min(...needed) as LogIndex;
  }

  #createListener(log: Logger, victims: Map<number, ConflictVictim>): Listener {
    const { listen, postgres, databases, cluster, session, keepalive } = this.#config;
    const messages = new DdlMessages(cluster.secret);
    const { tls } = listen;
    return createListener({
      listen: { host: listen.host, port: listen.port },
      server: { host: postgres.host, port: postgres.port },
      databases,
      ...(tls !== undefined && { tls: { cert: readFileSync(tls.certFile), key: readFileSync(tls.keyFile) } }),
      commits: this.#node,
      ddl: {
        announce: (gid: Gid, ordinal, ddl) => ({
          message: messages.encode(gid, ordinal, ddl),
          token: `${gid}/${ordinal}`,
        }),
      },
      locks: {
        position: (database) => this.#replica.database(database)?.received ?? ZERO_LSN,
        carry: (gid, since) => this.#replica.carryLocks(gid, since),
      },
      registry: {
        add: (pid, victim) => victims.set(pid, victim),
        remove: (pid) => victims.delete(pid),
      },
      safety: (database) => this.#replica.database(database)?.safety ?? NOTHING_KNOWN,
      limits: {
        maxConnections: session.maxConnections,
        startupTimeout: session.startupTimeout,
        retryBytes: session.retryBuffer,
        statementRetries: session.statementRetries,
      },
      keepalive,
      log,
      metrics: {
        count: (event) => {
          if (event === 'read_only') this.#metrics.transactions.read_only.inc();
          else this.#metrics.countIntercepted(event);
        },
        sessions: (open) => this.#metrics.clients.set(open),
      },
    });
  }

  #compact(): void {
    const committed = Math.min(this.#node.core.committed, this.#replica.provenCommitted) as LogIndex;
    this.#compaction.run(committed);
  }

  async start(): Promise<void> {
    await this.#admin.start();
    await this.#links.start();
    if (this.#logRefusal !== undefined) this.#log.fatal(`this node does not vote: ${this.#logRefusal.reason}`);
    this.#startVoting();
    this.#node.start();
    this.#replica.start();
    const { election, heartbeat } = this.#config;
    this.#timers.push(setInterval(() => this.#raft.tick(), election.timeout / ELECTION_TICKS));
    this.#timers.push(setInterval(() => this.#status.sample(), Math.max(heartbeat.interval, 500)));
    this.#timers.push(setInterval(() => void this.#noteIdentity(), 1000));
    this.#timers.push(setInterval(() => this.#compact(), 10_000));
    this.#stopWatching = this.#metrics.watchEventLoop();
    this.#recloner.start();
    await this.#listener.start();
  }

  /** An older copy of this log looks whole to this node. It takes no part with it from the next run on, which begins at once. */
  async #onWentBack(had: LogIndex, reason: string, over: (reason: string) => void): Promise<void> {
    try {
      const isNews = await this.#identity.wentBack(had);
      // A log that is not used anyway is no reason to stop.
      if (isNews && this.#logRefusal === undefined) over(reason);
    } catch (error) {
      // It is told again with the next attempt to reach that node.
      this.#log.error({ err: error }, 'that the decision log went back could not be noted down');
    }
  }

  async #noteIdentity(): Promise<void> {
    const { stored } = this.#node.core;
    await this.#identity
      .note(this.#raft.status.deliveredIndex, stored, this.#replica.flushed, this.#peerLogs.notes)
      .catch((error: unknown) => {
        this.#log.error({ err: error }, 'how far this node has come could not be noted down');
      });
  }

  async stop(): Promise<void> {
    await this.#listener.stop(DRAIN);
    for (const timer of this.#timers) clearInterval(timer);
    this.#stopWatching?.();
    this.#node.stop();
    this.#catchUp.stop();
    await this.#recloner.stop();
    this.#cloneServer.stop();
    await this.#replica.stop();
    this.#bypasses.stop();
    await this.#referee?.stop();
    await this.#raft.stop();
    await this.#links.stop();
    await this.#admin.stop();
  }
}

/** While PostgreSQL is not connected nothing can be written, so no read has to be told from a write. */
const NOTHING_KNOWN: SafetyNames = { volatileNames: new Set(), taintedRelations: new Set(), hidesLocks: false };

function passwordText(password: unknown): string | undefined {
  return typeof password === 'string' ? password : undefined;
}
