/**
 * Finds anomalies in histories of lists that are appended to and read, after Kingsbury and Alvaro, "Elle: Inferring
 * Isolation Anomalies from Experimental Observations". As every list read tells the order of all appends before it, what
 * depended on what follows from what clients saw, and nothing has to be guessed.
 */
import { findCycles, type Cycle } from './cycles.ts';
import { Graph } from './graph.ts';
import type { History, Transaction } from './history.ts';

export type AnomalyKind =
  | Cycle['kind']
  /** A committed transaction read what an aborted one wrote. */
  | 'G1a'
  /** It read what its writer wrote over later in the same transaction. */
  | 'G1b'
  /** Two committed transactions read the same version and both wrote the next. */
  | 'lost-update'
  /** An acknowledged append is not there at the end. */
  | 'lost-append'
  /** A transaction did not read its own append. */
  | 'internal'
  | 'duplicate-elements'
  | 'incompatible-order'
  /** A value that nobody wrote. */
  | 'garbage'
  /** A read missed an append that was acknowledged before its transaction began. */
  | 'stale-read';

export interface Anomaly {
  readonly kind: AnomalyKind;
  readonly detail: string;
}

export interface CheckOptions {
  /** Whether a session's transactions must come in the order in which it ran them. */
  readonly process?: boolean;
  /** Whether what ended before another began must come first; always so before one that is strict. */
  readonly realtime?: boolean;
}

export function check(history: History, options: CheckOptions = {}): Anomaly[] {
  return new Check(history, options).run();
}

class Check {
  readonly #history: History;
  readonly #options: CheckOptions;
  readonly #writers = new Map<string, Transaction>();
  readonly #anomalies: Anomaly[] = [];
  readonly #graph = new Graph();
  /** Those that are committed for sure: acknowledged, or unknown and seen by another. */
  #committed: Transaction[] = [];

  constructor(history: History, options: CheckOptions) {
    this.#history = history;
    this.#options = options;
  }

