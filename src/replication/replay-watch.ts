import { comparePriority, parseGid } from '../commit/gid.ts';
import type { Gid } from '../runtime/ids.ts';
import type { Logger } from '../runtime/log.ts';
import type { ConflictVictim } from '../session/ports.ts';
import type { Blocked } from './apply/blockers.ts';
import type { DatabaseReplica } from './database-replica.ts';

/** Whoever stands in a replay's way, as the core is told: a backend that may be overruled, or another transaction of the cluster. */
export type Blocker =
  | { readonly type: 'backend'; readonly pid: number; readonly standing?: Gid | undefined }
  | { readonly type: 'transaction'; readonly gid: Gid };

export interface ReplayWatchOptions {
  /** Milliseconds after which a replay that isn't done is looked at for what it waits for. */
  readonly conflictCheckAfter: number;
  /** None while PostgreSQL can't be used. */
  readonly databases: () => Iterable<DatabaseReplica>;
  readonly victim: (pid: number) => ConflictVictim | undefined;
  readonly blocked: (gid: Gid, blocker: Blocker, table: string | undefined) => void;
  readonly log: Logger;
}

/** Milliseconds after which a replay that was found waiting is looked at again, at the latest. */
const MAX_PATIENCE = 200;

/** Finds out, while anything is being replayed, who stands in the way of replays that take long. */
export class ReplayWatch {
  readonly #options: ReplayWatchOptions;
  #looking: NodeJS.Timeout | undefined;
  /** Replays that were found waiting, and when to look at them again. */
  readonly #patience = new Map<Gid, { readonly holder: string; readonly pause: number; readonly until: number }>();
  #stopped = false;

  constructor(options: ReplayWatchOptions) {
    this.#options = options;
  }

  /** A replay has begun: an idle node has nothing to look at. */
  begin(): void {
    if (this.#stopped) return;
    this.#looking ??= setTimeout(() => void this.#look(), this.#options.conflictCheckAfter);
  }

  /** A replay is over. */
  forget(gid: Gid): void {
    this.#patience.delete(gid);
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#looking);
  }

  async #look(): Promise<void> {
    const { databases, conflictCheckAfter, log } = this.#options;
    let isBusy = false;
    try {
      for (const database of databases()) {
        const isDue = (gid: Gid) => (this.#patience.get(gid)?.until ?? 0) <= performance.now();
        for (const found of await database.blocked(conflictCheckAfter, isDue)) {
          this.#report(found.gid, found.blocked, database);
          this.#wait(found.gid, found.blocked);
        }
      }
    } catch (error) {
      log.warn({ err: error }, 'what replays wait for could not be looked up');
    }
    for (const { pool } of databases()) isBusy ||= pool.queued + pool.busy > 0;
    this.#looking = undefined;
    if (isBusy) this.begin();
  }

  /** What was found is being seen to: looking again costs PostgreSQL more with every session that waits for the same row. */
  #wait(gid: Gid, { holder }: Blocked): void {
    const name = holder.type === 'prepared' ? holder.gid : String(holder.pid);
    const before = this.#patience.get(gid);
    const shortest = this.#options.conflictCheckAfter / 2;
    // Somebody else in the way is news, and to be seen to at once.
    const pause = before?.holder === name ? Math.min(before.pause * 2, MAX_PATIENCE) : shortest;
    this.#patience.set(gid, { holder: name, pause, until: performance.now() + pause });
  }

  #report(gid: Gid, { holder, between, table }: Blocked, database: DatabaseReplica): void {
    const { blocked, victim } = this.#options;
    const other = holder.type === 'prepared' ? (holder.gid as Gid) : database.pool.gidOf(holder.pid);
    if (other === gid) return;
    // Whom it wouldn't get past in any case, wherever that one stands in the queue.
    const pids = holder.type === 'backend' && other === undefined ? [...between, holder.pid] : between;
    for (const pid of pids) {
      const standing = victim(pid)?.standing;
      if (standing !== undefined && isOlder(standing, gid))
        return blocked(gid, { type: 'backend', pid, standing }, table);
    }
    if (other === undefined) {
      if (holder.type === 'backend') blocked(gid, { type: 'backend', pid: holder.pid }, table);
    } else {
      blocked(gid, { type: 'transaction', gid: other }, table);
      if (!isOlder(gid, other)) return;
    }
    // Whoever queues before the replay would get the row next and have to give way then.
    for (const pid of between) {
      if (database.pool.gidOf(pid) === undefined) blocked(gid, { type: 'backend', pid }, table);
    }
  }
}

function isOlder(gid: Gid, other: Gid): boolean {
  const [a, b] = [parseGid(gid), parseGid(other)];
  return a !== undefined && b !== undefined && comparePriority(a, b) < 0;
}
