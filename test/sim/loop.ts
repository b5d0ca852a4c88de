/**
 * Virtual time. What happens is an event at a time; events of one time happen in the order they were asked for. An event
 * may belong to a process: it is dropped if the process has died since, and waits while the process is stopped.
 */
export class Process {
  readonly name: string;
  /** Rises with every death, so that what was meant for an earlier life reaches nobody. */
  life = 0;
  alive = false;
  /** Stopped (SIGSTOP): its events pile up until it goes on. */
  stopped = false;
  stalled: (() => void)[] = [];

  constructor(name: string) {
    this.name = name;
  }

  start(): void {
    this.alive = true;
    this.stopped = false;
    this.stalled = [];
  }

  die(): void {
    this.life++;
    this.alive = false;
    this.stopped = false;
    this.stalled = [];
  }
}

interface Scheduled {
  readonly time: number;
  readonly order: number;
  readonly run: () => void;
}

export class Loop {
  /** Milliseconds since the run began. */
  now = 0;
  steps = 0;
  #order = 0;
  readonly #heap: Scheduled[] = [];

  /** Happens whatever dies. */
  after(delay: number, run: () => void): void {
    this.#push({ time: this.now + Math.max(0, delay), order: this.#order++, run });
  }

  /** Happens in the process, if that lives on until then. */
  in(process: Process, delay: number, run: () => void): void {
    const { life } = process;
    const guarded = () => {
      if (process.life !== life || !process.alive) return;
      if (process.stopped) process.stalled.push(guarded);
      else run();
    };
    this.after(delay, guarded);
  }

  /** What piled up happens now, in order. */
  resume(process: Process): void {
    if (!process.stopped) return;
    process.stopped = false;
    for (const run of process.stalled.splice(0)) this.after(0, run);
  }

  /** False when nothing is left. */
  step(): boolean {
    const next = this.#pop();
    if (next === undefined) return false;
    this.now = next.time;
    this.steps++;
    next.run();
    return true;
  }

  #push(item: Scheduled): void {
    const heap = this.#heap;
    heap.push(item);
    let i = heap.length - 1;
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(item, heap[parent])) break;
      heap[i] = heap[parent]!;
      i = parent;
    }
    heap[i] = item;
  }

  #pop(): Scheduled | undefined {
    const heap = this.#heap;
    const top = heap.at(0);
    const last = heap.pop();
    if (top === undefined || last === undefined || heap.length === 0) return top;
    let i = 0;
    while (true) {
      let child = 2 * i + 1;
      if (child >= heap.length) break;
      if (child + 1 < heap.length && isBefore(heap[child + 1], heap[child])) child++;
      if (!isBefore(heap[child], last)) break;
      heap[i] = heap[child]!;
      i = child;
    }
    heap[i] = last;
    return top;
  }
}

function isBefore(a: Scheduled, b: Scheduled): boolean {
  return a.time < b.time || (a.time === b.time && a.order < b.order);
}
