/**
 * One voter of a Raft group as a pure machine. See types.ts for what goes in and out.
 *
 * Beyond the paper: pre-vote (section 9.6), check quorum and leader stickiness (6.2, 4.2.3), reads by a confirmed commit
 * index (6.4), pipelined appends and the leader's disk written in parallel with the followers' (10.2).
 */
import type { LogIndex, NodeId } from '../../runtime/ids.ts';
import { invariant } from './invariant.ts';
import { Leader } from './leader.ts';
import type { RaftLog } from './log.ts';
import type {
  Append,
  Commit,
  Heartbeat,
  InstallSnapshot,
  Learner,
  Message,
  PreVote,
  PreVoteReply,
  Vote,
} from './messages.ts';
import type { Progress } from './progress.ts';
import { voteResult } from './quorum.ts';
import { Prng } from './random.ts';
import { Replica } from './replica.ts';
import type {
  Effects,
  Entry,
  Leadership,
  Outgoing,
  ProposalAnswer,
  RaftConfig,
  RaftEvent,
  ReadAnswer,
  RejectReason,
  Restored,
  Role,
  Snapshot,
} from './types.ts';

const at = (n: number): LogIndex => n as LogIndex;

export class RaftCore {
  readonly #config: RaftConfig;
  readonly #prng: Prng;
  readonly #replica: Replica;
  readonly #log: RaftLog;

  /** Only rises. With #votedFor it is the hard state; a vote is given once per term. */
  #term: number;
  #votedFor: NodeId | null;
  #role: Role = 'follower';
  /** The leader of #term, once heard from. At most one per term. */
  #leader: NodeId | null = null;
  /** Present exactly if #role is leader. */
  #lead: Leader | null = null;
  #votes = new Map<NodeId, boolean>();
  /** See RaftConfig.learner. */
  #learner: string | null;
  /** Follower and candidates: ticks since a leader or a granted vote. Leader: what a hand-over has left of its time. */
  #electionElapsed = 0;
  #electionTimeout = 0;
  #heartbeatElapsed = 0;

  /** Gathered during a step. Promises wait for the disk, messages don't. */
  #messages: Outgoing[] = [];
  #promises: Outgoing[] = [];
  #reads: ReadAnswer[] = [];
  #proposal: ProposalAnswer | null = null;
  #reported: Leadership;
  #broken = false;

  constructor(config: RaftConfig, restored: Restored) {
    const { id, voters, electionTicks, heartbeatTicks } = config;
    invariant(
      new Set(voters).size === voters.length && voters.includes(id),
      'voters must be unique and include the id',
    );
    invariant(heartbeatTicks >= 1 && electionTicks > heartbeatTicks, 'electionTicks must exceed heartbeatTicks');
    invariant(config.maxInflightBatches >= 1 && config.maxBatchBytes >= 1, 'limits must be positive');
    this.#config = config;
    this.#learner = config.learner ?? null;
    this.#prng = new Prng(config.seed ^ Math.imul(id, 0x9e3779b9));
    this.#replica = new Replica(restored, config.retainEntries);
    this.#log = this.#replica.log;
    this.#term = restored.hardState.term;
    this.#votedFor = restored.hardState.votedFor;
    this.#reported = this.#leadership();
    this.#resetTimer();
  }

  get id(): NodeId {
    return this.#config.id;
  }
  get term(): number {
    return this.#term;
  }
  get votedFor(): NodeId | null {
    return this.#votedFor;
  }
  get role(): Role {
    return this.#role;
  }
  get leader(): NodeId | null {
    return this.#leader;
  }
  get ready(): boolean {
    return this.#lead !== null && this.#replica.delivered >= this.#lead.noop;
  }
  get commitIndex(): LogIndex {
    return this.#log.commit;
  }
  get deliveredIndex(): LogIndex {
    return this.#replica.delivered;
  }
  get durableIndex(): LogIndex {
    return this.#replica.durable;
  }
  get firstIndex(): LogIndex {
    return this.#log.firstIndex;
  }
  get lastIndex(): LogIndex {
    return this.#log.lastIndex;
  }
  get lastTerm(): number {
    return this.#log.lastTerm;
  }
  get snapshot(): Snapshot | null {
    return this.#log.snapshot;
  }