  run(): Anomaly[] {
    for (const one of this.#history.transactions)
      for (const step of one.steps) if (step.kind === 'append') this.#writers.set(name(step.key, step.value), one);
    this.#committed = this.#findCommitted();
    this.#checkReads();
    const orders = this.#versionOrders();
    for (const [key, order] of orders) this.#addDependencies(key, order);
    this.#checkLost(orders);
    if (this.#options.process) this.#addProcessOrder();
    const realtime = this.#committed.some((one) => this.#isRealtime(one));
    if (realtime) this.#addRealtimeOrder();
    const extra = [
      ...(this.#options.process ? (['-process'] as const) : []),
      ...(realtime ? (['-realtime'] as const) : []),
    ];
    for (const { kind, edges } of findCycles(this.#graph, extra))
      this.#report(kind, `T${edges[0].from}${edges.map((edge) => ` -${edge.kind}-> T${edge.to}`).join('')}`);
    return this.#anomalies;
  }

  #report(kind: AnomalyKind, detail: string): void {
    this.#anomalies.push({ kind, detail });
  }

  /** To a fixed point: what a transaction of unknown outcome read counts only once it is known to be committed. */
  #findCommitted(): Transaction[] {
    const committed = new Set(this.#history.transactions.filter(({ outcome }) => outcome === 'committed'));
    const see = (key: string, values: readonly number[]): void => {
      for (const value of values) {
        const writer = this.#writers.get(name(key, value));
        // A set that is walked through also yields what is added meanwhile.
        if (writer?.outcome === 'unknown') committed.add(writer);
      }
    };
    for (const [key, values] of this.#history.final ?? []) see(key, values);
    for (const one of committed) for (const step of one.steps) if (step.kind === 'read') see(step.key, step.values);
    return [...committed];
  }

  #checkReads(): void {
    for (const [key, values] of this.#history.final ?? []) this.#checkValues('the final read', key, values);
    for (const one of this.#committed) {
      const own = new Map<string, number[]>();
      for (const step of one.steps) {
        const appended = own.get(step.key) ?? [];
        if (step.kind === 'append') {
          own.set(step.key, [...appended, step.value]);
          continue;
        }
        this.#checkValues(`T${one.id}`, step.key, step.values);
        const end = step.values.slice(step.values.length - appended.length);
        if (appended.length > step.values.length || appended.some((value, i) => value !== end[i]))
          this.#report(
            'internal',
            `T${one.id} appended ${appended.join()} to ${step.key} and read ${step.values.join()}`,
          );
        this.#checkIntermediate(one, step.key, step.values);
      }
    }
  }

  #checkValues(reader: string, key: string, values: readonly number[]): void {
    if (new Set(values).size < values.length)
      this.#report('duplicate-elements', `${reader} read ${key}: ${values.join()}`);
    for (const value of values) {
      const writer = this.#writers.get(name(key, value));
      if (writer === undefined) this.#report('garbage', `${reader} read ${value} in ${key}`);
      else if (writer.outcome === 'aborted')
        this.#report('G1a', `${reader} read ${value} in ${key}, which T${writer.id} appended and rolled back`);
    }
  }

  #checkIntermediate(reader: Transaction, key: string, values: readonly number[]): void {
    const last = values.at(-1);
    const writer = last === undefined ? undefined : this.#writers.get(name(key, last));
    if (writer === undefined || writer === reader) return;
    const appended = writer.steps.filter((step) => step.kind === 'append' && step.key === key);
    if (appended.length > 1 && (appended.at(-1) as { value: number }).value !== last)
      this.#report('G1b', `T${reader.id} read ${key} up to ${last}, where T${writer.id} was not done with it`);
  }

  /** Per key the longest list that was read; every other has to be a beginning of it. */
  #versionOrders(): Map<string, readonly number[]> {
    const reads = new Map<string, (readonly number[])[]>();
    const add = (key: string, values: readonly number[]) => reads.set(key, [...(reads.get(key) ?? []), values]);
    for (const one of this.#committed)
      for (const step of one.steps) if (step.kind === 'read') add(step.key, step.values);
    for (const [key, values] of this.#history.final ?? []) add(key, values);
    const orders = new Map<string, readonly number[]>();
    for (const [key, lists] of reads) {
      const longest = this.#history.final?.get(key) ?? lists.reduce((a, b) => (b.length > a.length ? b : a));
      for (const list of lists)
        if (list.some((value, i) => value !== longest[i]))
          this.#report('incompatible-order', `${key} was read as ${list.join()} and as ${longest.join()}`);
      orders.set(key, longest);
    }
    return orders;
  }

  #addDependencies(key: string, order: readonly number[]): void {
    const committed = new Set(this.#committed);
    const writerAt = (i: number): Transaction | undefined => {
      const writer = i < 0 || i >= order.length ? undefined : this.#writers.get(name(key, order[i]));
      return writer !== undefined && committed.has(writer) ? writer : undefined;
    };
    for (let i = 1; i < order.length; i++) {
      const before = writerAt(i - 1);
      const after = writerAt(i);
      if (before && after) this.#graph.add(before.id, after.id, 'ww');
    }
    // earliest[i]: when the first of those that wrote version i or a later one was acknowledged.
    const earliest = new Array<number>(order.length + 1).fill(Infinity);
    for (let i = order.length - 1; i >= 0; i--) {
      const writer = writerAt(i);
      const ended = writer?.outcome === 'committed' ? writer.ended : Infinity;
      earliest[i] = Math.min(earliest[i + 1], ended);
    }
    for (const one of this.#committed) {
      for (const step of one.steps) {
        if (step.kind !== 'read' || step.key !== key) continue;
        let seen = step.values.length - 1;
        const next = writerAt(seen + 1);
        if (next) this.#graph.add(one.id, next.id, 'rw');
        if (this.#isRealtime(one) && earliest[seen + 1] < one.begun)
          this.#report(
            'stale-read',
            `T${one.id} read ${key} as ${step.values.join()} after a later append was acknowledged`,
          );
        while (seen >= 0 && writerAt(seen) === one) seen--;
        const writer = writerAt(seen);
        if (writer) this.#graph.add(writer.id, one.id, 'wr');
      }
    }
  }

  #checkLost(orders: ReadonlyMap<string, readonly number[]>): void {
    const updates = new Map<string, Transaction>();
    for (const one of this.#committed) {
      const read = new Map<string, number>();
      const written = new Set<string>();
      for (const step of one.steps) {
        const { key } = step;
        // The version that the write was based on is the one read last before it.
        if (step.kind === 'read') {
          if (!written.has(key)) read.set(key, step.values.length);
        } else if (!written.has(key)) {
          written.add(key);
          const version = read.get(key);
          if (version === undefined) continue;
          const other = updates.get(name(key, version));
          if (other !== undefined)
            this.#report(
              'lost-update',
              `T${other.id} and T${one.id} both appended to ${key} what follows version ${version}`,
            );
          updates.set(name(key, version), one);
        }
      }
    }
    if (this.#history.final === undefined) return;
    for (const one of this.#committed)
      for (const step of one.steps)
        if (step.kind === 'append' && !(orders.get(step.key) ?? []).includes(step.value))
          this.#report(
            'lost-append',
            `T${one.id} appended ${step.value} to ${step.key}, which is not there at the end`,
          );
  }

  /** What is of unknown outcome may commit after its session went on: nothing of it has to follow. */
  #addProcessOrder(): void {
    const last = new Map<number, Transaction>();
    for (const one of [...this.#committed].sort((a, b) => a.begun - b.begun)) {
      const before = last.get(one.process);
      if (before !== undefined) this.#graph.add(before.id, one.id, 'process');
      if (isAcknowledged(one)) last.set(one.process, one);
    }
  }

  #isRealtime(one: Transaction): boolean {
    return this.#options.realtime === true || one.strict === true;
  }

  /** Only edges that do not follow from others: from those that ended last, not from all that ended before. */
  #addRealtimeOrder(): void {
    const events = this.#committed.flatMap((one) => [
      { at: one.begun, ended: false, one },
      ...(isAcknowledged(one) ? [{ at: one.ended, ended: true, one }] : []),
    ]);
    // Of one moment, beginnings first: those two are concurrent.
    events.sort((a, b) => a.at - b.at || Number(a.ended) - Number(b.ended));
    const latest = new Set<Transaction>();
    const before = new Map<Transaction, Transaction[]>();
    for (const { ended, one } of events) {
      if (ended) {
        for (const other of before.get(one) ?? []) latest.delete(other);
        latest.add(one);
      } else if (this.#isRealtime(one)) {
        before.set(one, [...latest]);
        for (const other of latest) this.#graph.add(other.id, one.id, 'realtime');
      }
    }
  }
}

const isAcknowledged = ({ outcome, ended }: Transaction): boolean => outcome === 'committed' && ended < Infinity;

const name = (key: string, value: number): string => `${key} ${value}`;

/** How often each kind was found. */
export function countKinds(anomalies: readonly { readonly kind: string }[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { kind } of anomalies) counts[kind] = (counts[kind] ?? 0) + 1;
  return counts;
}
