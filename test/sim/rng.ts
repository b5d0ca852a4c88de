/** The only source of chance in a run (mulberry32): what it draws follows from the seed. */
export class Rng {
  #state: number;

  constructor(seed: number) {
    this.#state = (Math.imul(seed, 0x9e3779b1) ^ 0x5bd1e995) >>> 0;
  }

  /** From [0, 1). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let t = this.#state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  }

  /** A whole number from [0, limit). */
  below(limit: number): number {
    return Math.floor(this.next() * limit);
  }

  /** A number from [low, high). */
  between(low: number, high: number): number {
    return low + this.next() * (high - low);
  }

  /** Most often short, sometimes very long: exponential, cut at ten times the mean. */
  wait(mean: number): number {
    return Math.min(-Math.log(1 - this.next()) * mean, mean * 10);
  }

  chance(probability: number): boolean {
    return this.next() < probability;
  }

  pick<T>(from: readonly T[]): T {
    return from[this.below(from.length)];
  }

  shuffle<T>(items: T[]): T[] {
    for (let i = items.length - 1; i > 0; i--) {
      const j = this.below(i + 1);
      [items[i], items[j]] = [items[j], items[i]];
    }
    return items;
  }
}
