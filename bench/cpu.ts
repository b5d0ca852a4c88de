import { readFileSync, readdirSync } from 'node:fs';

/** What the kernel counts in; it is 100 a second on every Linux that Node.js runs on. */
const TICKS_PER_SECOND = 100;

interface Times {
  readonly parent: number;
  readonly own: number;
  /** Of children that have ended and were waited for. */
  readonly ended: number;
}

/** A line of /proc/PID/stat: `pid (name) state ppid …`, where the name may hold anything, parentheses too. */
export function parseStat(stat: string): Times {
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  const seconds = (from: number): number => (Number(fields[from]) + Number(fields[from + 1])) / TICKS_PER_SECOND;
  return { parent: Number(fields[1]), own: seconds(11), ended: seconds(13) };
}

/** The processor time that every process of the machine has used so far. */
export class CpuSnapshot {
  readonly #processes: ReadonlyMap<number, Times>;

  constructor(processes: ReadonlyMap<number, Times>) {
    this.#processes = processes;
  }

  /** Undefined where there is no /proc. */
  static take(): CpuSnapshot | undefined {
    if (process.platform !== 'linux') return undefined;
    const processes = new Map<number, Times>();
    for (const name of readdirSync('/proc')) {
      if (!/^\d+$/.test(name)) continue;
      try {
        processes.set(Number(name), parseStat(readFileSync(`/proc/${name}/stat`, 'utf8')));
      } catch {
        // It ended in between; its parent has its time.
      }
    }
    return new CpuSnapshot(processes);
  }

  /** Seconds of these processes with all their descendants, those that have ended included. */
  family(roots: readonly number[]): number {
    const members = new Set(roots);
    for (let grown = true; grown;) {
      grown = false;
      for (const [pid, { parent }] of this.#processes) {
        if (!members.has(parent) || members.has(pid)) continue;
        members.add(pid);
        grown = true;
      }
    }
    let seconds = 0;
    for (const pid of members) {
      const times = this.#processes.get(pid);
      if (times !== undefined) seconds += times.own + times.ended;
    }
    return seconds;
  }

  /** Seconds of the children of this very process that have ended. */
  endedChildren(): number {
    return this.#processes.get(process.pid)?.ended ?? 0;
  }
}
