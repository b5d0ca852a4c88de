import { performance } from 'node:perf_hooks';
import { formatGid, parseGid } from '../commit/gid.ts';
import { Turns, type Turn } from '../commit/turns.ts';
import { decodeCommand, decodeSnapshot, encodeCommand } from '../commit/log-codec.ts';
import * as reports from '../commit/core/reports.ts';
import type { ErrorReport, LogCommand } from '../commit/core/types.ts';
import type { Message } from '../consensus/core/messages.ts';
import type { Founders, Memory } from '../consensus/core/standing.ts';
import type { Entry, Leadership, Snapshot } from '../consensus/core/types.ts';
import { PgError } from '../runtime/errors.ts';
import { HybridClock, STEPS } from '../runtime/hybrid-clock.ts';
import { faultPoint } from '../runtime/fault-points.ts';
import type { Gid, LogIndex, NodeId } from '../runtime/ids.ts';
import type { Logger } from '../runtime/log.ts';
import type { CommitLevel, CommitOutcome, Commits, ReadLevel } from '../session/ports.ts';
import { NodeCore } from './core/node-core.ts';
import type { NodeEffect, NodeEvent, NodeSettings } from './core/types.ts';
import type { Beat, BulkMessage, PeerMessage } from './messages.ts';
import type { CatchUp } from './catch-up.ts';
import type { CloneClient } from './reclone/clone-client.ts';
import type { CloneServer } from './reclone/clone-server.ts';
import type { HistoryClient } from './history-client.ts';
import { InDoubtList, type InDoubt } from './in-doubt.ts';
import { OutcomeUnavailable, type Outcomes } from './outcomes.ts';
import type { ChangeSource, Replica } from './ports.ts';
import { ReadBarrier } from './read-barrier.ts';
import { AdvisoryLocks } from './session-locks.ts';
import { RemoteChanges } from './remote-changes.ts';

/** The Raft driver, as the cluster node uses it. */
export interface DecisionLog {
  /** Appends if this node leads that term; answers the entry's index. */
  propose(payload: Uint8Array, term: number): LogIndex | undefined;
  receive(from: NodeId, message: Message): void;
  /** The last entry that is known to be decided, on this node's disk. */
  readonly decided: LogIndex;
  /** This node's voice in elections counts from now on. */
  counts(): void;
}

export interface PeerSender {
  send(to: NodeId, message: PeerMessage): boolean;
  broadcast(message: PeerMessage): void;
  sendBulk(to: NodeId, message: BulkMessage): Promise<boolean>;
}

export interface ClusterNodeOptions {
  readonly settings: NodeSettings;
  readonly cluster: string;
  /** The last entry of the log on this node's own disk when the run began. */
  readonly lastIndex: LogIndex;
  readonly heartbeatInterval: number;
  /** Whether a node that is no member refuses reads as well. */
  readonly refuseReads: boolean;
  readonly readLevel: ReadLevel;
  /** Milliseconds that a read may wait for what it must see. */
  readonly readTimeout: number;
  /** How long one piece of a large transaction may take, in milliseconds. */
  readonly fetchTimeout: number;
  /** Advisory locks are the cluster's, not each node's own. */
  readonly clusterLocks: boolean;
  /** How long a client that lost a conflict may wait for its turn to try again, in milliseconds. */
  readonly retryPatience: number;
  /** Whether this node's data have writes that no other node's have. */
  readonly bypassed: () => boolean;
  /** Behind which log entry this node may yet ask for history, where that is below what it has committed. */
  readonly needed: () => LogIndex | undefined;
  /** Keeps, durably, that this node's voice in elections counts. */
  readonly keepVoice: (founders: Founders | null) => Promise<void>;
  readonly log: Logger;
  readonly observer: ClusterObserver;
}

/** Who had to give way; see CONFLICTS in admin/metrics.ts. */
type Conflict = 'client_aborted' | 'prepared_aborted' | 'replay_refused' | 'replay_deadlock' | 'constraint';

