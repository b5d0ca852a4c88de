import { Heap } from './heap.ts';
import { comparePriority, parseGid, type GidParts } from '../gid.ts';
import type { Epoch, Gid, LogIndex, NodeId } from '../../runtime/ids.ts';
import type { ErrorReport } from './types.ts';
import * as reports from './reports.ts';

/**
 * The participant: other nodes' transactions on this node, from their announcement until they are committed or gone.
 *
 *   waiting ──depends_on committed──▶ applying ──PREPAREd──▶ prepared (voted yes) ──COMMIT in the log──▶ decided ──▶ (gone)
 *                                        └──▶ failed (voted no) ──▶ (gone)          └──aborted──▶ rolling-back ──▶ (gone)
 *
 *   missing (COMMIT in the log, not prepared here as this node was no member) ──depends_on committed, caught up──▶ decided
 *
 * A yes is given only after PREPARE is durable (I4). What was voted for is rolled back only when the origin says that it
 * is not under way any more and the log, read up to that moment, has no COMMIT; or when the origin's epoch has ended.
 */
export type ParticipantEvent =
  | {
      readonly type: 'announced';
      readonly gid: Gid;
      readonly database: string;
      /** Highest log index whose COMMIT PREPARED the origin had sent when it sent PREPARE: all that it can have seen. */
      readonly dependsOn: LogIndex;
    }
  /** PostgreSQL was looked at when the proxy started, or when it came back: all of the cluster's that is prepared in it. */
  | { readonly type: 'recovered'; readonly prepared: ReadonlyMap<Gid, string> }
  | { readonly type: 'applied'; readonly gid: Gid; readonly error?: ErrorReport | undefined }
  /** A replay is waiting for a lock. `holder` says whose it is; see `Holder`. */
  | { readonly type: 'blocked'; readonly gid: Gid; readonly holder: Holder; readonly table?: string | undefined }
  /** The origin does not have the transaction under way any more, as of its log index `asOf`. */
  | { readonly type: 'not-active'; readonly gid: Gid; readonly asOf: LogIndex }
  | { readonly type: 'rolled-back'; readonly gid: Gid }
  | {
      readonly type: 'decided';
      readonly gid: Gid;
      readonly index: LogIndex;
      readonly database: string;
      readonly dependsOn: LogIndex;
      /** Whether this node was a member at that entry, so that it must be prepared here (I2). */
      readonly member: boolean;
    }
  /** What was `missing` has been replayed from a donor's history, and is prepared. */
  | { readonly type: 'caught-up'; readonly gid: Gid; readonly index: LogIndex; readonly database: string }
  /** This node is no member any more: what it has not prepared comes by catch-up. */
  | { readonly type: 'left' }
  /** The log has been applied up to here. */
  | { readonly type: 'log-applied'; readonly index: LogIndex }
  /** This epoch and all before it have ended in the log. */
  | { readonly type: 'epoch-ended'; readonly node: NodeId; readonly epoch: Epoch }
  /** Everything up to `index` is committed in this node's PostgreSQL. */
  | { readonly type: 'committed'; readonly index: LogIndex };

/** Who holds the lock that a replay waits for. */
export type Holder =
  /** A backend: a client's, or a stranger's. Not prepared. `standing`: its transaction locks whole tables, and gives way to older ones only. */
  | { readonly type: 'backend'; readonly pid: number; readonly standing?: Gid | undefined }
  /** A transaction of this cluster that is prepared here, or is being replayed here. */
  | { readonly type: 'transaction'; readonly gid: Gid };

export type ParticipantEffect =
  | { readonly type: 'apply'; readonly gid: Gid; readonly database: string }
  | { readonly type: 'cancel-apply'; readonly gid: Gid }
  | { readonly type: 'vote'; readonly to: NodeId; readonly gid: Gid; readonly error?: ErrorReport | undefined }
  | { readonly type: 'rollback-prepared'; readonly gid: Gid; readonly database: string }
  /** This backend's transaction has to give way to `gid`. */
  | { readonly type: 'overrule-backend'; readonly pid: number; readonly error: ErrorReport }
  /** Ask the coordinator of `loser` to give way to `winner`. */
  | {
      readonly type: 'contend';
      readonly to: NodeId;
      readonly loser: Gid;
      readonly winner: Gid;
      readonly table?: string | undefined;
    }
  /**
   * The log says COMMIT and this node has nothing prepared under that name. Fatal for a member (I2). Else it is to be
   * replayed from a donor's history now, all that it can have seen being committed: until it succeeds (`caught-up`), or
   * `cancel-apply`. Whatever it waits for gives way to it.
   */
  | {
      readonly type: 'missing';
      readonly gid: Gid;
      readonly index: LogIndex;
      readonly database: string;
      readonly member: boolean;
    }
  /** The changes are not needed here any more. */
  | { readonly type: 'release'; readonly gid: Gid };

