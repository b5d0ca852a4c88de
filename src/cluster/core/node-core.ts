import { CommitQueue, type DecidedCommit } from '../../commit/core/commit-queue.ts';
import { Coordinator, type CoordinatorEffect, type CoordinatorEvent } from '../../commit/core/coordinator.ts';
import { Guard, type GuardSnapshot } from '../../commit/core/guard.ts';
import { Participant, type ParticipantEffect, type ParticipantEvent } from '../../commit/core/participant.ts';
import type { LogCommand, LogEntry } from '../../commit/core/types.ts';
import { parseGid } from '../../commit/gid.ts';
import type { Epoch, Gid, LogIndex, NodeId } from '../../runtime/ids.ts';
import type { PeerMessage } from '../messages.ts';
import { Announcements } from './announcements.ts';
import { Admission } from './admission.ts';
import { LOCK_LEASE } from './leader-duties.ts';
import { LockAgent } from './lock-agent.ts';
import { Proposals } from './proposals.ts';
import type { NodeEffect, NodeEvent, NodeSettings, NodeState } from './types.ts';
import { Voice } from './voice.ts';

/**
 * Everything that one node decides, without doing any of it: the parts of the commit protocol joined with membership.
 * Production feeds it from sockets, PostgreSQL and the Raft driver; the simulator from its model. Effects must be carried
 * out in order, before the next event.
 */
export class NodeCore {
  readonly #settings: NodeSettings;
  #guard: Guard;
  /** Admissions up to here belong to earlier runs. */
  readonly #startedAt: LogIndex;
  readonly #queue: CommitQueue;
  readonly #coordinator: Coordinator;
  readonly #participant: Participant;
  readonly #announcements = new Announcements();
  readonly #proposals: Proposals;
  #state: NodeState = 'recovering';
  /** A snapshot told of members that the coordinator does not know yet: what all that it knows have committed, some member may lack. */
  #isOutdated = false;
  /** What was found prepared, while a gap keeps this node from making use of it. */
  #found: ReadonlyMap<Gid, string> | undefined;
  /** The log was read up to here without a hole: what a proposal may claim. Behind the guard while there is a gap. */
  #readUpTo: LogIndex;
  #fenced: string | undefined;
  /** Why this node can't be the origin of anything, though its PostgreSQL is up and others' transactions are replayed and voted for. */
  #unready: string | undefined;
  #isHistoryGone = false;
  /** The epoch that this run was admitted under, 0 while it is no member. */
  #epoch = 0 as Epoch;
  readonly #admission: Admission;
  readonly #voice: Voice;
  readonly #locks: LockAgent;
  #lastAsk = -Infinity;
  #lastUndecided = new Set<Gid>();
  #now = 0;
  #wall = 0;
  #effects: NodeEffect[] = [];

