/** Counter steps within one millisecond; readings stay exact integers (below 2^53) until the year 2248. */
export const STEPS = 1024;

/**
 * A hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014): never going back, and never behind a reading that was
 * received. So an earlier prepare that was heard of stays the earlier one however wrong a wall clock is.
 *
 * Readings go on from the highest one known at the pace of the monotonic clock. In the paper they stand still until the wall clock has
 * caught up: where one node's clock is hours ahead, the others' readings would then lag behind its own by the age of the last
 * message, and as the older reading wins, that node would lose most conflicts. Here all nodes keep the time of the one
 * that is furthest ahead, to within the time that a message takes.
 */
export class HybridClock {
  readonly #wall: () => number;
  readonly #monotonic: () => number;
  #last = 0;
  /** The highest reading known, less the monotonic one at that time. */
  #ahead = -Infinity;

  /** Both in milliseconds. */
  constructor(wall: () => number, monotonic: () => number) {
    this.#wall = wall;
    this.#monotonic = monotonic;
  }

  /** A reading greater than every reading given or received before. */
  next(): number {
    const elapsed = this.#elapsed();
    this.#ahead = Math.max(this.#ahead, Math.floor(this.#wall()) * STEPS - elapsed);
    // Steps taken within one moment are not added to #ahead, or the nodes would drive each other on.
    this.#last = Math.max(this.#last + 1, Math.floor(elapsed + this.#ahead));
    return this.#last;
  }

  get last(): number {
    return this.#last;
  }

  receive(reading: number): void {
    this.#last = Math.max(this.#last, reading);
    this.#ahead = Math.max(this.#ahead, reading - this.#elapsed());
  }

  /** Not rounded to milliseconds: nodes that hear of each other often would add up what is rounded. */
  #elapsed(): number {
    return this.#monotonic() * STEPS;
  }
}