type State = 'waiting' | 'applying' | 'prepared' | 'failed' | 'missing' | 'decided' | 'rolling-back';

type Doom =
  /** It lost a conflict: no, unless it is prepared after all. */
  | { readonly type: 'vote'; readonly error: ErrorReport }
  /** It is over: roll back. */
  | { readonly type: 'over' }
  /** This node left: nobody waits for its vote, but what is prepared may yet be committed. */
  | { readonly type: 'left' };

interface Foreign {
  readonly gid: Gid;
  readonly parts: GidParts;
  readonly database: string;
  dependsOn: LogIndex;
  state: State;
  /** In `missing`: the catch-up was asked for. */
  asked: boolean;
  /** Set when the replay in progress is to be given up. What to do if PREPARE got through before that is in it. */
  doomed: Doom | undefined;
  notActiveAsOf: LogIndex | undefined;
  /** Of its COMMIT entry; 0 while there is none. */
  index: LogIndex;
  error: ErrorReport | undefined;
}

/** What the participant must know of the parts beside it. */
export interface ParticipantView {
  /** The guard's, at the log entries applied so far. */
  hasEnded(node: NodeId, epoch: Epoch): boolean;
  /** Whether the coordinator beside this participant has it under way. */
  isOwn(gid: Gid): boolean;
  /** Whether the log entries applied so far have its COMMIT, not yet carried out here. */
  isCommitted(gid: Gid): boolean;
  /** Whether its COMMIT is known to be in the log, carried out or not. */
  isInLog(gid: Gid): boolean;
  /** Whether this node's own transaction is past its decision, or gone: then its locks are about to be released. */
  isSettled(gid: Gid): boolean;
}

export class Participant {
  readonly #self: NodeId;
  readonly #transactions = new Map<Gid, Foreign>();
  readonly #view: ParticipantView;
  /**
   * Who may go on when this node has committed an entry, by that entry: `waiting` and `missing` by what they depend on, `decided` by their own. A node that was away has
   * far too many to look at all of them at each commit. What is not in that state any more is passed over.
   */
  readonly #dependent = new Heap<Foreign>();
  readonly #decided = new Heap<Foreign>();
  /** Those with `notActiveAsOf`. */
  readonly #leaving = new Set<Foreign>();
  #committed = 0 as LogIndex;
  #logApplied = 0 as LogIndex;
  #effects: ParticipantEffect[] = [];

  constructor(self: NodeId, view: ParticipantView) {
    this.#self = self;
    this.#view = view;
  }