  /** Both ends included; must lie within firstIndex and lastIndex. */
  entries(from: LogIndex, to: LogIndex): readonly Entry[] {
    return this.#log.slice(from, to);
  }

  /** Null if the entry isn't in memory. */
  termAt(index: LogIndex): number | null {
    return this.#log.termAt(index);
  }

  /** A leader's view of a follower, for metrics and tests. */
  progress(of: NodeId): Readonly<Pick<Progress, 'state' | 'match' | 'next' | 'inflight' | 'silence'>> | null {
    return this.#lead?.progress(of) ?? null;
  }

  step(event: RaftEvent): Effects {
    invariant(!this.#broken, 'the core already failed');
    // Restored at the end: a throw leaves the core broken, half a step must not be continued.
    this.#broken = true;
    this.#handle(event);
    const effects = this.#finish();
    this.#broken = false;
    return effects;
  }

  #handle(event: RaftEvent): void {
    switch (event.type) {
      case 'tick':
        this.#tick();
        return;
      case 'message':
        this.#receive(event.from, event.message);
        return;
      case 'propose':
        this.#propose(event.payload, event.expectedTerm);
        return;
      case 'persisted':
        this.#persisted(event.seq);
        return;
      case 'readIndex':
        this.#readIndex(event.context);
        return;
      case 'compact':
        this.#replica.compact(event.index, event.state);
        return;
      case 'transferLeadership':
        if (this.#lead === null) return;
        this.#electionElapsed = 0;
        this.#lead.transfer(event.to);
        return;
      case 'campaign':
        if (this.#lead === null) this.#campaign();
        return;
      case 'counts':
        this.#learner = null;
    }
  }

  #tick(): void {
    this.#electionElapsed++;
    if (this.#lead === null) {
      if (this.#electionElapsed >= this.#electionTimeout) this.#campaign();
      return;
    }
    this.#lead.tick();
    if (!this.#lead.hearsMajority()) {
      this.#becomeFollower(this.#term, null);
      return;
    }
    if (this.#electionElapsed >= this.#config.electionTicks) {
      this.#electionElapsed = 0;
      this.#lead.abortTransfer();
    }
    if (++this.#heartbeatElapsed >= this.#config.heartbeatTicks) {
      this.#heartbeatElapsed = 0;
      this.#lead.heartbeat();
    }
  }

  // --- messages -------------------------------------------------------------------------------------------------------

  #receive(from: NodeId, message: Message): void {
    if (from === this.id || !this.#config.voters.includes(from)) return;
    // A pre-vote speaks of a term that may never begin, so it changes no term.
    if (message.type === 'preVote') {
      this.#preVote(from, message);
      return;
    }
    if (message.term > this.#term) {
      // While a leader is heard, a node that wants to replace it is mistaken: it was cut off or removed (section 4.2.3).
      if (message.type === 'vote' && !message.transfer && this.#hearsLeader()) return;
      this.#becomeFollower(message.term, isFromLeader(message) ? from : null);
    } else if (message.term < this.#term) {
      this.#receiveOld(from, message);
      return;
    }
    this.#receiveCurrent(from, message);
  }

  #receiveOld(from: NodeId, message: Message): void {
    if (isFromLeader(message)) this.#send(from, { type: 'stale', term: this.#term });
    else if (message.type === 'vote') this.#send(from, { type: 'voteReply', term: this.#term, granted: false });
    else if (message.type === 'preVoteReply') this.#preVoteReply(from, message);
  }

  #receiveCurrent(from: NodeId, message: Exclude<Message, PreVote>): void {
    switch (message.type) {
      case 'preVoteReply':
        this.#preVoteReply(from, message);
        return;
      case 'vote':
        this.#vote(from, message);
        return;
      case 'voteReply':
        if (this.#role === 'candidate') this.#countVote(from, message.granted);
        return;
      case 'append':
        this.#append(from, message);
        return;
      case 'commit':
        this.#commit(from, message);
        return;
      case 'heartbeat':
        this.#heartbeat(from, message);
        return;
      case 'snapshot':
        this.#install(from, message);
        return;
      case 'appendAccepted':
        invariant(message.match <= this.lastIndex || this.#lead === null, `node ${from} acknowledges unknown entries`);
        this.#lead?.accepted(from, message);
        return;
      case 'appendRejected':
        this.#lead?.rejected(from, message);
        return;
      case 'heartbeatReply':
        this.#lead?.heartbeatAnswered(from, message);
        return;
      case 'learner':
        this.#lead?.learned(from, message);
        return;
      case 'timeoutNow':
        if (this.#learner === null && this.#role === 'follower' && from === this.#leader) this.#becomeCandidate(true);
        return;
      case 'stale':
        return;
    }
  }

  #preVote(from: NodeId, message: PreVote): void {
    if (this.#learner !== null || this.#hearsLeader()) return;
    const granted = message.term > this.#term && this.#log.isUpToDate(message.lastIndex, message.lastTerm);
    this.#send(from, { type: 'preVoteReply', term: this.#term, forTerm: message.term, granted });
  }

  #preVoteReply(from: NodeId, message: PreVoteReply): void {
    if (this.#role === 'preCandidate' && message.forTerm === this.#term + 1) this.#countVote(from, message.granted);
  }

  #vote(from: NodeId, message: Vote): void {
    if (this.#learner !== null) return;
    const free = this.#votedFor === from || (this.#votedFor === null && this.#leader === null);
    if (!free || !this.#log.isUpToDate(message.lastIndex, message.lastTerm)) {
      this.#send(from, { type: 'voteReply', term: this.#term, granted: false });
      return;
    }
    this.#votedFor = from;
    this.#electionElapsed = 0;
    this.#promise(from, { type: 'voteReply', term: this.#term, granted: true });
  }

  #append(from: NodeId, message: Append): void {
    this.#follow(from);
    // What is committed here is the same everywhere, and may be compacted away: only what follows is compared.
    const { commitIndex } = this;
    if (message.prevIndex > commitIndex && this.#log.termAt(message.prevIndex) !== message.prevTerm) {
      const hint = this.#log.lastNotAfter(message.prevIndex, message.prevTerm);
      invariant(hint.term !== null, 'the log parts from the leader before its committed part');
      this.#send(
        from,
        this.#toLeader({
          type: 'appendRejected',
          term: this.#term,
          prevIndex: message.prevIndex,
          hintIndex: hint.index,
          hintTerm: hint.term,
        }),
      );
      return;
    }
    this.#log.merge(message.entries.filter((entry) => entry.index > commitIndex));
    const match = at(Math.max(message.prevIndex + message.entries.length, commitIndex));
    const commit = at(Math.min(message.commit, match));
    if (commit > commitIndex) this.#log.commitTo(commit);
    this.#promise(from, this.#toLeader({ type: 'appendAccepted', term: this.#term, match }));
  }

