import { EMPTY, type PersistBatch, type Restored, type Snapshot } from '../../src/consensus/core/types.ts';
import type { Loop, Process } from './loop.ts';
import type { Rng } from './rng.ts';

type Request = PersistBatch | { readonly seq: null; readonly compact: Snapshot };

/**
 * The disk below one node's Raft log: requests become durable one after the other, each after a while. A crash keeps a
 * prefix of what was under way, cut anywhere between two records.
 */
export class RaftStorage {
  readonly #loop: Loop;
  readonly #rng: Rng;
  readonly #process: Process;
  readonly #latency: () => number;
  #durable: Restored = EMPTY;
  readonly #former: Restored[] = [];
  #waiting: Request[] = [];
  #busy = false;
  onPersisted: (seq: number) => void = () => undefined;

  constructor(loop: Loop, rng: Rng, process: Process, latency: () => number) {
    this.#loop = loop;
    this.#rng = rng;
    this.#process = process;
    this.#latency = latency;
  }

  get durable(): Restored {
    return this.#durable;
  }

  /** The disk is emptied, or replaced by another one. */
  empty(): void {
    this.#former.push(this.#durable);
    this.#durable = EMPTY;
  }

  /** Whether it is kept here, or was before the disk was emptied: what was acknowledged then may have been counted later. */
  had(index: number, term: number): boolean {
    return [this.#durable, ...this.#former].some((disk) => this.#has(disk, index, term));
  }

  #has({ snapshot, entries }: Restored, index: number, term: number): boolean {
    const base = snapshot?.index ?? 0;
    return base >= index || entries.at(index - base - 1)?.term === term;
  }

  write(request: Request): void {
    this.#waiting.push(request);
    this.#work();
  }

  crash(): void {
    for (let keep = this.#rng.below(this.#waiting.length + 1); keep > 0; keep--)
      this.#apply(this.#waiting.shift()!, Infinity);
    const torn = this.#waiting.at(0);
    if (torn !== undefined) this.#apply(torn, this.#rng.below(6));
    this.#waiting = [];
    this.#busy = false;
  }

  #work(): void {
    if (this.#busy || this.#waiting.length === 0) return;
    this.#busy = true;
    // One sync covers all that was written until it began.
    const count = this.#waiting.length;
    this.#loop.in(this.#process, this.#latency(), () => {
      this.#busy = false;
      let last: number | null = null;
      for (const request of this.#waiting.splice(0, count)) {
        this.#apply(request, Infinity);
        last = request.seq ?? last;
      }
      this.#work();
      if (last !== null) this.onPersisted(last);
    });
  }

  /** The first `records` parts of a request, in the order that PersistBatch promises. */
  #apply(request: Request, records: number): void {
    const durable = this.#durable;
    if (request.seq === null) {
      const { compact } = request;
      if (records === 0 || compact.index <= (durable.snapshot?.index ?? 0)) return;
      const entries = durable.entries.filter((one) => one.index > compact.index);
      this.#durable = { ...durable, snapshot: compact, entries };
      return;
    }
    let { hardState, snapshot, entries } = durable;
    let left = records;
    if (request.hardState !== null && left-- > 0) hardState = request.hardState;
    const { truncateFrom } = request;
    if (truncateFrom !== null && left-- > 0) entries = entries.filter((one) => one.index < truncateFrom);
    if (request.snapshot !== null && left-- > 0) {
      snapshot = request.snapshot;
      entries = [];
    }
    if (left > 0 && request.entries.length > 0) entries = [...entries, ...request.entries.slice(0, left)];
    this.#durable = { hardState, snapshot, entries };
  }
}
