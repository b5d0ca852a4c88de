import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { dirname } from 'node:path';
import { DevError } from './dev-error.ts';

/** The operating system's user that PostgreSQL runs as. */
export interface RunUser {
  readonly name: string;
  readonly uid: number;
  readonly gid: number;
}

/**
 * Undefined when PostgreSQL can run as who we are. It refuses to run as root, and initdb wants its user to have an entry
 * in /etc/passwd; so root's servers run as `postgres`, or where no such user exists as `nobody`.
 */
export function runUser(uid = process.getuid?.(), passwd = '/etc/passwd'): RunUser | undefined {
  if (uid !== 0) return undefined;
  const entries = new Map(
    readFileSync(passwd, 'utf8')
      .split('\n')
      .map((line) => line.split(':'))
      .filter((fields) => fields.length >= 4)
      .map((fields) => [fields[0], { name: fields[0], uid: Number(fields[2]), gid: Number(fields[3]) }]),
  );
  const user = [entries.get('postgres'), entries.get('nobody')].find((entry) => entry !== undefined && entry.uid > 0);
  if (user === undefined) {
    throw new DevError(
      "PostgreSQL doesn't run as root, and there is no user `postgres` or `nobody` to run it as: " +
        'create one, or run this as another user',
    );
  }
  return user;
}

/** Options for spawn that make a process run as that user; ourselves when undefined. */
export function asUser(user: RunUser | undefined): { uid?: number; gid?: number } {
  return user === undefined ? {} : { uid: user.uid, gid: user.gid };
}

/** Whether the user can enter the directory, or the nearest of its parents that exists. Asked of the kernel, as that user. */
export function canReach(user: RunUser | undefined, directory: string): boolean {
  let path = directory;
  while (!existsSync(path)) path = dirname(path);
  const found = spawnSync('/bin/sh', ['-c', 'cd -- "$1"', 'sh', path], { ...asUser(user), cwd: '/', stdio: 'ignore' });
  return found.status === 0;
}
