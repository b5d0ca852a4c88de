import type { Founders, Memory } from '../consensus/core/standing.ts';
import type { Restored } from '../consensus/core/types.ts';
import type { LogIndex, Lsn, NodeId } from '../runtime/ids.ts';
import {
  IdentityFile,
  judgeLog,
  judgePostgres,
  memoryOf,
  newIdentity,
  type FoundPostgres,
  type Identity,
  type Refusal,
} from './identity.ts';
import type { PeerLogNotes } from './peer-logs.ts';

/** PostgreSQL, or the log, is not what belongs to this node. */
export class IdentityError extends Error {
  override readonly name = 'IdentityError';
  readonly code: Refusal['code'];

  constructor({ code, reason }: Refusal) {
    super(`${reason} (docs/identity.md: ${code})`);
    this.code = code;
  }
}

/** This node's identity while it runs: judges what it finds, and notes down how far things have come. */
export class NodeIdentity {
  readonly #file: IdentityFile;
  readonly #isNew: boolean;
  #own: Identity;
  /** A PostgreSQL bears the mark of this very log, so that it can't be a new one in the place of a lost one. */
  #confirmed = false;

  constructor(directory: string, cluster: string, node: NodeId) {
    this.#file = new IdentityFile(directory);
    this.#isNew = this.#file.current === undefined;
    this.#own = this.#file.current ?? newIdentity(cluster, node);
    if (this.#own.cluster !== cluster || this.#own.node !== node) {
      const reason = `data_dir belongs to node ${this.#own.node} of cluster "${this.#own.cluster}"`;
      throw new IdentityError({ code: this.#own.cluster === cluster ? 'other-node' : 'other-cluster', reason });
    }
  }

  /** What PostgreSQL is to be marked with. */
  get mark(): { readonly cluster: string; readonly node: NodeId; readonly log: string } {
    const { cluster, node, log } = this.#own;
    return { cluster, node, log };
  }

  /**
   * Whether the log may be used, for voting above all. An empty one in a data_dir without an identity may be lost as well as new: PostgreSQL
   * knows, so it is not used before one was `adopt`ed, or bears its mark already.
   */
  get mayVote(): boolean {
    return this.#own.postgres !== null || this.#confirmed;
  }

  logRefusal(lastIndex: LogIndex, isNew: boolean): Refusal | undefined {
    return judgeLog(this.#own, lastIndex, isNew);
  }

  /** This node's log as a voter's memory, given what was restored of it. */
  memory(restored: Restored): Memory {
    return memoryOf(this.#own, restored);
  }

  /** What this node had heard of the others' logs when it was last noted down. */
  get peers(): PeerLogNotes | undefined {
    return this.#own.peers;
  }

  /**
   * Another node remembers that this node's log had an entry that it has not. True if that is news: it is durable then, and the next run's `logRefusal`
   * says so. Where that fails it is news again the next time.
   */
  async wentBack(had: LogIndex): Promise<boolean> {
    if (had <= (this.#file.current?.decided ?? 0)) return false;
    await this.#save({ ...this.#own, decided: Math.max(this.#own.decided, had) as LogIndex });
    return true;
  }

  /** Its voice counts from now on. Durable when it resolves. */
  async counts(founders: Founders | null): Promise<void> {
    await this.#save({ ...this.#own, voice: { counts: true, founders } });
  }

  /** Throws IdentityError when this PostgreSQL must not be used. To be followed by `adopt` once it is marked. */
  async examine(found: FoundPostgres, lastIndex: LogIndex): Promise<void> {
    this.#confirmed ||= found.mark?.log === this.#own.log;
    const refused = judgePostgres(this.#own, this.#isNew && this.#own.postgres === null, found, lastIndex);
    if (refused !== undefined) throw new IdentityError(refused);
    // Before PostgreSQL is marked: a mark without an identity would look like a log that was lost.
    if (this.#file.current === undefined) await this.#save(this.#own);
  }

  async adopt({ systemIdentifier, timeline, committed, flushed }: FoundPostgres): Promise<void> {
    await this.#save({ ...this.#own, postgres: { systemIdentifier, timeline, committed, flushed } });
  }

  /** To be called every second or so. Saves only what has moved. */
  async note(decided: LogIndex, committed: LogIndex, flushed: Lsn | undefined, peers: PeerLogNotes): Promise<void> {
    const { postgres } = this.#own;
    if (postgres === null) return;
    const next = {
      ...postgres,
      committed: Math.max(postgres.committed, committed) as LogIndex,
      flushed: flushed !== undefined && flushed > postgres.flushed ? flushed : postgres.flushed,
    };
    const has = { ...this.#own, postgres: next, decided: Math.max(this.#own.decided, decided) as LogIndex, peers };
    // Not what was meant to be saved last: that may have failed.
    const saved = this.#file.current;
    const isSame =
      next.committed === saved?.postgres?.committed &&
      next.flushed === saved.postgres.flushed &&
      has.decided === saved.decided &&
      peers === saved.peers;
    if (!isSame) await this.#save(has);
  }

  #save(identity: Identity): Promise<void> {
    this.#own = identity;
    return this.#file.save(identity);
  }
}
