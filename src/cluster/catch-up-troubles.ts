import type { NodeId } from '../runtime/ids.ts';

/** What this node needs of some database is in nobody's history any more, as far as they have said. */
export interface Hopeless {
  /** Those that said that their history begins later. */
  readonly gone: ReadonlySet<NodeId>;
  /** Monotonic milliseconds. */
  readonly since: number;
}

interface Trouble {
  readonly problem: string;
  readonly hopeless: Hopeless | undefined;
}

/**
 * Why a node gets on no further with catching up, by what it needs: a database's history may be gone while that of another is read all the time, and how long it has been gone
 * counts.
 */
export class CatchUpTroubles {
  readonly #troubles = new Map<string, Trouble>();
  readonly #now: () => number;
  readonly #changed: (isHopeless: boolean) => void;

  /** `now`: monotonic milliseconds. `changed` is called when `hopeless` comes to be or is over. */
  constructor(now: () => number, changed: (isHopeless: boolean) => void) {
    this.#now = now;
    this.#changed = changed;
  }

  get problem(): string | undefined {
    return this.#troubles.values().next().value?.problem;
  }

  /** What has been so for longest. */
  get hopeless(): Hopeless | undefined {
    const all = [...this.#troubles.values()].flatMap(({ hopeless }) => (hopeless === undefined ? [] : [hopeless]));
    return all.sort((a, b) => a.since - b.since).at(0);
  }

  /** `gone` is empty where donors could not be asked. True if this problem is news. */
  failed(what: string, problem: string, gone: ReadonlySet<NodeId>): boolean {
    const known = this.#troubles.get(what);
    const hopeless = gone.size > 0 ? { gone, since: known?.hopeless?.since ?? this.#now() } : known?.hopeless;
    this.#change(() => this.#troubles.set(what, { problem, hopeless }));
    return known?.problem !== problem;
  }

  /** A donor has helped, or nothing of it is needed any more. */
  over(what: string): void {
    if (this.#troubles.has(what)) this.#change(() => this.#troubles.delete(what));
  }

  clear(): void {
    this.#change(() => this.#troubles.clear());
  }

  #change(change: () => void): void {
    const before = this.hopeless !== undefined;
    change();
    const after = this.hopeless !== undefined;
    if (before !== after) this.#changed(after);
  }
}
