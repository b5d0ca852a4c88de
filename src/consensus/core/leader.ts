/** What a node has only while it leads: its view of each follower, and reads that wait for a round of heartbeats. */
import type { LogIndex, NodeId } from '../../runtime/ids.ts';
import type { RaftLog } from './log.ts';
import type { AppendAccepted, AppendRejected, HeartbeatReply, Learner, Message } from './messages.ts';
import { Progress } from './progress.ts';
import { majority, reachedByMajority, replicatedIndex } from './quorum.ts';
import type { RaftConfig, ReadAnswer } from './types.ts';

const at = (n: number): LogIndex => n as LogIndex;

interface PendingRead {
  readonly context: number;
  readonly index: LogIndex;
  readonly round: number;
}

export class Leader {
  /** The term's first entry. */
  readonly noop: LogIndex;
  readonly #config: RaftConfig;
  readonly #term: number;
  readonly #log: RaftLog;
  readonly #send: (to: NodeId, message: Message) => void;
  readonly #followers = new Map<NodeId, Progress>();
  /** Oldest first; rounds only rise. */
  #reads: PendingRead[] = [];
  #round = 0;
  #transferTo: NodeId | null = null;
  #transferSent = false;

  constructor(config: RaftConfig, term: number, log: RaftLog, send: (to: NodeId, message: Message) => void) {
    this.#config = config;
    this.#term = term;
    this.#log = log;
    this.#send = send;
    for (const voter of config.voters) {
      if (voter === config.id) continue;
      this.#followers.set(voter, new Progress(at(log.lastIndex + 1), config.maxInflightBatches));
    }
    this.noop = log.append(term, new Uint8Array(0)).index;
  }

  get transferring(): boolean {
    return this.#transferTo !== null;
  }

  get pendingReads(): number {
    return this.#reads.length;
  }

  progress(of: NodeId): Progress | undefined {
    return this.#followers.get(of);
  }

  accepted(from: NodeId, reply: AppendAccepted): void {
    const progress = this.#followers.get(from);
    if (progress === undefined) return;
    heardAsVoter(progress);
    progress.accepted(reply.match);
    if (reply.match > progress.counted) progress.counted = reply.match;
  }

  rejected(from: NodeId, reply: AppendRejected): void {
    const progress = this.#followers.get(from);
    if (progress === undefined) return;
    heardAsVoter(progress);
    // The follower has hintTerm at hintIndex; positions where this log has a higher term can't match it.
    const hint = this.#log.lastNotAfter(reply.hintIndex, reply.hintTerm);
    progress.rejected(reply.prevIndex, hint.index);
  }

  heartbeatAnswered(from: NodeId, reply: HeartbeatReply): void {
    const progress = this.#followers.get(from);
    if (progress === undefined) return;
    heardAsVoter(progress);
    progress.heard(reply.round);
  }

