/** How a node gets on with catching up, as status, log and metrics show it. */
export interface Progress {
  /** Entries of the log that this node has yet to commit, and those committed since it began to catch up. */
  readonly remaining: number;
  readonly done: number;
  /** Bytes of changes read from donors since then. */
  readonly bytes: number;
  readonly entriesPerSecond: number;
  /** Until it has caught up with what is decided by now, at the rate by which the distance shrinks; null while that is unknown. */
  readonly secondsLeft: number | null;
}

interface Sample {
  readonly at: number;
  readonly committed: number;
  readonly remaining: number;
}

export interface Position {
  /** Monotonic milliseconds. */
  readonly now: number;
  readonly isMember: boolean;
  /** Log indexes: the last that is decided, and the last that is committed here. */
  readonly decided: number;
  readonly committed: number;
  /** Bytes read from donors since the program started. */
  readonly bytes: number;
}

/** Milliseconds over which rates are taken. */
const WINDOW = 10_000;

/** Watches a node from its return until it is a member again. */
export class CatchUpProgress {
  #begun: Position | undefined;
  #samples: Sample[] = [];
  #latest: Position | undefined;

  /** To be called at regular intervals. True when it has just come to its end. */
  sample(position: Position): boolean {
    this.#latest = position;
    const { now, isMember, decided, committed } = position;
    const wasActive = this.#begun !== undefined;
    if (isMember || committed >= decided) {
      this.#begun = undefined;
      this.#samples = [];
      return wasActive;
    }
    this.#begun ??= position;
    this.#samples = this.#samples.filter(({ at }) => at >= now - WINDOW);
    this.#samples.push({ at: now, committed, remaining: decided - committed });
    return false;
  }

  /** Undefined when there is nothing to catch up with. */
  get progress(): Progress | undefined {
    const [begun, latest] = [this.#begun, this.#latest];
    const [first, last] = [this.#samples.at(0), this.#samples.at(-1)];
    if (begun === undefined || latest === undefined || first === undefined || last === undefined) return undefined;
    const seconds = (last.at - first.at) / 1000;
    const shrinking = seconds === 0 ? 0 : (first.remaining - last.remaining) / seconds;
    return {
      remaining: last.remaining,
      done: latest.committed - begun.committed,
      bytes: latest.bytes - begun.bytes,
      entriesPerSecond: seconds === 0 ? 0 : (last.committed - first.committed) / seconds,
      secondsLeft: shrinking > 0 ? last.remaining / shrinking : null,
    };
  }
}
