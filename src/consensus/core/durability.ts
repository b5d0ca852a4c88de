/**
 * What of this node's state is on disk. Storage lags behind the core by any number of requests, so the node's outputs
 * fall into two kinds: those that are true whatever the disk holds, and those that promise something about it. The
 * second kind is held here until every request issued before it is confirmed. A crash then returns the node to a state
 * from which all that it ever said could have been said.
 */
import type { LogIndex } from '../../runtime/ids.ts';
import { invariant } from './invariant.ts';
import type { HardState, Outgoing } from './types.ts';

interface Request {
  readonly seq: number;
  readonly hardState: HardState;
  /** The log's end when the request was made; lowered when a later request truncates the log. */
  lastIndex: LogIndex;
}

export class Durability {
  #issued = 0;
  #confirmed = 0;
  #requests: Request[] = [];
  #held: { readonly seq: number; readonly outgoing: Outgoing }[] = [];
  #index: LogIndex;
  #hardState: HardState;

  constructor(hardState: HardState, lastIndex: LogIndex) {
    this.#hardState = hardState;
    this.#index = lastIndex;
  }

  /** All of the present log up to here is durable. Falls when the log is truncated. */
  get index(): LogIndex {
    return this.#index;
  }

  get hardState(): HardState {
    return this.#hardState;
  }

  /** Must come before `issue` of the request that truncates. */
  truncate(from: LogIndex): void {
    const end = (from - 1) as LogIndex;
    if (this.#index > end) this.#index = end;
    for (const request of this.#requests) if (request.lastIndex > end) request.lastIndex = end;
  }

  issue(hardState: HardState, lastIndex: LogIndex): number {
    this.#issued++;
    this.#requests.push({ seq: this.#issued, hardState, lastIndex });
    return this.#issued;
  }

  /** Keeps a promise back until all requests so far are durable. Returns what may go at once. */
  promise(outgoing: readonly Outgoing[]): readonly Outgoing[] {
    if (this.#confirmed === this.#issued) return outgoing;
    for (const one of outgoing) this.#held.push({ seq: this.#issued, outgoing: one });
    return [];
  }

  /** Returns the promises that are now true, in the order they were made. */
  confirm(seq: number): Outgoing[] {
    invariant(seq > this.#confirmed && seq <= this.#issued, () => `request ${seq} confirmed, ${this.#issued} issued`);
    this.#confirmed = seq;
    while (this.#requests.length > 0 && this.#requests[0].seq <= seq) {
      const request = this.#requests.shift()!;
      this.#hardState = request.hardState;
      if (request.lastIndex > this.#index) this.#index = request.lastIndex;
    }
    let count = this.#held.findIndex((held) => held.seq > seq);
    if (count === -1) count = this.#held.length;
    return withoutSuperseded(this.#held.splice(0, count).map((held) => held.outgoing));
  }
}

/** Of the acknowledgements to one leader that become true together only the last says anything new. */
function withoutSuperseded(outgoing: Outgoing[]): Outgoing[] {
  return outgoing.filter((one, i) => {
    const next = outgoing.at(i + 1);
    return !(
      one.message.type === 'appendAccepted' &&
      next?.message.type === 'appendAccepted' &&
      next.to === one.to &&
      next.message.term === one.message.term &&
      next.message.match >= one.message.match
    );
  });
}
