import type { Gid, LogIndex } from '../../runtime/ids.ts';

export interface Announcement {
  readonly database: string;
  readonly dependsOn: LogIndex;
  /** The changes themselves, when they are small enough to travel at once. */
  readonly data: Uint8Array | undefined;
}

/** This node's own transactions as their announcements, from `begin` until the coordinator releases them. */
export class Announcements {
  readonly #dependsOn = new Map<Gid, LogIndex>();
  readonly #complete = new Map<Gid, Announcement>();

  begin(gid: Gid, dependsOn: LogIndex): void {
    this.#dependsOn.set(gid, dependsOn);
  }

  /** The decoder has all of it. False when nobody waits for it any more. */
  complete(gid: Gid, database: string, data: Uint8Array | undefined): boolean {
    const dependsOn = this.#dependsOn.get(gid);
    if (dependsOn === undefined) return false;
    this.#complete.set(gid, { database, dependsOn, data });
    return true;
  }

  get(gid: Gid): Announcement | undefined {
    return this.#complete.get(gid);
  }

  gids(): Iterable<Gid> {
    return this.#complete.keys();
  }

  get size(): number {
    return this.#dependsOn.size;
  }

  release(gid: Gid): void {
    this.#dependsOn.delete(gid);
    this.#complete.delete(gid);
  }
}