/** Hooks for metrics. */
export interface ClusterObserver {
  finished(outcome: 'committed' | 'aborted' | 'unknown', sqlstate: string | undefined, phases: CommitPhases): void;
  conflict(kind: Conflict): void;
}

/** Seconds that each step took (see PHASES in admin/metrics.ts); undefined for what was not reached. */
export interface CommitPhases {
  readonly prepare: number | undefined;
  readonly decode: number | undefined;
  readonly vote: number | undefined;
  readonly precommit: number | undefined;
  readonly commit: number | undefined;
  readonly total: number;
}

interface OwnCommit {
  readonly begun: number;
  readonly resolve: (outcome: CommitOutcome) => void;
  prepared?: number;
  decoded?: number;
  proposed?: number;
  decided?: number;
}

/** Milliseconds between two signs of life of one replay. */
const PROGRESS_INTERVAL = 1000;
/** Steps of the clock for which a transaction that lost a conflict lends its priority to those that follow it. */
const SENIORITY = 30_000 * STEPS;

/**
 * Drives the node core in production: turns what sockets, PostgreSQL and the Raft driver report into its events, and carries
 * out its effects. All decisions are the core's.
 */
export class ClusterNode implements Commits {
  readonly core: NodeCore;
  readonly clock: HybridClock;
  readonly turns: Turns;
  readonly reads: ReadBarrier;
  readonly advisoryLocks: AdvisoryLocks | undefined;
  readonly #options: ClusterNodeOptions;
  readonly #own = new Map<Gid, OwnCommit>();
  readonly #sources = new Map<Gid, ChangeSource>();
  readonly #remote: RemoteChanges;
  readonly #inDoubt: InDoubtList;
  readonly #heard = new Map<NodeId, Beat>();
  readonly #progressSent = new Map<Gid, number>();
  /** When the decoder of a database was last said to get on. */
  readonly #decodingSaid = new Map<string, number>();
  readonly #events: NodeEvent[] = [];
  #stepping = false;
  #sequence = 0;
  #postgresUp = false;
  #ticker: NodeJS.Timeout | undefined;
  #replica!: Replica;
  #raft!: DecisionLog;
  #links!: PeerSender;
  #history!: HistoryClient;
  #cloneClient!: CloneClient;
  #cloneServer!: CloneServer;
  #catchUp!: CatchUp;
  #outcomes!: Outcomes;
  /** Names that clients have asked for before they committed. */
  readonly #revealed = new Set<Gid>();

  constructor(options: ClusterNodeOptions) {
    this.#options = options;
    this.core = new NodeCore(options.settings, undefined, options.lastIndex);
    this.#inDoubt = new InDoubtList(this.core, options.settings.self);
    this.clock = new HybridClock(
      () => Date.now(),
      () => performance.now(),
    );
    this.turns = new Turns(options.retryPatience);
    this.reads = new ReadBarrier({
      ...{ self: options.settings.self, cluster: options.cluster },
      ...{ level: options.readLevel, timeout: options.readTimeout },
      readIndex: () => this.#outcomes.readIndex(),
      committed: () => this.core.committed,
      shown: () => this.core.handedOut,
    });
    this.advisoryLocks = options.clusterLocks
      ? new AdvisoryLocks({
          step: (event) => this.step(event),
          leaseEnd: () => this.core.lockLeaseEnd,
          readIndex: () => this.#outcomes.readIndex(),
          lockWaits: () => this.#replica.lockWaits(),
        })
      : undefined;
    this.#remote = new RemoteChanges((to, message) => this.#links.send(to, message), options.fetchTimeout);
  }

