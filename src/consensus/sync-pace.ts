/** Milliseconds that the event loop may stand still for one sync, on average and at once. */
const MEAN_LIMIT = 0.5;
const SINGLE_LIMIT = 5;
/** Syncs that go through the thread pool before it is tried again in place. */
const DETOUR = 1000;
/** Weight of the newest sync in the mean. */
const WEIGHT = 0.1;

/**
 * Where to run the next fdatasync. On a disk with a cache that survives a power failure it takes about 0.1 ms, and the way
 * through the thread pool several times as long; on another disk it takes milliseconds, for which the event loop must not stand still.
 */
export class SyncPace {
  #mean = 0;
  #detour = 0;

  /** Whether to run the next one on the event loop; say then how long it `took`. */
  inPlace(): boolean {
    if (this.#detour === 0) return true;
    this.#detour -= 1;
    return false;
  }

  /** Milliseconds of one sync in place. */
  took(milliseconds: number): void {
    this.#mean += (milliseconds - this.#mean) * WEIGHT;
    if (milliseconds <= SINGLE_LIMIT && this.#mean <= MEAN_LIMIT) return;
    this.#detour = DETOUR;
    this.#mean = 0;
  }
}