  /**
   * A voter that does not count: sent what it lacks, and counted for nothing. Commits go by `counted` and reads by `round`, and neither is
   * touched here. What another memory of it acknowledged may be gone, so nothing that was known of it is relied upon.
   */
  learned(from: NodeId, { memory, reply }: Learner): void {
    const progress = this.#followers.get(from);
    if (progress === undefined) return;
    if (progress.learner !== memory) progress.restart(at(this.#log.lastIndex + 1));
    progress.learner = memory;
    progress.silence = 0;
    switch (reply.type) {
      case 'appendAccepted':
        progress.accepted(reply.match);
        return;
      case 'appendRejected':
        progress.restart(at(this.#log.lastNotAfter(reply.hintIndex, reply.hintTerm).index + 1));
        return;
      case 'heartbeatReply':
        progress.heard(progress.round);
        // It takes no heartbeat's word for what is committed.
        progress.toldCommit = at(0);
        return;
    }
  }

  tick(): void {
    for (const progress of this.#followers.values()) progress.tick(this.#config.electionTicks);
  }

  /** Whether a majority was heard from within an election timeout (check quorum, section 6.2). */
  hearsMajority(): boolean {
    const counting = [...this.#followers.values()].filter(({ learner }) => learner === null);
    const heard = 1 + counting.filter(({ silence }) => silence < this.#config.electionTicks).length;
    return heard >= majority(this.#config.voters.length);
  }

  /**
   * The commit index that the acknowledgements allow. Only entries of the own term are committed by counting; earlier
   * ones follow with them (section 3.6.2, figure 3.7). `durable` is how far this node's own log is on disk.
   */
  committable(durable: LogIndex): LogIndex {
    const index = replicatedIndex(this.#config.voters, (voter) => this.#followers.get(voter)?.counted ?? durable);
    return index > this.#log.commit && this.#log.termAt(index) === this.#term ? index : this.#log.commit;
  }

  /** Sends every follower what it may be sent now: entries, or if there are none the commit index it doesn't know. */
  replicate(): void {
    for (const [to, progress] of this.#followers) {
      let sent = false;
      while (!progress.paused && progress.next <= this.#log.lastIndex && this.#append(to, progress, true)) sent = true;
      if (!sent && progress.state === 'replicate') {
        // What it acknowledged before its vote counted is asked for again, as there may be nothing more to come.
        const isBehind = progress.match < this.#log.lastIndex || progress.isUncounted;
        if (progress.check && isBehind) this.#append(to, progress, false);
        else if (progress.toldCommit < Math.min(this.#log.commit, progress.next - 1)) this.#tellCommit(to, progress);
      }
      progress.check = false;
    }
    this.#handOver();
  }

  heartbeat(): void {
    for (const [to, progress] of this.#followers) {
      const commit = at(Math.min(progress.match, this.#log.commit));
      this.#send(to, { type: 'heartbeat', term: this.#term, commit, round: this.#round });
    }
  }

  read(context: number): void {
    this.#round++;
    this.#reads.push({ context, index: this.#log.commit, round: this.#round });
    if (this.#followers.size > 0) this.heartbeat();
  }

  /** The reads for which a majority has confirmed, after they were asked for, that it knows no later leader. */
  takeConfirmedReads(): ReadAnswer[] {
    if (this.#reads.length === 0) return [];
    const rounds = [this.#round, ...[...this.#followers.values()].map((progress) => progress.round)];
    const confirmed = reachedByMajority(rounds);
    let count = this.#reads.findIndex((read) => read.round > confirmed);
    if (count === -1) count = this.#reads.length;
    return this.#reads.splice(0, count).map(({ context, index }) => ({ context, ok: true, index }));
  }

  /** Leadership ends: the reads that will not be answered. */
  abandonReads(): number[] {
    return this.#reads.splice(0).map((read) => read.context);
  }

  transfer(to: NodeId): void {
    // One that does not count can't be elected.
    if (this.#followers.get(to)?.learner !== null) return;
    this.#transferTo = to;
    this.#transferSent = false;
  }

  abortTransfer(): void {
    this.#transferTo = null;
  }

  /** Returns whether something was sent. */
  #append(to: NodeId, progress: Progress, withEntries: boolean): boolean {
    const prevIndex = at(progress.next - 1);
    const prevTerm = this.#log.termAt(prevIndex);
    if (prevTerm === null) return this.#sendSnapshot(to, progress);
    const entries = withEntries ? this.#log.slice(progress.next, this.#log.lastIndex, this.#config.maxBatchBytes) : [];
    const last = at(prevIndex + entries.length);
    const commit = this.#log.commit;
    this.#send(to, { type: 'append', term: this.#term, prevIndex, prevTerm, entries, commit });
    progress.sent(last);
    progress.toldCommit = at(Math.max(progress.toldCommit, Math.min(commit, last)));
    return true;
  }

  #tellCommit(to: NodeId, progress: Progress): void {
    const prevIndex = at(progress.next - 1);
    const prevTerm = this.#log.termAt(prevIndex);
    if (prevTerm === null) return;
    const { commit } = this.#log;
    this.#send(to, { type: 'commit', term: this.#term, prevIndex, prevTerm, commit });
    progress.toldCommit = at(Math.min(commit, prevIndex));
  }

  /** Not to a follower that doesn't answer: it would be sent again and again. */
  #sendSnapshot(to: NodeId, progress: Progress): boolean {
    const snapshot = this.#log.snapshot;
    if (snapshot === null || progress.silence >= this.#config.electionTicks) return false;
    this.#send(to, { type: 'snapshot', term: this.#term, snapshot });
    progress.sentSnapshot(snapshot.index);
    progress.toldCommit = snapshot.index;
    return true;
  }

  /** Once the chosen follower has the whole log it may win an election at once (section 3.10). */
  #handOver(): void {
    if (this.#transferTo === null || this.#transferSent) return;
    if (this.#followers.get(this.#transferTo)?.match !== this.#log.lastIndex) return;
    this.#send(this.#transferTo, { type: 'timeoutNow', term: this.#term });
    this.#transferSent = true;
  }
}

function heardAsVoter(progress: Progress): void {
  progress.silence = 0;
  progress.learner = null;
}
