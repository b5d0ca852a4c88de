/** Counter steps within one millisecond; readings stay exact integers (below 2^53) until the year 2248. */
export const STEPS = 1024;

/**
 * A hybrid logical clock (Kulkarni et al., "Logical Physical Clocks", 2014): as near to the wall clock as it can be, never
 * going back, and never behind a reading that was received. So an earlier prepare that was heard of stays the earlier one
 * however wrong a wall clock is.
 */
export class HybridClock {
  readonly #wallMilliseconds: () => number;
  #last = 0;

  constructor(wallMilliseconds: () => number) {
    this.#wallMilliseconds = wallMilliseconds;
  }

  /** A reading greater than every reading given or received before. */
  next(): number {
    this.#last = Math.max(this.#last + 1, Math.floor(this.#wallMilliseconds()) * STEPS);
    return this.#last;
  }

  get last(): number {
    return this.#last;
  }

  receive(reading: number): void {
    if (reading > this.#last) this.#last = reading;
  }
}
