/**
 * A node's copy of the log and how far it has got: what is committed, durable here, and handed to the layer above. Beside
 * it the hard state that was last given to storage. What a step changed is collected once, at its end.
 */
import type { LogIndex } from '../../runtime/ids.ts';
import { Durability } from './durability.ts';
import { invariant } from './invariant.ts';
import { RaftLog } from './log.ts';
import type { Entry, HardState, Outgoing, PersistBatch, Restored, Snapshot } from './types.ts';

const at = (n: number): LogIndex => n as LogIndex;

export class Replica {
  readonly log: RaftLog;
  readonly #durability: Durability;
  readonly #retainEntries: number;
  #saved: HardState;
  /**
   * Handed to the layer above. Never more than is committed, and never more than is durable here: the layer above makes
   * what it applies durable in PostgreSQL, which must not run ahead of the log that explains it.
   */
  #delivered: LogIndex;
  #compacted: Snapshot | null = null;

  constructor(restored: Restored, retainEntries: number) {
    this.log = new RaftLog(restored.snapshot, restored.entries);
    invariant(restored.hardState.term >= this.log.lastTerm, 'the restored term is below that of the log');
    this.#durability = new Durability(restored.hardState, this.log.lastIndex);
    this.#retainEntries = retainEntries;
    this.#saved = restored.hardState;
    this.#delivered = this.log.commit;
  }

  get delivered(): LogIndex {
    return this.#delivered;
  }

  /** All of the present log up to here is durable on this node. */
  get durable(): LogIndex {
    return this.#durability.index;
  }

  get durableHardState(): HardState {
    return this.#durability.hardState;
  }

  /** Storage has kept everything up to this request. Returns the messages that may go now. */
  confirm(seq: number): Outgoing[] {
    return this.#durability.confirm(seq);
  }

  /** Not an error if a leader's snapshot has overtaken the one offered. */
  compact(index: LogIndex, state: Uint8Array): void {
    invariant(index <= this.#delivered, () => `compacting to ${index}, delivered is ${this.#delivered}`);
    if (index <= (this.log.snapshot?.index ?? 0)) return;
    this.#compacted = this.log.compact(index, state, this.#retainEntries);
  }

  takeCompacted(): Snapshot | null {
    const taken = this.#compacted;
    this.#compacted = null;
    return taken;
  }

  /** What storage must keep after this step, if anything. */
  takeUnsaved(hardState: HardState): PersistBatch | null {
    const { truncateFrom, snapshot, entries } = this.log.takeUnsaved();
    const changed = hardState.term !== this.#saved.term || hardState.votedFor !== this.#saved.votedFor;
    if (!changed && truncateFrom === null && snapshot === null && entries.length === 0) return null;
    if (truncateFrom !== null) this.#durability.truncate(truncateFrom);
    if (snapshot !== null) this.#durability.truncate(snapshot.index);
    const seq = this.#durability.issue(hardState, this.log.lastIndex);
    this.#saved = hardState;
    return { seq, hardState: changed ? hardState : null, truncateFrom, snapshot, entries };
  }

  /** Returns those of the messages that need not wait for storage. Comes after `takeUnsaved` of the same step. */
  promise(outgoing: readonly Outgoing[]): readonly Outgoing[] {
    return this.#durability.promise(outgoing);
  }

  /** Only a leader's snapshot can be ahead of what was delivered. */
  takeSnapshot(): Snapshot | null {
    const { snapshot } = this.log;
    if (snapshot === null || snapshot.index <= this.#delivered || snapshot.index > this.durable) return null;
    this.#delivered = snapshot.index;
    return snapshot;
  }

  takeDeliverable(): Entry[] {
    const upTo = at(Math.min(this.log.commit, this.durable));
    if (upTo <= this.#delivered || (this.log.snapshot?.index ?? 0) > this.#delivered) return [];
    const entries = this.log.slice(at(this.#delivered + 1), upTo);
    this.#delivered = upTo;
    return entries;
  }
}
