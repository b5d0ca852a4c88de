import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { closeSync, openSync, readSync, statSync } from 'node:fs';
import { DevError } from './dev-error.ts';
import { processInfo } from './processes.ts';
import type { ProcessRef } from './processes.ts';
import { asUser } from './run-user.ts';
import type { RunUser } from './run-user.ts';

export interface ChildOptions {
  readonly command: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
  readonly logFile: string;
  readonly user?: RunUser | undefined;
  readonly cwd?: string;
}

/** A process of ours whose output goes to a log file. */
export class Child {
  readonly ref: ProcessRef;
  /** How it ended, in words. */
  readonly ended: Promise<string>;
  #running = true;

  private constructor(process: ChildProcess, ref: ProcessRef) {
    this.ref = ref;
    this.ended = new Promise((resolve) => {
      process.once('exit', (code, signal) => {
        this.#running = false;
        resolve(signal === null ? `exit code ${code}` : `signal ${signal}`);
      });
    });
  }

  static async spawn({ command, args, env, logFile, user, cwd }: ChildOptions): Promise<Child> {
    const log = openSync(logFile, 'a', 0o644);
    try {
      const child = spawn(command, args, {
        ...asUser(user),
        env,
        cwd: cwd ?? '/',
        stdio: ['ignore', log, log],
        // In a session of its own, a terminal's Ctrl-C reaches us alone, and we stop it when its turn has come.
        detached: true,
      });
      await new Promise<void>((resolve, reject) => {
        child.once('spawn', resolve);
        child.once('error', (error) => reject(new DevError(`can't run ${command}: ${error.message}`)));
      });
      const pid = child.pid!;
      return new Child(child, processInfo(pid) ?? { pid, started: 'gone' });
    } finally {
      closeSync(log);
    }
  }

  get running(): boolean {
    return this.#running;
  }
}

/** The last lines of a log, from `offset` on. */
export function tail(file: string, offset = 0, lines = 12): string {
  const size = fileSize(file);
  const start = Math.max(offset, size - 8192, 0);
  if (size <= start) return '';
  const bytes = Buffer.alloc(size - start);
  const fd = openSync(file, 'r');
  try {
    readSync(fd, bytes, 0, bytes.length, start);
  } finally {
    closeSync(fd);
  }
  return bytes.toString('utf8').trimEnd().split('\n').slice(-lines).join('\n');
}

export function fileSize(file: string): number {
  return statSync(file, { throwIfNoEntry: false })?.size ?? 0;
}
