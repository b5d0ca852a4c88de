import { execFileSync } from 'node:child_process';
import { readFileSync, readdirSync } from 'node:fs';
import { errorCode } from './dev-error.ts';

/** A process and when it started, so that another one that was given the same number later is not taken for it. */
export interface ProcessRef {
  readonly pid: number;
  readonly started: string;
}

interface ProcessInfo extends ProcessRef {
  readonly parent: number;
  /** One letter: T is stopped, Z is dead and not yet collected by its parent. */
  readonly state: string;
}

/** The process of that number now; undefined when there is none, or only its remains. */
export function processInfo(pid: number): ProcessInfo | undefined {
  const info = process.platform === 'linux' ? fromProc(pid) : fromPs(['-p', String(pid)])[0];
  return info === undefined || info.state === 'Z' ? undefined : info;
}

export function isAlive(ref: ProcessRef): boolean {
  return processInfo(ref.pid)?.started === ref.started;
}

/** Undefined once the process is gone. */
export function isStopped(ref: ProcessRef): boolean | undefined {
  const info = processInfo(ref.pid);
  return info?.started === ref.started ? info.state === 'T' : undefined;
}

/** All processes below `pid`, parents before their children, without `pid` itself. */
export function descendants(pid: number): ProcessRef[] {
  const all = everyProcess().filter((info) => info.state !== 'Z');
  const found: ProcessInfo[] = [];
  let parents = new Set([pid]);
  while (parents.size > 0) {
    const children = all.filter((info) => parents.has(info.parent));
    found.push(...children);
    parents = new Set(children.map((info) => info.pid));
  }
  return found.map(({ pid: number, started }) => ({ pid: number, started }));
}

/** False when the process is gone already. */
export function sendSignal(ref: ProcessRef, signal: NodeJS.Signals): boolean {
  if (!isAlive(ref)) return false;
  try {
    return process.kill(ref.pid, signal);
  } catch (error) {
    if (errorCode(error) === 'ESRCH') return false;
    throw error;
  }
}

/** The command line of a process, its words separated by spaces; empty when it is gone or may not be read. */
export function commandLine(pid: number): string {
  try {
    if (process.platform === 'linux') return readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim();
    return execFileSync('ps', ['-o', 'command=', '-p', String(pid)], { encoding: 'utf8' }).trim();
  } catch {
    return '';
  }
}

function everyProcess(): ProcessInfo[] {
  if (process.platform !== 'linux') return fromPs(['-ax']);
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map((name) => fromProc(Number(name)))
    .filter((info) => info !== undefined);
}

/** /proc/PID/stat: `pid (name) state ppid … starttime …`, where the name may hold anything, parentheses too. */
function fromProc(pid: number): ProcessInfo | undefined {
  let stat: string;
  try {
    stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
  } catch {
    return undefined;
  }
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
  return { pid, state: fields[0], parent: Number(fields[1]), started: fields[19] };
}

function fromPs(which: readonly string[]): ProcessInfo[] {
  let text: string;
  try {
    text = execFileSync('ps', [...which, '-o', 'pid=,ppid=,stat=,lstart='], { encoding: 'utf8' });
  } catch {
    return []; // ps fails when it finds none
  }
  return text
    .split('\n')
    .map((line) => /^\s*(\d+)\s+(\d+)\s+(\S)\S*\s+(.+?)\s*$/.exec(line))
    .filter((match) => match !== null)
    .map(([, pid, parent, state, started]) => ({ pid: Number(pid), parent: Number(parent), state, started }));
}
