import { Guard, type GuardSnapshot } from '../commit/core/guard.ts';
import { decodeCommand, decodeSnapshot, encodeSnapshot } from '../commit/log-codec.ts';
import type { Entry, Snapshot } from '../consensus/core/types.ts';
import type { LogIndex } from '../runtime/ids.ts';

interface CompactibleLog {
  entries(from: LogIndex, to: LogIndex): readonly Entry[];
  compact(index: LogIndex, state: Uint8Array): void;
}

/**
 * Up to where a witness needs its copy of the log no longer. What every node has committed, nobody asks for; and where one stays away, the log must not grow until it is
 * back: it is told the changes themselves by another node in any case, and which those were as well.
 */
export function dispensable(committed: readonly LogIndex[], delivered: LogIndex, retainEntries: number): LogIndex {
  const everywhere = Math.min(...committed);
  // Nothing above what was delivered here, however far the others are.
  return Math.min(Math.max(everywhere, delivered - retainEntries), delivered) as LogIndex;
}

/**
 * Shortens this node's copy of the decision log. An entry may go once this node's PostgreSQL has committed it: after a
 * restart the log then still reaches back to where PostgreSQL stands. A guard of its own follows at that distance, as the
 * snapshot must say what the log says up to exactly that entry.
 */
export class LogCompaction {
  #guard: Guard;
  readonly #log: CompactibleLog;
  readonly #step: number;

  /** `step`: entries that gather before they are compacted. */
  constructor(snapshot: GuardSnapshot | undefined, log: CompactibleLog, step: number) {
    this.#guard = snapshot === undefined ? new Guard() : Guard.restore(snapshot);
    this.#log = log;
    this.#step = step;
  }

  /** The leader's snapshot has replaced the log up to its index. */
  installed(snapshot: Snapshot): void {
    this.#guard = Guard.restore(decodeSnapshot(snapshot.state));
  }

  /** `committed`: how far PostgreSQL has committed. */
  run(committed: LogIndex): void {
    if (committed - this.#guard.index < this.#step) return;
    for (const { index, payload } of this.#log.entries((this.#guard.index + 1) as LogIndex, committed)) {
      this.#guard.apply(index, decodeCommand(payload));
    }
    this.#log.compact(committed, encodeSnapshot(this.#guard.snapshot()));
  }
}