  list(): readonly { gid: Gid; database: string; state: State; waitsFor: string }[] {
    return [...this.#transactions.values()].map((t) => ({
      gid: t.gid,
      database: t.database,
      state: t.state,
      waitsFor: waitsFor(t),
    }));
  }

  gids(): Iterable<Gid> {
    return this.#transactions.keys();
  }

  state(gid: Gid): State | undefined {
    return this.#transactions.get(gid)?.state;
  }

  /** Undecided transactions that are prepared here: their origin has to be asked when its link comes back. */
  undecided(origin: NodeId): Gid[] {
    const gids: Gid[] = [];
    for (const t of this.#transactions.values()) {
      if (t.parts.node === origin && t.index === 0 && t.state !== 'rolling-back') gids.push(t.gid);
    }
    return gids;
  }

  step(event: ParticipantEvent): readonly ParticipantEffect[] {
    this.#effects = [];
    switch (event.type) {
      case 'announced':
        this.#onAnnounced(event.gid, event.database, event.dependsOn);
        break;
      case 'recovered':
        this.#onRecovered(event.prepared);
        break;
      case 'committed':
        this.#onCommitted(event.index);
        break;
      case 'log-applied':
        this.#onLogApplied(event.index);
        break;
      case 'epoch-ended':
        for (const t of this.#transactions.values()) {
          if (t.parts.node === event.node && t.parts.epoch <= event.epoch) this.#drop(t);
        }
        break;
      case 'left':
        for (const t of this.#transactions.values()) this.#leave(t);
        break;
      case 'decided':
        this.#onDecided(event);
        break;
      default: {
        const t = this.#transactions.get(event.gid);
        if (t !== undefined) this.#stepOne(t, event);
      }
    }
    return this.#effects;
  }

  #stepOne(
    t: Foreign,
    event: Extract<ParticipantEvent, { type: 'applied' | 'blocked' | 'caught-up' | 'not-active' | 'rolled-back' }>,
  ): void {
    switch (event.type) {
      case 'applied':
        return this.#onApplied(t, event.error);
      case 'blocked':
        if (t.doomed === undefined) this.#onBlocked(t, event.holder, event.table);
        return;
      case 'caught-up':
        // Given up meanwhile: PostgreSQL is looked at anew, and tells that it is prepared.
        if (t.state === 'missing' && t.index === event.index) this.#decide(t, event.index);
        return;
      case 'not-active':
        if (event.asOf <= this.#logApplied) return this.#drop(t);
        t.notActiveAsOf = event.asOf;
        this.#leaving.add(t);
        return;
      case 'rolled-back':
        if (t.state !== 'rolling-back') throw new Error(`${t.gid} was rolled back while ${t.state}`);
        this.#transactions.delete(t.gid);
    }
  }

  #onAnnounced(gid: Gid, database: string, dependsOn: LogIndex): void {
    const known = this.#transactions.get(gid);
    if (known !== undefined) {
      // The origin asks again after a broken link or a new admission; a vote may have been lost on the way.
      if (known.state === 'prepared') this.#emit({ type: 'vote', to: known.parts.node, gid });
      else if (known.state === 'failed') this.#emit({ type: 'vote', to: known.parts.node, gid, error: known.error });
      return;
    }
    const parts = parseGid(gid);
    const isOver = parts === undefined || this.#view.hasEnded(parts.node, parts.epoch) || this.#view.isInLog(gid);
    if (isOver || parts.node === this.#self) {
      this.#emit({ type: 'release', gid });
      return;
    }
    const t = this.#add(gid, database, dependsOn, 'waiting');
    if (dependsOn <= this.#committed) this.#apply(t);
    else this.#dependent.push(dependsOn, t);
  }

  #onRecovered(prepared: ReadonlyMap<Gid, string>): void {
    for (const t of this.#transactions.values()) {
      const isPrepared = prepared.has(t.gid);
      if (t.state === 'rolling-back') {
        if (isPrepared) this.#emit({ type: 'rollback-prepared', gid: t.gid, database: t.database });
        else this.#transactions.delete(t.gid);
      } else if (t.state !== 'decided' && !isPrepared) {
        // A vote that did not survive is found out when the log commits it: I2 is checked there.
        this.#forget(t);
      } else if (t.state !== 'decided') {
        t.state = 'prepared';
        t.doomed = undefined;
        t.index = 0 as LogIndex;
      }
    }
    for (const [gid, database] of prepared) {
      if (this.#transactions.has(gid) || parseGid(gid) === undefined || this.#view.isOwn(gid)) continue;
      this.#add(gid, database, 0 as LogIndex, 'prepared');
    }
    // Entries may have been skipped by a snapshot, so this is asked of all of them, not only of those just found.
    for (const t of this.#transactions.values()) {
      if (t.state === 'prepared' && this.#view.hasEnded(t.parts.node, t.parts.epoch)) this.#drop(t);
    }
  }

  #add(gid: Gid, database: string, dependsOn: LogIndex, state: State): Foreign {
    const parts = parseGid(gid);
    if (parts === undefined) throw new Error(`not a transaction of this cluster: ${gid}`);
    const t: Foreign = {
      gid,
      parts,
      database,
      dependsOn,
      state,
      asked: false,
      doomed: undefined,
      notActiveAsOf: undefined,
      index: 0 as LogIndex,
      error: undefined,
    };
    this.#transactions.set(gid, t);
    return t;
  }

  #apply(t: Foreign): void {
    t.state = 'applying';
    this.#emit({ type: 'apply', gid: t.gid, database: t.database });
  }

  #onApplied(t: Foreign, error: ErrorReport | undefined): void {
    if (t.state !== 'applying') throw new Error(`${t.gid} was applied while ${t.state}`);
    const doomed = t.doomed;
    t.doomed = undefined;
    if (t.index !== 0) {
      // Decided without this node, meanwhile.
      if (error === undefined) this.#decide(t, t.index);
      else if (doomed?.type === 'left') this.#forget(t);
      else this.#miss(t);
      return;
    }
    if (doomed !== undefined) return this.#onDoomed(t, doomed, error === undefined);
    if (error === undefined) {
      t.state = 'prepared';
      return this.#emit({ type: 'vote', to: t.parts.node, gid: t.gid });
    }
    // A local deadlock says nothing about the transaction: whoever else was in it goes on, and the replay starts again.
    if (error.sqlstate === '40P01') return this.#emit({ type: 'apply', gid: t.gid, database: t.database });
    this.#fail(t, error);
  }

  #onDoomed(t: Foreign, doomed: Doom, isPrepared: boolean): void {
    t.state = 'prepared';
    switch (doomed.type) {
      case 'vote':
        if (isPrepared) this.#emit({ type: 'vote', to: t.parts.node, gid: t.gid });
        else this.#fail(t, doomed.error);
        return;
      case 'over':
        return isPrepared ? this.#rollBack(t) : this.#forget(t);
      case 'left':
        if (!isPrepared) this.#forget(t);
    }
  }

  #fail(t: Foreign, error: ErrorReport): void {
    t.state = 'failed';
    t.error = error;
    this.#emit({ type: 'vote', to: t.parts.node, gid: t.gid, error });
  }

  /**
   * Conflict rule (design, "Conflicts"): a transaction that is not prepared gives way; between two prepared ones the older
   * wins, on every node alike. One that locks whole tables stands against younger ones before it is prepared as well: among steady
   * writes something always waits for it, so it would never come to be. One that is decided, either way, is only waited for. What is missing here was decided
   * while whoever holds its locks prepared without having seen it: that can't commit any more, and its origin is asked.
   */
  #onBlocked(t: Foreign, holder: Holder, table: string | undefined): void {
    if (t.state !== 'applying' && t.state !== 'missing') return;
    if (holder.type === 'backend') {
      const standing = holder.standing === undefined ? undefined : parseGid(holder.standing);
      if (t.index === 0 && standing !== undefined && comparePriority(standing, t.parts) < 0) {
        t.doomed = { type: 'vote', error: reports.overruled(holder.standing!, standing, table) };
        return this.#emit({ type: 'cancel-apply', gid: t.gid });
      }
      return this.#emit({ type: 'overrule-backend', pid: holder.pid, error: reports.overruled(t.gid, t.parts, table) });
    }
    const other = parseGid(holder.gid);
    if (other === undefined) return;
    if (t.index !== 0 || this.#isSettled(holder.gid, other)) return;
    if (comparePriority(t.parts, other) < 0) {
      this.#emit({ type: 'contend', to: other.node, loser: holder.gid, winner: t.gid, table });
    } else {
      t.doomed = { type: 'vote', error: reports.overruled(holder.gid, other, table) };
      this.#emit({ type: 'cancel-apply', gid: t.gid });
    }
  }

  /** Whether its locks go without anyone having to give way. */
  #isSettled(gid: Gid, parts: GidParts): boolean {
    if (parts.node === this.#self) return this.#view.isSettled(gid);
    const t = this.#transactions.get(gid);
    return t === undefined || t.index !== 0 || t.state === 'rolling-back';
  }

  #onCommitted(index: LogIndex): void {
    this.#committed = index;
    let t: Foreign | undefined;
    while ((t = this.#decided.popUpTo(index)) !== undefined)
      if (t.state === 'decided' && this.#isThere(t)) this.#transactions.delete(t.gid);
    while ((t = this.#dependent.popUpTo(index)) !== undefined) {
      if (!this.#isThere(t)) continue;
      if (t.state === 'waiting') this.#apply(t);
      else if (t.state === 'missing') this.#askFor(t);
    }
  }

  /** Not forgotten, nor another one of the same name. */
  #isThere(t: Foreign): boolean {
    return this.#transactions.get(t.gid) === t;
  }

  #onLogApplied(index: LogIndex): void {
    this.#logApplied = index;
    for (const t of this.#leaving) {
      if (t.notActiveAsOf === undefined || !this.#isThere(t)) this.#leaving.delete(t);
      else if (t.notActiveAsOf <= index) this.#drop(t);
    }
  }

  #onDecided(event: Extract<ParticipantEvent, { type: 'decided' }>): void {
    const { gid, index, database, dependsOn, member } = event;
    const t = this.#transactions.get(gid);
    if (t !== undefined && t.index !== 0) return;
    if (t?.state === 'rolling-back')
      throw new Error(`I6 violated: COMMIT(${gid}) at ${index}, and it is being rolled back`);
    if (t?.state === 'prepared') return this.#decide(t, index);
    if (member) return this.#emit({ type: 'missing', gid, index, database, member });
    const missing = t ?? this.#add(gid, database, dependsOn, 'missing');
    missing.index = index;
    missing.dependsOn = dependsOn;
    if (missing.state !== 'applying') this.#miss(missing);
  }

  #decide(t: Foreign, index: LogIndex): void {
    t.state = 'decided';
    t.index = index;
    t.doomed = undefined;
    this.#decided.push(index, t);
    this.#emit({ type: 'release', gid: t.gid });
  }

  #miss(t: Foreign): void {
    t.state = 'missing';
    t.asked = false;
    this.#askFor(t);
  }

  #askFor(t: Foreign): void {
    if (t.asked) return;
    if (t.dependsOn > this.#committed) return this.#dependent.push(t.dependsOn, t);
    t.asked = true;
    this.#emit({ type: 'missing', gid: t.gid, index: t.index, database: t.database, member: false });
  }

  /** What is not prepared is given up: nobody waits for it here any more. */
  #leave(t: Foreign): void {
    if (t.state === 'missing') {
      if (t.asked) this.#emit({ type: 'cancel-apply', gid: t.gid });
      this.#forget(t);
    } else if (t.state === 'applying') {
      this.#giveUp(t, 'left');
    } else if (t.state !== 'prepared') {
      this.#drop(t);
    }
  }

  #giveUp(t: Foreign, type: 'over' | 'left'): void {
    if (t.doomed === undefined) this.#emit({ type: 'cancel-apply', gid: t.gid });
    if (t.doomed?.type !== 'over') t.doomed = { type };
  }

  /** Final abort, by the origin's word or by the log. */
  #drop(t: Foreign): void {
    t.notActiveAsOf = undefined;
    this.#leaving.delete(t);
    if (this.#view.isCommitted(t.gid)) return;
    switch (t.state) {
      case 'waiting':
      case 'failed':
        return this.#forget(t);
      case 'applying':
        return this.#giveUp(t, 'over');
      case 'prepared':
        return this.#rollBack(t);
      case 'missing':
      case 'decided':
      case 'rolling-back':
        return;
    }
  }

  #rollBack(t: Foreign): void {
    t.state = 'rolling-back';
    this.#emit({ type: 'rollback-prepared', gid: t.gid, database: t.database });
    this.#emit({ type: 'release', gid: t.gid });
  }

  #forget(t: Foreign): void {
    this.#transactions.delete(t.gid);
    this.#emit({ type: 'release', gid: t.gid });
  }

  #emit(effect: ParticipantEffect): void {
    this.#effects.push(effect);
  }
}

function waitsFor({ state, parts, dependsOn, index }: Foreign): string {
  switch (state) {
    case 'waiting':
      return `the commit of log entry ${dependsOn}, which it can have seen`;
    case 'applying':
      return 'its replay on this node';
    case 'prepared':
      return `the decision, proposed by node ${parts.node}`;
    case 'failed':
      return `node ${parts.node}, which was told that it fails here`;
    case 'missing':
      return `its changes from another node's history, to commit log entry ${index}`;
    case 'decided':
      return `the commit of log entry ${index}`;
    case 'rolling-back':
      return 'ROLLBACK PREPARED on this node';
  }
}