  /**
   * A run begins with what its own disk holds: a snapshot, and the last entry of the restored Raft log. An ADMIT up to
   * there was used up by an earlier run, which may have given out transaction names under it.
   */
  constructor(settings: NodeSettings, snapshot?: GuardSnapshot, lastIndex = 0 as LogIndex) {
    this.#settings = settings;
    this.#admission = new Admission(settings);
    this.#voice = new Voice(settings.self, settings.voters, (effect) => this.#effects.push(effect));
    const { recentCommits } = settings;
    this.#guard = snapshot === undefined ? new Guard(recentCommits) : Guard.restore(snapshot, recentCommits);
    this.#startedAt = lastIndex;
    this.#readUpTo = this.#guard.index;
    this.#queue = new CommitQueue(this.#guard.lastCommit, this.#guard.index);
    this.#coordinator = new Coordinator(settings);
    this.#proposals = this.#createProposals();
    this.#locks = this.#createLocks();
    this.#participant = new Participant(settings.self, {
      hasEnded: (node, epoch) => this.#guard.hasEnded(node, epoch),
      isSettled: (gid) => !this.#coordinator.isUndecided(gid),
      isOwn: (gid) => this.#coordinator.has(gid),
      isCommitted: (gid) => this.#queue.has(gid),
      isInLog: (gid) => this.#queue.has(gid) || this.#guard.hasCommitted(gid),
    });
  }

  /** The clock reading up to which sessions may go on with their advisory locks. */
  get lockLeaseEnd(): number {
    return this.#locks.leaseEnd;
  }

  get guard(): Guard {
    return this.#guard;
  }

  get state(): NodeState {
    return this.#fenced === undefined ? this.#state : 'fenced';
  }

  get fencedBecause(): string | undefined {
    return this.#fenced;
  }

  get epoch(): Epoch {
    return this.#epoch;
  }

  /** Everything up to here is committed in this node's PostgreSQL. */
  get committed(): LogIndex {
    return this.#queue.committed;
  }

  /** The last COMMIT that PostgreSQL is known to have stored; 0 until it has been asked. */
  get stored(): LogIndex {
    return this.#queue.postgres;
  }

  /** The highest log index whose COMMIT PREPARED may have been sent. */
  get handedOut(): LogIndex {
    return this.#queue.handedOut;
  }

  get queueLength(): number {
    return this.#queue.length;
  }

  get coordinator(): Pick<Coordinator, 'list'> {
    return this.#coordinator;
  }

  get participant(): Pick<Participant, 'list' | 'gids' | 'state'> {
    return this.#participant;
  }

  get hasLeader(): boolean {
    return this.#proposals.leader !== undefined;
  }

  /** Why this node's voice in elections does not count, for operators; undefined if it does, or is not needed yet. */
  get voiceless(): string | undefined {
    return this.#voice.problem;
  }

  /** Whether a transaction is under way here, as its origin or not. */
  knows(gid: Gid): boolean {
    return this.#coordinator.has(gid) || this.#participant.state(gid) !== undefined;
  }

  /**
   * Whether a transaction that is prepared here is an own one that nothing waits for: named in this epoch, or in one that ended without its
   * COMMIT, which no snapshot hides. A PREPARE whose connection broke may be carried out that late.
   */
  isAbandoned(gid: Gid): boolean {
    const parts = parseGid(gid);
    if (parts?.node !== this.#settings.self || this.knows(gid)) return false;
    if (!this.#queue.isComplete || this.#queue.has(gid)) return false;
    return parts.epoch === this.#epoch || this.#guard.hasEnded(parts.node, parts.epoch);
  }

  /** Why writes cannot be coordinated now; undefined when they can. */
  get refusal(): string | undefined {
    if (this.#fenced !== undefined) return `fenced: ${this.#fenced}`;
    if (!this.hasLeader) return 'there is no leader of the decision log that this node can reach';
    // What was committed before the admission may still be missing here; a transaction that begins without it would
    // overwrite it, as nothing holds its locks here.
    if (this.#state === 'member' && this.committed >= this.#epoch) return this.#unready;
    const pause = this.#admission.pause(this.#now);
    if (pause > 0)
      return `its votes did not come in time again and again: it asks to be let in again in ${Math.ceil(pause / 1000)} s`;
    if (this.#state === 'recovering') return 'its PostgreSQL is not available';
    if (this.#isHistoryGone)
      return "what it lacks is gone from the other nodes' histories: it needs a copy of their data";
    return 'it is catching up with the cluster';
  }

  #createProposals(): Proposals {
    return new Proposals(this.#settings, {
      guard: () => this.#guard,
      readUpTo: () => this.#readUpTo,
      now: () => this.#now,
      wall: () => this.#wall,
      emit: (effect) => this.#effects.push(effect),
      rejected: (term, command, reason) => this.#onRejected(term, command, reason),
    });
  }

  #createLocks(): LockAgent {
    const { self, heartbeatTimeout, resendAfter, decisionTimeout } = this.#settings;
    return new LockAgent(
      { self, resendAfter, lease: LOCK_LEASE * heartbeatTimeout, patience: decisionTimeout },
      {
        epoch: () => (this.state === 'member' ? this.#epoch : (0 as Epoch)),
        committed: () => this.#queue.committed,
        propose: (command) => {
          this.#proposals.proposeToLeader(command);
        },
        knows: (waits) => this.#guard.locks.knows(waits),
        emit: (effect) => this.#effects.push(effect),
      },
    );
  }

  step(event: NodeEvent): readonly NodeEffect[] {
    this.#effects = [];
    this.#dispatch(event);
    this.#drainQueue();
    return this.#effects;
  }

  #dispatch(event: NodeEvent): void {
    switch (event.type) {
      case 'entry':
        return this.#onEntry(event.entry);
      case 'install':
        return this.#onInstall(event.snapshot);
      case 'leadership':
        return this.#onLeadership(event);
      case 'append-refused':
        return this.#proposals.onAppendRefused(event.index);
      case 'message':
        return this.#onMessage(event.from, event.message);
      case 'link-up':
        return this.#onLinkUp(event.peer);
      case 'voting':
        this.#voice.begin(event.memory);
        this.#readOwnMemory();
        return this.#voice.ask(this.#proposals.leader?.node);
      case 'postgres-up':
        return this.#onPostgresUp(event);
      case 'postgres-down':
        return this.#onPostgresDown();
      case 'readiness':
        this.#unready = event.problem;
        return;
      case 'history-gone':
        this.#isHistoryGone = event.isSo;
        return;
      case 'committed':
        return this.#onCommitted(event.index);
      case 'gap-filled':
        return this.#onGapFilled(event);
      case 'applied':
      case 'blocked':
      case 'caught-up':
        return this.#participate(event);
      case 'rolled-back':
        this.#coordinate(event);
        return this.#participate(event);
      case 'decoding':
        return this.#coordinate({ ...event, now: this.#now });
      case 'decoded':
        return this.#onDecoded(event.gid, event.database, event.data);
      case 'begin':
        this.#announcements.begin(event.gid, this.#queue.handedOut);
        return this.#coordinate({ ...event, dependsOn: this.#queue.handedOut, now: this.#now });
      case 'prepared':
        return this.#coordinate({ ...event, now: this.#now });
      case 'prepare-failed':
      case 'prepare-unknown':
        return this.#coordinate(event);
      case 'lock-request':
        return this.#locks.onRequest(event.request);
      case 'lock-late':
        return this.#locks.onLate(event.session);
      case 'locks-confirmed':
        return this.#locks.onConfirmed(event.sentAt, event.index, this.#guard.index);
      case 'tick':
        return this.#onTick(event.now, event.wall);
    }
  }

  // ---- the log

  #onEntry(entry: LogEntry): void {
    const { index, command } = entry;
    const wasMember = command?.type === 'commit' && this.#epoch !== 0;
    const outcomes = this.#guard.apply(index, command);
    if (command?.type === 'commit') this.#onDecision(index, command, wasMember);
    else if (command?.type === 'voter') this.#readOwnMemory();
    else if (command?.type === 'admit' || command?.type === 'exclude') this.#onMembership(index, command);
    this.#queue.applied(index);
    this.#locks.onEntry(index, command, outcomes);
    this.#onRead();
    this.#onProgress();
    this.#proposals.resumeDuties();
  }

  /** The log has been read up to the guard's index. */
  #onRead(): void {
    if (this.#isBlind) return;
    this.#readUpTo = this.#guard.index;
    this.#participate({ type: 'log-applied', index: this.#readUpTo });
  }

  /** A snapshot stands for COMMIT entries not known here: nothing may be taken to be aborted because it is not found. */
  get #isBlind(): boolean {
    return !this.#queue.isComplete;
  }

  #onDecision(index: LogIndex, command: Extract<LogCommand, { type: 'commit' }>, member: boolean): void {
    if (index <= this.#queue.committed) return;
    const { gid, database, time, dependsOn, notify } = command;
    if (!this.#queue.add({ index, gid, database, time, dependsOn, notify })) return;
    // What is prepared for others is not known while recovering: sorted out when it is.
    if (this.#state !== 'recovering' || this.#coordinator.has(gid))
      this.#decide({ index, gid, database, time, dependsOn, notify }, member);
  }

  #decide(entry: DecidedCommit, member: boolean): void {
    if (this.#coordinator.has(entry.gid)) this.#coordinate({ type: 'decided', gid: entry.gid, index: entry.index });
    else {
      const { gid, index, database, dependsOn } = entry;
      this.#participate({ type: 'decided', gid, index, database, dependsOn, member });
    }
  }

  #onMembership(index: LogIndex, command: Extract<LogCommand, { type: 'admit' | 'exclude' }>): void {
    const { node } = command;
    const ended = (command.type === 'admit' ? index - 1 : command.epoch) as Epoch;
    if (node === this.#settings.self) this.#onOwnMembership(index, command);
    if (!this.#isBlind) {
      this.#coordinate({ type: 'members', members: this.#guard.members });
      this.#participate({ type: 'epoch-ended', node, epoch: ended });
    }
    if (this.#epoch === (index as number)) this.#voteAgain();
    this.#effects.push({ type: 'members-changed' });
  }

  #onOwnMembership(index: LogIndex, command: LogCommand): void {
    const isOld = index <= this.#startedAt;
    if (command.type === 'admit' && this.#state === 'joining' && !isOld) {
      this.#state = 'member';
      this.#epoch = index as number as Epoch;
      this.#admission.admitted(this.#now);
    } else if (this.#epoch !== 0) {
      if (command.type === 'exclude') this.#admission.excluded(this.#now, command.slow === true);
      // Excluded; or admitted when it was no longer ready for that, so it has to ask again.
      this.#leave();
    }
  }

  /** The votes given before the admission do not count. */
  #voteAgain(): void {
    for (const { gid, state } of this.#participant.list()) {
      if (state === 'prepared' || state === 'failed') {
        this.#participate({ type: 'announced', gid, database: '', dependsOn: 0 as LogIndex });
      }
    }
  }

  /** Out of the cluster: find out anew what this node's PostgreSQL has before asking to be let in again. */
  #leave(): void {
    this.#epoch = 0 as Epoch;
    this.#locks.left('it is no member of the cluster any more');
    if (this.#state === 'recovering') return;
    this.#state = 'recovering';
    this.#participate({ type: 'left' });
    this.#effects.push({ type: 'recover' });
  }

  /** The parts are told what the snapshot says once it is known which commits it stands for. */
  #onInstall(snapshot: GuardSnapshot): void {
    this.#guard = Guard.restore(snapshot, this.#settings.recentCommits);
    this.#queue.skip(this.#guard.lastCommit, this.#guard.index);
    this.#isOutdated = true;
    this.#leave();
    if (this.#found !== undefined) this.#rejoin(this.#found);
    this.#readOwnMemory();
    this.#effects.push({ type: 'members-changed' });
  }

  #onLeadership(event: Extract<NodeEvent, { type: 'leadership' }>): void {
    this.#proposals.onLeadership(event);
    this.#admission.leaderChanged();
    this.#coordinate({ type: 'leader', leader: this.#proposals.leader });
    this.#locks.leaderChanged();
  }

  #readOwnMemory(): void {
    this.#voice.read(this.#guard.memoryOf(this.#settings.self));
  }

  #onRejected(term: number, command: LogCommand, reason: Extract<PeerMessage, { t: 'rejected' }>['reason']): void {
    if (command.type === 'commit') {
      this.#coordinate({ type: 'rejected', gid: command.gid, term, attempt: command.attempt, reason });
    }
  }

  // ---- peers

  #onMessage(from: NodeId, message: PeerMessage): void {
    switch (message.t) {
      case 'beat':
        this.#proposals.duties?.onBeat(from, message, this.#now);
        return this.#onCommittedElsewhere(from, message.committed);
      case 'announce': {
        const { gid, database, dependsOn } = message;
        if (this.#state === 'member' || this.#state === 'joining')
          this.#participate({ type: 'announced', gid, database, dependsOn });
        return;
      }
      case 'vote':
        return this.#coordinate({
          type: 'vote',
          gid: message.gid,
          node: from,
          epoch: message.epoch,
          error: message.error,
        });
      case 'progress':
        return this.#coordinate({ type: 'progress', gid: message.gid, now: this.#now });
      case 'not-active':
        // A snapshot may hide its COMMIT at or before that index. It is asked about again until that is known.
        if (message.asOf > 0 && this.#isBlind) return;
        return this.#participate({ type: 'not-active', gid: message.gid, asOf: message.asOf });
      case 'ask':
        return this.#onAsk(from, message.gids);
      case 'contend':
        return this.#coordinate({ type: 'contended', gid: message.loser, by: message.winner, table: message.table });
      case 'propose':
        return this.#proposals.onProposal(from, message);
      case 'rejected':
        return this.#onRejected(message.term, message.command, message.reason);
      case 'suspect':
        return this.#proposals.exclude(message.node, message.epoch, message.reason, message.slow);
      case 'committed':
        return this.#onCommittedElsewhere(from, message.index);
      case 'memories':
      case 'memory':
        return this.#voice.onMessage(from, message);
      case 'let-in':
        return this.#proposals.letIn(from, message.memory);
      case 'raft':
      case 'fetch':
      case 'history':
      case 'clone':
      case 'read-index':
      case 'read-index-is':
      case 'outcome':
      case 'outcome-is':
        throw new Error(`"${message.t}" is not for the node core`);
    }
  }

  #onCommittedElsewhere(node: NodeId, index: LogIndex): void {
    if (!this.#isOutdated) this.#coordinate({ type: 'committed', node, index });
  }

  /** A participant wants to know what became of these. Only this very epoch's can be answered for; others the log settles. */
  #onAsk(from: NodeId, gids: readonly Gid[]): void {
    if (this.#epoch === 0) return;
    for (const gid of gids) {
      if (parseGid(gid)?.epoch !== this.#epoch) continue;
      if (this.#coordinator.isAborting(gid)) this.#send(from, { t: 'not-active', gid, asOf: 0 as LogIndex });
      else if (!this.#coordinator.has(gid)) this.#send(from, { t: 'not-active', gid, asOf: this.#readUpTo });
    }
  }

  #onLinkUp(peer: NodeId): void {
    this.#voice.askOne(peer);
    for (const gid of this.#announcements.gids()) {
      if (this.#coordinator.isUndecided(gid)) this.#announce(gid, peer);
    }
    const gids = this.#participant.undecided(peer);
    if (gids.length > 0) this.#send(peer, { t: 'ask', gids });
  }

  /** The decoder has all changes of an own prepared transaction; `data` when they are small enough to travel at once. */
  #onDecoded(gid: Gid, database: string, data: Uint8Array | undefined): void {
    if (!this.#coordinator.isUndecided(gid) || !this.#announcements.complete(gid, database, data)) {
      this.#effects.push({ type: 'release', gid });
      return;
    }
    for (const node of this.#guard.members.keys()) if (node !== this.#settings.self) this.#announce(gid, node);
    this.#coordinate({ type: 'announced', gid, now: this.#now });
  }

  #announce(gid: Gid, to: NodeId): void {
    const announcement = this.#announcements.get(gid);
    if (announcement !== undefined) this.#send(to, { t: 'announce', gid, ...announcement });
  }

  #send(to: NodeId, message: PeerMessage): void {
    this.#effects.push({ type: 'send', to, message });
  }

  // ---- this node's PostgreSQL

  #onPostgresUp({ committed, progress, prepared }: Extract<NodeEvent, { type: 'postgres-up' }>): void {
    if (this.#state !== 'recovering') throw new Error(`PostgreSQL came up while ${this.#state}`);
    this.#queue.recovered(committed, progress);
    this.#rejoin(prepared);
  }

  /** What PostgreSQL has is known: compare it with the log, or find out first what the log had. */
  #rejoin(prepared: ReadonlyMap<Gid, string>): void {
    this.#found = prepared;
    if (this.#isBlind) {
      this.#effects.push({ type: 'gap', from: this.#queue.postgres, to: this.#queue.from });
      return;
    }
    this.#found = undefined;
    this.#state = 'catching-up';
    this.#participate({ type: 'recovered', prepared });
    this.#coordinate({ type: 'recovered', prepared: new Set(prepared.keys()) });
    for (const entry of [...this.#queue.pending()]) this.#decide(entry, false);
    this.#coordinate({ type: 'members', members: this.#guard.members });
    this.#isOutdated = false;
    this.#onRead();
    this.#onProgress();
  }

  #onGapFilled({ from, to, entries }: Extract<NodeEvent, { type: 'gap-filled' }>): void {
    if (this.#found === undefined || from !== this.#queue.postgres || to !== this.#queue.from) return;
    this.#queue.fill(entries);
    this.#rejoin(this.#found);
  }

  #onPostgresDown(): void {
    this.#found = undefined;
    if (this.#state === 'recovering') return;
    this.#state = 'recovering';
    this.#locks.left('its PostgreSQL is not available');
    this.#participate({ type: 'left' });
  }

  #onCommitted(index: LogIndex): void {
    this.#queue.done(index);
    this.#admission.committed(this.#now);
    this.#onProgress();
  }

  /** The committed index may have moved on: by a commit, or past entries that commit nothing. */
  #onProgress(): void {
    if (this.#state === 'recovering') return;
    const index = this.#queue.committed;
    this.#participate({ type: 'committed', index });
    this.#coordinate({ type: 'committed', node: this.#settings.self, index });
    this.#locks.onCommitted();
  }

  #drainQueue(): void {
    if (this.#state === 'recovering' || this.#fenced !== undefined) return;
    const isPrepared = ({ gid }: DecidedCommit) =>
      this.#coordinator.has(gid) || this.#participant.state(gid) === 'decided';
    let entry: DecidedCommit | undefined;
    while ((entry = this.#queue.next(isPrepared)) !== undefined) this.#effects.push({ type: 'commit', entry });
  }

  // ---- time

  #onTick(now: number, wall: number): void {
    this.#now = now;
    this.#wall = wall;
    this.#coordinate({ type: 'tick', now });
    if (this.#state === 'member') this.#proposals.duties?.onOwnTick(this.#epoch, now);
    this.#proposals.tick(now);
    this.#locks.tick(now);
    this.#reportDown();
    this.#askForAdmission();
    if (now - this.#lastAsk < this.#settings.resendAfter) return;
    this.#lastAsk = now;
    this.#askAboutUndecided();
    this.#voice.ask(this.#proposals.leader?.node);
  }

  /** A member without its PostgreSQL asks to be excluded, rather than let the others wait for its votes. */
  #reportDown(): void {
    if (this.#epoch === 0 || (this.#state !== 'recovering' && this.#fenced === undefined)) return;
    const reason = this.#fenced ?? 'its PostgreSQL is not available';
    this.#proposals.suspect(this.#settings.self, this.#epoch, reason, false);
  }

  #askForAdmission(): void {
    if (!this.hasLeader || this.#fenced !== undefined || this.#isHistoryGone) return;
    if (this.#state !== 'catching-up' && this.#state !== 'joining') return;
    // A log that was lost holds admissions of an earlier life, which must not be taken for the answer: what lets its voice count comes after them.
    if (this.#voice.problem !== undefined) return;
    if (!this.#admission.isTime(this.#now, this.#queue.length)) return;
    this.#state = 'joining';
    const { self } = this.#settings;
    const command: LogCommand = { type: 'admit', node: self, previous: this.#guard.lastEpoch(self), time: this.#wall };
    this.#proposals.proposeToLeader(command);
  }

  /** What stays undecided from one round to the next may have lost its abort with a link: its origin is asked. */
  #askAboutUndecided(): void {
    const undecided = new Set<Gid>();
    for (const node of this.#settings.nodes) {
      const gids = this.#participant.undecided(node);
      const old = gids.filter((gid) => this.#lastUndecided.has(gid));
      if (old.length > 0 && node !== this.#settings.self) this.#send(node, { t: 'ask', gids: old });
      for (const gid of gids) undecided.add(gid);
    }
    this.#lastUndecided = undecided;
  }

  // ---- effects of the parts

  #coordinate(event: CoordinatorEvent): void {
    for (const effect of this.#coordinator.step(event)) this.#onCoordinatorEffect(effect);
  }

  #onCoordinatorEffect(effect: CoordinatorEffect): void {
    switch (effect.type) {
      case 'propose': {
        const { gid, database, dependsOn, notify, attempt } = effect;
        const command: LogCommand = { type: 'commit', gid, database, time: this.#wall, dependsOn, notify, attempt };
        return this.#proposals.propose(effect.to, effect.term, command, effect.votes);
      }
      case 'tell-aborted':
        // Never proposed, so final whatever the log says: the receiver need not wait for any entry.
        for (const node of this.#settings.nodes) {
          if (node !== this.#settings.self) this.#send(node, { t: 'not-active', gid: effect.gid, asOf: 0 as LogIndex });
        }
        return;
      case 'announce':
        return this.#announce(effect.gid, effect.to);
      case 'suspect': {
        const reason = `no vote for ${effect.gid} within member.vote_timeout`;
        return this.#proposals.suspect(effect.node, effect.epoch, reason, true);
      }
      case 'release':
        this.#announcements.release(effect.gid);
        this.#effects.push(effect);
        return;
      case 'rollback-prepared':
        if (this.#state !== 'recovering') this.#effects.push(effect);
        return;
      case 'answer':
        this.#effects.push(effect);
        return;
    }
  }

  #participate(event: ParticipantEvent): void {
    for (const effect of this.#participant.step(event)) this.#onParticipantEffect(effect);
  }

  #onParticipantEffect(effect: ParticipantEffect): void {
    switch (effect.type) {
      case 'vote':
        // Without an epoch a vote says nothing; it is given again at admission. An earlier run of this node needs none.
        if (this.#epoch !== 0 && effect.to !== this.#settings.self)
          this.#send(effect.to, { t: 'vote', gid: effect.gid, epoch: this.#epoch, error: effect.error });
        return;
      case 'contend':
        if (effect.to === this.#settings.self) {
          return this.#coordinate({ type: 'contended', gid: effect.loser, by: effect.winner, table: effect.table });
        }
        return this.#send(effect.to, { t: 'contend', loser: effect.loser, winner: effect.winner, table: effect.table });
      case 'missing':
        if (effect.member)
          this.#fence(`I2 violated: log entry ${effect.index} commits ${effect.gid}, which is not prepared here`);
        else this.#effects.push(effect);
        return;
      case 'rollback-prepared':
        if (this.#state !== 'recovering') this.#effects.push(effect);
        return;
      default:
        this.#effects.push(effect);
    }
  }

  /** Something that must never be has been seen: this node stops taking part until an operator, or a re-clone, helps. */
  #fence(reason: string): void {
    if (this.#fenced !== undefined) return;
    this.#fenced = reason;
    this.#locks.left('it takes no part in the cluster any more');
    this.#effects.push({ type: 'fenced', reason });
  }
}
