/**
 * What a leader knows of one follower (the idea is the tracker of etcd-io/raft).
 *
 * - probe: the leader guesses where the logs part. One append at a time, the next after an answer or a heartbeat.
 * - replicate: the logs are known to agree up to `match`; appends are pipelined and `next` runs ahead optimistically.
 * - snapshot: the follower needs entries that are compacted away; nothing is sent until it has the snapshot.
 */
import type { LogIndex } from '../../runtime/ids.ts';
import { invariant } from './invariant.ts';

export type ProgressState = 'probe' | 'replicate' | 'snapshot';

const at = (n: number): LogIndex => n as LogIndex;

export class Progress {
  #state: ProgressState = 'probe';
  /** Durable on the follower and equal to the leader's log. Only rises, but for `restart`; always less than `next`. */
  #match = at(0);
  /** The first entry to send next. */
  #next: LogIndex;
  /** In probe: an append is under way. */
  #probing = false;
  /** In replicate: the last index of each append under way, oldest first. At most `#maxInflight`. */
  #inflight: LogIndex[] = [];
  /** In snapshot: its index, and how many ticks ago it was sent. */
  #pendingSnapshot = at(0);
  #snapshotAge = 0;
  readonly #maxInflight: number;

  /** Ticks since it was heard from, or since the leader's election. */
  silence = 0;
  /** The highest commit index the follower was told, if nothing got lost. */
  toldCommit = at(0);
  /** Send an append even if it carries nothing, to learn whether an earlier one got lost. */
  check = false;
  /** The highest read round it has answered. */
  round = 0;
  /** The last index that it has acknowledged as a voter that counts; what commits are counted by. Only rises. */
  counted = at(0);
  /** While it does not count, the name of its memory; see Learner in messages.ts. */
  learner: string | null = null;

  constructor(next: LogIndex, maxInflight: number) {
    this.#next = next;
    this.#maxInflight = maxInflight;
  }

  get state(): ProgressState {
    return this.#state;
  }

  get match(): LogIndex {
    return this.#match;
  }

  get next(): LogIndex {
    return this.#next;
  }

  get inflight(): number {
    return this.#inflight.length;
  }

  /** Its vote counts, and it has acknowledged more than it is counted for. */
  get isUncounted(): boolean {
    return this.learner === null && this.counted < this.#match;
  }

  /** No append that carries entries may be sent now. */
  get paused(): boolean {
    switch (this.#state) {
      case 'probe':
        return this.#probing;
      case 'replicate':
        return this.#inflight.length >= this.#maxInflight;
      case 'snapshot':
        return true;
    }
  }

  /** An append of the entries from `next` to `last` goes out; `last` is next - 1 if it is empty. */
  sent(last: LogIndex): void {
    if (this.#state === 'probe') {
      this.#probing = true;
      return;
    }
    invariant(this.#state === 'replicate', 'append sent to a follower that waits for a snapshot');
    if (last < this.#next) return;
    this.#inflight.push(last);
    this.#next = at(last + 1);
  }

  sentSnapshot(index: LogIndex): void {
    this.#become('snapshot');
    this.#pendingSnapshot = index;
    this.#next = at(index + 1);
  }

  /** Returns whether the answer said anything new. */
  accepted(match: LogIndex): boolean {
    const news = match > this.#match || (this.#state === 'probe' && match === this.#match);
    if (match > this.#match) this.#match = match;
    if (!news) return false;
    if (this.#state === 'replicate') {
      const rest = this.#inflight.findIndex((last) => last > match);
      this.#inflight = rest === -1 ? [] : this.#inflight.slice(rest);
      if (this.#next <= match) this.#next = at(match + 1);
    } else if (this.#state === 'probe' || match >= this.#pendingSnapshot) {
      this.#become('replicate');
      this.#next = at(match + 1);
    }
    return true;
  }

  /** `hint` is the last index that may match. Returns false for an answer to an append that no longer matters. */
  rejected(prevIndex: LogIndex, hint: LogIndex): boolean {
    if (this.#state === 'snapshot' || prevIndex <= this.#match) return false;
    if (this.#state === 'replicate') {
      this.#become('probe');
      this.#next = at(this.#match + 1);
      return true;
    }
    if (prevIndex !== this.#next - 1) return false;
    this.#next = at(Math.max(Math.min(prevIndex, hint + 1), this.#match + 1));
    this.#probing = false;
    return true;
  }

  /** What it was known to have it has forgotten, or has not: it is asked anew. */
  restart(next: LogIndex): void {
    this.#become('probe');
    this.#match = at(0);
    this.#next = next;
    this.toldCommit = at(0);
  }

  /** A heartbeat was answered: what was under way in probe has arrived or is lost, in replicate it is asked for. */
  heard(round: number): void {
    this.#probing = false;
    this.check = true;
    if (round > this.round) this.round = round;
  }

  /** A snapshot that wasn't acknowledged for that long is taken as lost, and the follower probed. */
  tick(limit: number): void {
    this.silence++;
    if (this.#state !== 'snapshot' || ++this.#snapshotAge < limit) return;
    this.#become('probe');
    this.#next = at(this.#match + 1);
  }

  #become(state: ProgressState): void {
    this.#state = state;
    this.#probing = false;
    this.#inflight = [];
    this.#snapshotAge = 0;
  }
}