  #toLeader(reply: Learner['reply']): Message {
    return this.#learner === null ? reply : { type: 'learner', term: this.#term, memory: this.#learner, reply };
  }

  #commit(from: NodeId, message: Commit): void {
    this.#follow(from);
    const commit = at(Math.min(message.commit, message.prevIndex));
    if (commit <= this.commitIndex || this.#log.termAt(message.prevIndex) !== message.prevTerm) return;
    this.#log.commitTo(commit);
  }

  #heartbeat(from: NodeId, message: Heartbeat): void {
    this.#follow(from);
    // Its commit index is based on what this voter has acknowledged, if need be with a memory that is gone.
    if (this.#learner === null) {
      if (message.commit > this.lastIndex) return this.#disown(from);
      if (message.commit > this.commitIndex) this.#log.commitTo(message.commit);
    }
    this.#send(from, this.#toLeader({ type: 'heartbeatReply', term: this.#term, round: message.round }));
  }

  /**
   * The leader counts on entries that this voter acknowledged, and an operator has since allowed it to go on without them. The
   * leader of a new term asks every voter anew what it has.
   */
  #disown(leader: NodeId): void {
    this.#becomeFollower(this.#term + 1, null);
    this.#promise(leader, { type: 'stale', term: this.#term });
  }

  #install(from: NodeId, { snapshot }: InstallSnapshot): void {
    this.#follow(from);
    if (snapshot.index > this.commitIndex) {
      // A log that has the snapshot's last entry agrees up to there and need not be replaced (section 5.1).
      if (this.#log.termAt(snapshot.index) === snapshot.term) this.#log.commitTo(snapshot.index);
      else this.#log.reset(snapshot);
    }
    this.#promise(from, this.#toLeader({ type: 'appendAccepted', term: this.#term, match: this.commitIndex }));
  }

  // --- elections ------------------------------------------------------------------------------------------------------

  #hearsLeader(): boolean {
    return this.#leader !== null && this.#electionElapsed < this.#config.electionTicks;
  }

  #campaign(): void {
    if (this.#learner !== null) return this.#resetTimer();
    this.#changeRole('preCandidate', null);
    const { lastIndex, lastTerm } = this;
    for (const to of this.#others()) this.#send(to, { type: 'preVote', term: this.#term + 1, lastIndex, lastTerm });
    this.#countVote(this.id, true);
  }

  /**
   * Requests go out only when the term and the own vote are durable: a candidate that forgot its term in a crash could
   * become leader of the same term twice, with two different logs.
   */
  #becomeCandidate(transfer: boolean): void {
    this.#changeRole('candidate', null);
    this.#term++;
    this.#votedFor = this.id;
    const { lastIndex, lastTerm } = this;
    for (const to of this.#others()) {
      this.#promise(to, { type: 'vote', term: this.#term, lastIndex, lastTerm, transfer });
    }
  }

  #countVote(from: NodeId, granted: boolean): void {
    if (!this.#votes.has(from)) this.#votes.set(from, granted);
    const result = voteResult(this.#config.voters, this.#votes);
    if (result === 'lost') this.#becomeFollower(this.#term, null);
    else if (result === 'won' && this.#role === 'preCandidate') this.#becomeCandidate(false);
    else if (result === 'won' && this.#role === 'candidate') this.#becomeLeader();
  }

  #becomeLeader(): void {
    invariant(this.#replica.durableHardState.term === this.#term, 'a leader whose term is not durable');
    this.#changeRole('leader', this.id);
    this.#lead = new Leader(this.#config, this.#term, this.#log, (to, message) => this.#send(to, message));
  }

  #becomeFollower(term: number, leader: NodeId | null): void {
    invariant(term >= this.#term, () => `term falls from ${this.#term} to ${term}`);
    if (term > this.#term) {
      this.#term = term;
      this.#votedFor = null;
    }
    this.#changeRole('follower', leader);
  }

  /** A message that only the leader of this term sends. */
  #follow(leader: NodeId): void {
    invariant(this.#role !== 'leader', () => `node ${leader} also leads term ${this.#term}`);
    invariant(this.#leader === null || this.#leader === leader, () => `two leaders in term ${this.#term}`);
    if (this.#role !== 'follower' || this.#leader === null) this.#becomeFollower(this.#term, leader);
    this.#electionElapsed = 0;
    // Once it counts it must not vote for another one in this term, in which its former memory may have voted.
    if (this.#learner !== null) this.#votedFor ??= leader;
  }

  #changeRole(role: Role, leader: NodeId | null): void {
    const lost = this.#lead?.abandonReads() ?? [];
    for (const context of lost) this.#reads.push({ context, ok: false, reason: 'not-leader', leader });
    this.#role = role;
    this.#leader = leader;
    this.#lead = null;
    this.#votes = new Map();
    this.#resetTimer();
  }

  #resetTimer(): void {
    this.#electionElapsed = 0;
    this.#heartbeatElapsed = 0;
    this.#electionTimeout = this.#config.electionTicks + this.#prng.below(this.#config.electionTicks);
  }

  // --- requests of the layer above ------------------------------------------------------------------------------------

  #propose(payload: Uint8Array, expectedTerm: number): void {
    invariant(payload.length > 0, 'an empty proposal; that is how a no-op looks');
    const reason = this.#refusal() ?? this.#refuseProposal(expectedTerm);
    if (reason === null) {
      const { index, term } = this.#log.append(this.#term, payload);
      this.#proposal = { accepted: true, index, term };
      return;
    }
    const definitive = this.ready && expectedTerm < this.#term;
    this.#proposal = { accepted: false, reason, term: this.#term, leader: this.#leader, definitive };
  }

  #refusal(): RejectReason | null {
    if (this.#lead === null) return 'not-leader';
    return this.ready ? null : 'not-ready';
  }

  #refuseProposal(expectedTerm: number): RejectReason | null {
    if (expectedTerm !== this.#term) return 'wrong-term';
    if (this.#lead?.transferring === true) return 'transferring';
    return this.#log.uncommittedBytes >= this.#config.maxUncommittedBytes ? 'overloaded' : null;
  }

  #readIndex(context: number): void {
    const full = (this.#lead?.pendingReads ?? 0) >= this.#config.maxPendingReads;
    const reason = this.#refusal() ?? (full ? 'overloaded' : null);
    if (reason === null) this.#lead?.read(context);
    else this.#reads.push({ context, ok: false, reason, leader: this.#leader });
  }

  #persisted(seq: number): void {
    this.#messages.push(...this.#replica.confirm(seq));
    const { term, votedFor } = this.#replica.durableHardState;
    if (this.#role === 'candidate' && term === this.#term && votedFor === this.id) this.#countVote(this.id, true);
  }

  // --- the end of a step ----------------------------------------------------------------------------------------------

  #finish(): Effects {
    if (this.#lead !== null) {
      this.#log.commitTo(this.#lead.committable(this.#replica.durable));
      this.#lead.replicate();
      this.#reads.push(...this.#lead.takeConfirmedReads());
    }
    const persist = this.#replica.takeUnsaved({ term: this.#term, votedFor: this.#votedFor });
    const messages = [...this.#messages, ...this.#replica.promise(this.#promises)];
    const install = this.#replica.takeSnapshot();
    const committed = this.#replica.takeDeliverable();
    const effects: Effects = {
      messages,
      persist,
      compact: this.#replica.takeCompacted(),
      install,
      committed,
      leadership: this.#reportLeadership(),
      proposal: this.#proposal,
      reads: this.#reads,
    };
    this.#messages = [];
    this.#promises = [];
    this.#reads = [];
    this.#proposal = null;
    return effects;
  }

  #leadership(): Leadership {
    return { leader: this.#leader, term: this.#term, role: this.#role, ready: this.ready };
  }

  #reportLeadership(): Leadership | null {
    const now = this.#leadership();
    const old = this.#reported;
    if (now.leader === old.leader && now.term === old.term && now.role === old.role && now.ready === old.ready)
      return null;
    this.#reported = now;
    return now;
  }

  #send(to: NodeId, message: Message): void {
    this.#messages.push({ to, message });
  }

  #promise(to: NodeId, message: Message): void {
    this.#promises.push({ to, message });
  }

  #others(): NodeId[] {
    return this.#config.voters.filter((voter) => voter !== this.id);
  }
}

function isFromLeader({ type }: Message): boolean {
  return type === 'append' || type === 'commit' || type === 'heartbeat' || type === 'snapshot';
}