  /** Joins the node with the parts that report to it. */
  connect(parts: {
    replica: Replica;
    raft: DecisionLog;
    links: PeerSender;
    history: HistoryClient;
    cloneClient: CloneClient;
    cloneServer: CloneServer;
    catchUp: CatchUp;
    outcomes: Outcomes;
  }): void {
    this.#outcomes = parts.outcomes;
    this.#history = parts.history;
    this.#cloneClient = parts.cloneClient;
    this.#cloneServer = parts.cloneServer;
    this.#catchUp = parts.catchUp;
    this.#replica = parts.replica;
    this.#raft = parts.raft;
    this.#links = parts.links;
  }

  start(): void {
    this.#tick();
    this.#ticker = setInterval(() => this.#tick(), this.#options.heartbeatInterval);
  }

  stop(): void {
    clearInterval(this.#ticker);
  }

  #tick(): void {
    const { core } = this;
    this.#links.broadcast({
      t: 'beat',
      clock: this.clock.next(),
      committed: core.committed,
      epoch: core.epoch,
      postgres: this.#postgresUp,
      bypassed: this.#options.bypassed(),
      needed: this.#options.needed(),
      votes: core.voiceless === undefined,
      decided: this.#raft.decided,
    });
    this.step({ type: 'tick', now: performance.now(), wall: Date.now() });
    this.#inDoubt.look(performance.now());
  }

  /** Events that effects bring about at once are taken after the event under way. */
  step(event: NodeEvent): void {
    this.#events.push(event);
    if (this.#stepping) return;
    this.#stepping = true;
    try {
      let next: NodeEvent | undefined;
      while ((next = this.#events.shift()) !== undefined) {
        for (const effect of this.core.step(next)) this.#perform(effect);
      }
    } finally {
      this.#stepping = false;
    }
    this.reads.progressed();
  }

  #perform(effect: NodeEffect): void {
    const replica = this.#replica;
    switch (effect.type) {
      case 'send':
        if (effect.message.t === 'propose') this.#onProposed(effect.message.command);
        this.#links.send(effect.to, effect.message);
        this.#onSent(effect.message);
        return;
      case 'append': {
        this.#onProposed(effect.command);
        const index = this.#raft.propose(encodeCommand(effect.command), effect.term);
        faultPoint('leader.entry.appended');
        if (index === undefined) this.#events.unshift({ type: 'append-refused' });
        else if (index !== effect.index) throw new Error(`log entry stands at ${index}, not at ${effect.index}`);
        return;
      }
      case 'commit':
        this.#mark(effect.entry.gid, 'decided');
        faultPoint(`${this.#roleIn(effect.entry.gid)}.commit.before-send`);
        return replica.commit(effect.entry);
      case 'apply':
        return this.#apply(effect.gid, effect.database);
      case 'cancel-apply':
        this.#options.observer.conflict('replay_refused');
        this.#catchUp.drop(effect.gid);
        return replica.cancelApply(effect.gid);
      case 'rollback-prepared':
        return replica.rollbackPrepared(effect.gid, effect.database);
      case 'overrule-backend':
        this.#options.observer.conflict('client_aborted');
        return replica.overruleBackend(effect.pid, effect.error);
      case 'recover':
        this.#catchUp.reset();
        return replica.recover();
      case 'release':
        this.#sources.delete(effect.gid);
        this.#progressSent.delete(effect.gid);
        this.#remote.drop(effect.gid);
        return replica.release(effect.gid);
      case 'answer':
        return this.#answer(effect);
      case 'lock-answer':
      case 'locks-lost':
      case 'confirm-locks':
        return this.advisoryLocks?.perform(effect);
      case 'members-changed': {
        const members = [...this.core.guard.members].map(([node, epoch]) => ({ node, epoch }));
        this.#options.log.info({ index: this.core.guard.index, members, state: this.core.state }, 'membership changed');
        return;
      }
      case 'missing':
        return this.#catchUp.need(effect.index, effect.gid, effect.database);
      case 'gap':
        this.#options.log.warn(
          { from: effect.from, to: effect.to },
          'the log begins after what PostgreSQL has: asking the others',
        );
        void this.#catchUp.fillGap(effect.from, effect.to);
        return;
      case 'counts':
        void this.#count(effect.founders);
        return;
      case 'fenced':
        this.#options.log.fatal(`this node takes no part any more: ${effect.reason}`);
        return;
    }
  }

  #apply(gid: Gid, database: string): void {
    const source = this.#sources.get(gid);
    if (source === undefined) {
      this.step({
        type: 'applied',
        gid,
        error: { sqlstate: 'XX000', message: `the changes of "${gid}" are not here` },
      });
    } else {
      this.#replica.apply(gid, database, source);
    }
  }

  // ---- elections

  /** This node's log is known to be its own: it takes part in elections, once its memory counts. */
  vote(memory: Memory): void {
    this.step({ type: 'voting', memory });
    const { voiceless } = this.core;
    if (voiceless !== undefined) this.#options.log.warn(`this node's vote does not count yet: ${voiceless}`);
  }

  async #count(founders: Founders | null): Promise<void> {
    try {
      await this.#options.keepVoice(founders);
    } catch (error) {
      this.#options.log.fatal({ err: error }, "that this node's vote counts could not be noted down: it goes without");
      return;
    }
    this.#options.log.info(founders === null ? 'let in: the vote of this node counts' : 'the vote of this node counts');
    this.#raft.counts();
  }

  /** Other voters whose voice does not count, as they say. */
  get voiceless(): readonly NodeId[] {
    return [...this.#heard].filter(([, { votes }]) => votes === false).map(([node]) => node);
  }

  // ---- what the other parts report

  onMessage(from: NodeId, message: PeerMessage): void {
    switch (message.t) {
      case 'raft':
        return this.#raft.receive(from, ownEntries(message.m as Message));
      case 'fetch':
        void this.#serve(from, message.gid, message.offset, message.limit);
        return;
      case 'history':
        void this.#serveHistory(from, message);
        return;
      case 'clone':
        void this.#serveClone(from, message);
        return;
      case 'read-index':
      case 'read-index-is':
      case 'outcome':
      case 'outcome-is':
        void this.#outcomes.onMessage(from, message);
        return;
      case 'beat':
        this.clock.receive(message.clock);
        this.#heard.set(from, message);
        break;
      case 'vote':
        faultPoint('coordinator.vote.received');
        break;
      case 'propose':
        faultPoint('leader.proposal.received');
        break;
      case 'announce': {
        faultPoint('participant.announce.received');
        const parts = parseGid(message.gid);
        if (parts === undefined) return;
        this.clock.receive(parts.clock);
        this.#keepSource(from, message);
        this.step({ type: 'message', from, message });
        this.#dropUnused(message.gid);
        return;
      }
      default:
    }
    this.step({ type: 'message', from, message });
  }

  #keepSource(from: NodeId, { gid, data }: Extract<PeerMessage, { t: 'announce' }>): void {
    if (this.#sources.has(gid)) return;
    this.#sources.set(gid, data === undefined ? this.#remote.source(gid, from) : { type: 'inline', data });
  }

  /** The changes of what is not to be replayed here, nor again: no release follows. A node that is no member takes no announcements; at its admission they come again. */
  #dropUnused(gid: Gid): void {
    const state = this.core.participant.state(gid);
    if (state !== 'waiting' && state !== 'applying') this.#sources.delete(gid);
  }

  inDoubt(): readonly InDoubt[] {
    return this.#inDoubt.list(performance.now());
  }

  /** The last heartbeat of a peer. */
  heardOf(node: NodeId): Beat | undefined {
    return this.#heard.get(node);
  }

  onLinkDown(peer: NodeId): void {
    this.#cloneClient.onDown(peer);
  }

  onBulk(from: NodeId, message: BulkMessage): void {
    if ('pieces' in message) this.#history.onAnswer(from, message);
    else if ('clone' in message) this.#cloneClient.onAnswer(from, message);
    else this.#remote.onChunk(from, message);
  }

  /** A node that was away reads what was committed without it. */
  async #serveHistory(to: NodeId, request: Extract<PeerMessage, { t: 'history' }>): Promise<void> {
    const { id } = request;
    try {
      const isSent = await this.#links.sendBulk(to, { id, ...(await this.#replica.readHistory(to, request)) });
      // It asks for the same again, and an earlier version does not say that it lacks this answer.
      if (!isSent) this.#replica.forgetHistory(to, request.database);
    } catch (error) {
      const { name, message } = error as Error;
      await this.#links.sendBulk(to, { id, pieces: [], end: true, error: message, gone: name === 'HistoryGone' });
    }
  }

  async #serveClone(to: NodeId, { id, from, limit, ...copy }: Extract<PeerMessage, { t: 'clone' }>): Promise<void> {
    try {
      const { bytes, end, total } = await this.#cloneServer.read(to, { from, limit, copy });
      await this.#links.sendBulk(to, { id, clone: bytes, end, total });
    } catch (error) {
      const { message, name } = error as Error;
      const answer = { id, clone: new Uint8Array(0), end: true, total: 0, error: message };
      await this.#links.sendBulk(to, { ...answer, ...(name === 'UnlikeServer' && { unlike: true }) });
    }
  }

  /** The local PostgreSQL has finished a replay, or given it up. */
  onApplied(gid: Gid, error: ErrorReport | undefined): void {
    if (error === undefined) faultPoint('participant.replay.prepared');
    if (error?.sqlstate === '40P01') this.#options.observer.conflict('replay_deadlock');
    else if (error?.sqlstate.startsWith('23') === true) this.#options.observer.conflict('constraint');
    if (!this.#catchUp.onApplied(gid, error)) this.step({ type: 'applied', gid, error });
  }

  /** A peer pulls a piece of an own transaction. */
  async #serve(to: NodeId, gid: Gid, offset: number, limit: number): Promise<void> {
    try {
      const { bytes, last } = await this.#replica.readChanges(gid, offset, limit);
      await this.#links.sendBulk(to, { gid, offset, bytes, last });
    } catch (error) {
      const reason = `node ${this.#options.settings.self} does not have the changes of "${gid}": ${(error as Error).message}`;
      await this.#links.sendBulk(to, { gid, offset, bytes: new Uint8Array(0), last: true, error: reason });
    }
  }

  onEntries(entries: readonly Entry[]): void {
    for (const entry of entries) {
      const command = decodeCommand(entry.payload);
      if (command?.type === 'commit') this.#onDecision(command.gid);
      this.step({ type: 'entry', entry: { index: entry.index, command } });
    }
    this.#outcomes.onApplied();
  }

  onInstall(snapshot: Snapshot): void {
    this.step({ type: 'install', snapshot: decodeSnapshot(snapshot.state) });
    this.#outcomes.onApplied();
  }

  onLeadership({ leader, term, ready }: Leadership): void {
    this.step({ type: 'leadership', leader, term, ready });
  }

  onPostgres(event: Extract<NodeEvent, { type: 'postgres-up' | 'postgres-down' }>): void {
    this.#postgresUp = event.type === 'postgres-up';
    if (!this.#postgresUp) this.#catchUp.reset();
    this.step(event);
  }

  /** The replay of a peer's large transaction gets on: its origin need not give up on the vote. */
  onProgress(gid: Gid): void {
    const origin = parseGid(gid)?.node;
    const now = performance.now();
    if (origin === undefined || now - (this.#progressSent.get(gid) ?? 0) < PROGRESS_INTERVAL) return;
    this.#progressSent.set(gid, now);
    this.#links.send(origin, { t: 'progress', gid });
  }

  /** The decoder gets on with a large transaction: what waits in or behind it is late, not lost. */
  onDecoding(database: string): void {
    const now = performance.now();
    if (now - (this.#decodingSaid.get(database) ?? -Infinity) < PROGRESS_INTERVAL) return;
    this.#decodingSaid.set(database, now);
    this.step({ type: 'decoding', database });
  }

  /** The decoder has all changes of an own transaction. */
  onDecoded(gid: Gid, database: string, data: Uint8Array | undefined): void {
    this.#mark(gid, 'decoded');
    faultPoint('coordinator.changes.decoded');
    this.step({ type: 'decoded', gid, database, data });
  }

  // ---- Commits: what sessions ask for

  /** Why this node takes no writes now; undefined when it does. */
  get unwritable(): string | undefined {
    const reason = this.core.refusal;
    if (reason === undefined) return undefined;
    const problem = this.#replica.problem ?? this.#voiceProblem ?? this.#catchUp.problem;
    return problem === undefined ? reason : `${reason}: ${problem}`;
  }

  /** Why there may be no leader, though enough nodes are there. */
  get #voiceProblem(): string | undefined {
    if (this.core.hasLeader) return undefined;
    const own = this.core.voiceless;
    if (own !== undefined) return own;
    const others = this.voiceless;
    if (others.length === 0) return undefined;
    return `node ${others.join(', ')} came with a new decision log and can't vote: a majority of the others has to let it in`;
  }

  refusal(): PgError | undefined {
    const reason = this.unwritable;
    return reason === undefined ? undefined : toPgError(reports.notWritable(reason, this.#options.settings.self));
  }

  readRefusal(): PgError | undefined {
    if (!this.#options.refuseReads) return undefined;
    const reason = this.unwritable;
    return reason === undefined ? undefined : toPgError(reports.notReadable(reason, this.#options.settings.self));
  }

  allocate(_database: string, senior?: Gid): Gid {
    const { cluster, settings } = this.#options;
    this.#sequence += 1;
    const now = this.clock.next();
    const seniority = senior === undefined ? undefined : parseGid(senior)?.clock;
    return formatGid({
      cluster,
      node: settings.self,
      epoch: this.core.epoch,
      sequence: this.#sequence,
      clock: seniority !== undefined && now - seniority < SENIORITY ? seniority : now,
    });
  }

  turn(senior: Gid, wake: () => void): Turn | undefined {
    const clock = parseGid(senior)?.clock ?? 0;
    return this.clock.last - clock < SENIORITY ? this.turns.enter(senior, wake) : undefined;
  }

  reveal(gid: Gid): void {
    this.#revealed.add(gid);
  }

  withdraw(gid: Gid): void {
    this.#revealed.delete(gid);
  }

  /** Whether a transaction of this node may still commit, or is about to be named in the log. */
  isUnderWay(gid: Gid): boolean {
    return this.#revealed.has(gid) || this.#own.has(gid) || this.core.knows(gid);
  }

  async outcome(text: string): Promise<string> {
    const { cluster } = this.#options;
    const parts = parseGid(text);
    if (parts?.cluster !== cluster || !this.#options.settings.nodes.includes(parts.node)) {
      throw new PgError('22023', `"${text}" is not the name of a transaction of cluster "${cluster}"`, {
        hint: 'The name stands in the DETAIL of the error 08007, and multimaster.current_gid() tells it before COMMIT.',
      });
    }
    try {
      return await this.#outcomes.outcome(text as Gid);
    } catch (error) {
      if (!(error instanceof OutcomeUnavailable)) throw error;
      throw new PgError('57P03', 'the outcome of a transaction cannot be found out now', {
        detail: `Node ${this.#options.settings.self}: ${error.message}.`,
        hint: 'Ask again, or ask another node, when a majority of the nodes is reachable.',
      });
    }
  }

  begin(
    gid: Gid,
    database: string,
    level: CommitLevel,
  ): { prepared(error: PgError | undefined): void; readonly outcome: Promise<CommitOutcome> } {
    this.#revealed.delete(gid);
    const outcome = new Promise<CommitOutcome>((resolve) => this.#own.set(gid, { begun: performance.now(), resolve }));
    this.step({ type: 'begin', gid, database, everywhere: level === 'remote_apply' });
    faultPoint('coordinator.prepare.before-send');
    return {
      outcome,
      prepared: (error) => {
        this.#mark(gid, 'prepared');
        faultPoint('coordinator.prepare.answered');
        if (error === undefined) this.step({ type: 'prepared', gid });
        else
          this.step({
            type: error.sqlstate.startsWith('08') ? 'prepare-unknown' : 'prepare-failed',
            gid,
            error: toReport(error),
          });
      },
    };
  }

  #onProposed(command: LogCommand): void {
    if (command.type !== 'commit') return;
    this.#mark(command.gid, 'proposed');
    faultPoint('coordinator.proposal.before-send');
  }

  /** Handed to the link: it leaves when this turn of the event loop ends, so a process that dies here has to let that happen. */
  #onSent(message: PeerMessage): void {
    if (message.t === 'announce') setImmediate(faultPoint, 'coordinator.announce.sent');
    else if (message.t === 'propose') setImmediate(faultPoint, 'coordinator.proposal.sent');
    else if (message.t === 'vote') setImmediate(faultPoint, 'participant.vote.sent');
  }

  #onDecision(gid: Gid): void {
    faultPoint('leader.entry.committed');
    faultPoint(`${this.#roleIn(gid)}.decision.received`);
  }

  #roleIn(gid: Gid): 'coordinator' | 'participant' {
    return parseGid(gid)?.node === this.#options.settings.self ? 'coordinator' : 'participant';
  }

  /** PostgreSQL has committed everything up to an entry; `gid` is that entry's transaction. */
  onCommitted(index: LogIndex, gid: Gid | undefined): void {
    if (gid !== undefined) faultPoint(`${this.#roleIn(gid)}.commit.answered`);
    this.step({ type: 'committed', index });
  }

  #mark(gid: Gid, phase: 'prepared' | 'decoded' | 'proposed' | 'decided'): void {
    const own = this.#own.get(gid);
    if (own !== undefined) own[phase] ??= performance.now();
  }

  #answer({ gid, outcome }: Extract<NodeEffect, { type: 'answer' }>): void {
    const own = this.#own.get(gid);
    if (own === undefined) return;
    this.#own.delete(gid);
    faultPoint('coordinator.answer.before-send');
    const sqlstate = outcome.type === 'committed' ? undefined : outcome.error.sqlstate;
    if (sqlstate === '40001' && own.prepared !== undefined) this.#options.observer.conflict('prepared_aborted');
    this.#options.observer.finished(outcome.type, sqlstate, phasesOf(own));
    own.resolve(outcome.type === 'committed' ? outcome : { type: outcome.type, error: toPgError(outcome.error) });
  }
}

function phasesOf({ begun, prepared, decoded, proposed, decided }: OwnCommit): CommitPhases {
  const now = performance.now();
  const seconds = (from: number | undefined, to: number | undefined) =>
    from === undefined || to === undefined ? undefined : (to - from) / 1000;
  return {
    prepare: seconds(begun, prepared),
    decode: seconds(begun, decoded),
    // With a proposal all votes were in; the last of both was what it waited for before.
    vote: seconds(Math.max(prepared ?? begun, decoded ?? begun), proposed),
    precommit: seconds(proposed, decided),
    commit: seconds(decided, now),
    total: (now - begun) / 1000,
  };
}

/** The log keeps entries for long, and these are views into what was received: each would keep all of that alive. */
function ownEntries(message: Message): Message {
  if (message.type !== 'append' || message.entries.length === 0) return message;
  return {
    ...message,
    entries: message.entries.map((entry) => ({ ...entry, payload: Uint8Array.from(entry.payload) })),
  };
}

export function toPgError({ sqlstate, message, detail, hint, fields }: ErrorReport): PgError {
  return new PgError(sqlstate, message, { detail, hint, ...(fields && { fields }) });
}

export function toReport({ sqlstate, message, detail, hint, fields }: PgError): ErrorReport {
  return { sqlstate, message, detail, hint, fields: { ...fields } };
}
