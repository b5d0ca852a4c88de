import type { History, Outcome, Step, Transaction } from '../../consistency/checker/history.ts';
import type { Rng } from '../../sim/rng.ts';

export type ToyLevel = 'serial' | 'snapshot' | 'read-committed';
export type Bug =
  | 'dirty-reads'
  | 'no-row-locks'
  | 'no-first-committer'
  | 'lost-writes'
  | 'old-snapshots'
  | 'torn-snapshots'
  | 'replayed-twice';

interface Entry {
  readonly value: number;
  readonly owner: number;
  /** When it was committed; Infinity while it is not. */
  committed: number;
}

interface Open {
  readonly id: number;
  readonly process: number;
  readonly begun: number;
  readonly snapshot: number;
  readonly steps: Step[];
  readonly length: number;
  readonly writes: { readonly key: string; readonly entry: Entry }[];
}

const KEYS = ['a', 'b', 'c'];

/** A store of lists in memory, correct at its level but for the bug planted in it. */
export class ToyStore {
  readonly #rng: Rng;
  readonly #level: ToyLevel;
  readonly #bug: Bug | undefined;
  readonly #lists = new Map<string, Entry[]>(KEYS.map((key) => [key, []]));
  readonly #open = new Map<number, Open>();
  readonly #done: Transaction[] = [];
  readonly #outcomes = new Map<number, 'committed' | 'aborted'>();
  #now = 0;
  #ids = 0;
  #values = 0;

  constructor(rng: Rng, level: ToyLevel, bug?: Bug) {
    this.#rng = rng;
    this.#level = level;
    this.#bug = bug;
  }

  run(transactions: number, processes = 4): History {
    while (this.#done.length < transactions) {
      // One at a time is what makes it serial.
      const [running] = this.#open.keys();
      const process = this.#level === 'serial' && this.#open.size > 0 ? running : this.#rng.below(processes);
      this.#advance(process);
    }
    for (const open of [...this.#open.values()]) this.#end(open, false);
    const final = new Map(KEYS.map((key) => [key, this.#visible(key, this.#now, -1)]));
    return { transactions: this.#done, final };
  }

  /** What became of a transaction, whatever its client was told. */
  outcomeOf(id: number): 'committed' | 'aborted' {
    return this.#outcomes.get(id)!;
  }

  #advance(process: number): void {
    this.#now += 1;
    const open = this.#open.get(process);
    if (open === undefined) this.#begin(process);
    else if (open.steps.length < open.length) this.#step(open);
    else this.#end(open, !this.#rng.chance(0.1));
  }

  #begin(process: number): void {
    const old = this.#bug === 'old-snapshots' ? this.#rng.below(60) : 0;
    const length = 1 + this.#rng.below(4);
    const open = {
      id: ++this.#ids,
      process,
      begun: this.#now,
      snapshot: this.#now - old,
      steps: [],
      length,
      writes: [],
    };
    this.#open.set(process, open);
  }

  #step(open: Open): void {
    const key = this.#rng.pick(KEYS);
    if (this.#rng.chance(0.5)) {
      const fresh = this.#level === 'read-committed' || this.#bug === 'torn-snapshots';
      const values = this.#visible(key, fresh ? this.#now : open.snapshot, open.id);
      open.steps.push({ kind: 'read', key, values });
      return;
    }
    const list = this.#lists.get(key)!;
    const locked = list.some((entry) => entry.committed === Infinity && entry.owner !== open.id);
    if (locked && this.#bug !== 'no-row-locks' && this.#bug !== 'no-first-committer') return this.#end(open, false);
    const changed = list.some((entry) => entry.committed > open.snapshot && entry.committed !== Infinity);
    const first = open.writes.every((write) => write.key !== key);
    if (this.#level === 'snapshot' && this.#bug !== 'no-first-committer' && first && changed)
      return this.#end(open, false);
    const entry: Entry = { value: ++this.#values, owner: open.id, committed: Infinity };
    list.push(entry);
    open.writes.push({ key, entry });
    open.steps.push({ kind: 'append', key, value: entry.value });
  }

  #visible(key: string, at: number, reader: number): number[] {
    return this.#lists
      .get(key)!
      .filter(({ owner, committed }) => committed <= at || owner === reader || this.#bug === 'dirty-reads')
      .map(({ value }) => value);
  }

  #end(open: Open, commit: boolean): void {
    this.#now += 1;
    this.#open.delete(open.process);
    for (const { key, entry } of open.writes) {
      const list = this.#lists.get(key)!;
      if (!commit || (this.#bug === 'lost-writes' && this.#rng.chance(0.1))) list.splice(list.indexOf(entry), 1);
      else {
        entry.committed = this.#now;
        if (this.#bug === 'replayed-twice' && this.#rng.chance(0.1)) list.push({ ...entry });
      }
    }
    const became = commit ? 'committed' : 'aborted';
    this.#outcomes.set(open.id, became);
    const outcome: Outcome = this.#rng.chance(0.05) ? 'unknown' : became;
    const { id, process, steps, begun } = open;
    this.#done.push({ id, process, steps, begun, ended: this.#now + 1, outcome });
    this.#now += 1;
  }
}
