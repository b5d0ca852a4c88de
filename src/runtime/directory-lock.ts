import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

/** Another process uses the directory. */
export class DirectoryInUse extends Error {
  override readonly name = 'DirectoryInUse';
}

interface Holder {
  readonly pid: number;
  /** When that process began, in the kernel's ticks since boot: a number that is used again is told apart. Null where that can't be had. */
  readonly began: string | null;
}

const FILE = 'pgmm.lock';

/**
 * Takes a directory for this process. A file that a killed process has left is taken over. Throws DirectoryInUse.
 * Gives what releases it.
 */
export function lockDirectory(directory: string): () => void {
  mkdirSync(directory, { recursive: true });
  const path = join(directory, FILE);
  const own = JSON.stringify({ pid: process.pid, began: beganAt(process.pid) } satisfies Holder);
  const holder = readHolder(path);
  if (holder !== undefined && holder.pid !== process.pid && isAlive(holder)) {
    throw new DirectoryInUse(`${directory} is in use by process ${holder.pid} (${path})`);
  }
  rmSync(path, { force: true });
  // Of two that came at the same moment one finds the other's file here.
  writeFileSync(path, own, { flag: 'wx', mode: 0o600 });
  return () => {
    if (readFileSync(path, 'utf8') === own) rmSync(path);
  };
}

function readHolder(path: string): Holder | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Holder;
  } catch (error) {
    // Missing, or cut short by a crash: nobody's.
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}

function isAlive({ pid, began }: Holder): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM';
  }
  const now = beganAt(pid);
  return began === null || now === null || now === began;
}

/** "starttime" of proc(5), the 22nd field; the second one may hold spaces. */
function beganAt(pid: number): string | null {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')[19];
  } catch {
    return null; // no such process, or no /proc on this system
  }
}
