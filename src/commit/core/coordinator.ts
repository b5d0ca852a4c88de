import { comparePriority, parseGid, type GidParts } from '../gid.ts';
import type { Epoch, Gid, LogIndex, NodeId } from '../../runtime/ids.ts';
import type { ErrorReport, Members, Rejection } from './types.ts';
import * as reports from './reports.ts';

/**
 * The coordinator of a node's own transactions: from the moment PREPARE TRANSACTION is sent until the client is answered.
 *
 *   preparing ──prepared──▶ collecting ──all votes──▶ proposing ──decided──▶ decided ──▶ (gone)
 *        └────────┴── a no vote, a conflict ──▶ aborting ──rolled back──▶ (gone)
 *
 * A transaction that is not proposed may be rolled back at will. Once proposed, only the log decides: it is proposed again
 * to every new leader until COMMIT(gid) or the end of its epoch stands in the log (I6).
 */
export type CoordinatorEvent =
  | {
      readonly type: 'begin';
      readonly gid: Gid;
      readonly database: string;
      /** `remote_apply`: the client waits for every member's commit. */
      readonly everywhere: boolean;
      readonly dependsOn: LogIndex;
      /** Monotonic milliseconds, as in `tick`. */
      readonly now: number;
    }
  | { readonly type: 'prepared'; readonly gid: Gid; readonly now: number }
  /** The decoder gets on with what was prepared in this database: what it has not announced yet is late, not lost. */
  | { readonly type: 'decoding'; readonly database: string; readonly now: number }
  /** The members are asked for their votes. */
  | { readonly type: 'announced'; readonly gid: Gid; readonly now: number }
  /** A member is still replaying this transaction and gets on with it: its vote is late, not lost. */
  | { readonly type: 'progress'; readonly gid: Gid; readonly now: number }
  /** The server refused PREPARE: nothing is left of the transaction. */
  | { readonly type: 'prepare-failed'; readonly gid: Gid; readonly error: ErrorReport }
  /** The connection broke: it may or may not be prepared, so it is rolled back if it's there. */
  | { readonly type: 'prepare-unknown'; readonly gid: Gid; readonly error: ErrorReport }
  | {
      readonly type: 'vote';
      readonly gid: Gid;
      readonly node: NodeId;
      readonly epoch: Epoch;
      readonly error?: ErrorReport | undefined;
    }
  /** Ask for the transaction to give way; refused silently once it is proposed. */
  | { readonly type: 'abort'; readonly gid: Gid; readonly error: ErrorReport }
  /** A replay of `by` waits here, or elsewhere, for `gid`: the younger of them has to go. */
  | { readonly type: 'contended'; readonly gid: Gid; readonly by: Gid; readonly table?: string | undefined }
  | { readonly type: 'rolled-back'; readonly gid: Gid }
  /** The members after the applied entries; sent on every change. */
  | { readonly type: 'members'; readonly members: Members }
  /** A leader that accepts proposals; undefined while there is none. */
  | { readonly type: 'leader'; readonly leader: { readonly node: NodeId; readonly term: number } | undefined }
  | {
      readonly type: 'rejected';
      readonly gid: Gid;
      readonly term: number;
      /** That of the refused proposal. */
      readonly attempt: number | undefined;
      readonly reason: Rejection;
    }
  | { readonly type: 'decided'; readonly gid: Gid; readonly index: LogIndex }
  /** Everything up to `index` is committed in that node's PostgreSQL. */
  | { readonly type: 'committed'; readonly node: NodeId; readonly index: LogIndex }
  /** PostgreSQL is back, or was looked at anew: these are prepared in it. */
  | { readonly type: 'recovered'; readonly prepared: ReadonlySet<Gid> }
  | { readonly type: 'tick'; readonly now: number };

export type CoordinatorEffect =
  | {
      readonly type: 'propose';
      readonly gid: Gid;
      readonly database: string;
      readonly to: NodeId;
      readonly term: number;
      readonly votes: readonly (readonly [NodeId, Epoch])[];
      readonly dependsOn: LogIndex;
      readonly notify: boolean;
      readonly attempt: number;
    }
  /** Tell every peer that the transaction is over without a COMMIT entry. */
  | { readonly type: 'tell-aborted'; readonly gid: Gid }
  | { readonly type: 'rollback-prepared'; readonly gid: Gid; readonly database: string }
  | { readonly type: 'answer'; readonly gid: Gid; readonly outcome: CoordinatorOutcome }
  /** Send the transaction to this member (again): it was admitted after the changes were first sent. */
  | { readonly type: 'announce'; readonly gid: Gid; readonly to: NodeId }
  /** This member's vote does not come: it should be excluded. */
  | { readonly type: 'suspect'; readonly node: NodeId; readonly epoch: Epoch; readonly gid: Gid }
  /** Nothing will be asked about the transaction's changes any more. */
  | { readonly type: 'release'; readonly gid: Gid };

export type CoordinatorOutcome =
  | { readonly type: 'committed'; readonly index: LogIndex }
  | { readonly type: 'aborted'; readonly error: ErrorReport }
  | { readonly type: 'unknown'; readonly error: ErrorReport };

type Phase = 'preparing' | 'collecting' | 'proposing' | 'decided' | 'aborting';

interface Transaction {
  readonly gid: Gid;
  readonly parts: GidParts;
  readonly database: string;
  readonly everywhere: boolean;
  readonly dependsOn: LogIndex;
  readonly votes: Map<NodeId, Epoch>;
  phase: Phase;
  prepared: boolean;
  /** Whether the members can have heard of it. Until then nobody but this node's own decoder is waited for. */
  announced: boolean;
  /** When it was last heard to get on, for the timeouts. */
  since: number;
  /** When something was last sent that may have been lost with a link. */
  sent: number;
  readonly begun: number;
  /** The number of the last proposal. A refusal of that one is final, as none can still be on its way behind it. */
  attempt: number;
  suspected: boolean;
  answered: boolean;
  index: LogIndex;
  error: ErrorReport | undefined;
}

export interface CoordinatorSettings {
  readonly self: NodeId;
  /** Milliseconds after which an announcement without a vote, or a proposal without an answer, is sent again. */
  readonly resendAfter: number;
  /** Milliseconds after which a member that has not voted is suspected; at the latest when its transaction is given up. */
  readonly voteTimeout: number;
  /** Milliseconds after which a client is told that the outcome is unknown, or refused if nothing was proposed. */
  readonly decisionTimeout: number;
}

export class Coordinator {
  readonly #settings: CoordinatorSettings;
  readonly #transactions = new Map<Gid, Transaction>();
  readonly #committed = new Map<NodeId, LogIndex>();
  #members: Members = new Map();
  #leader: { readonly node: NodeId; readonly term: number } | undefined;
  /** Rises with every proposal of this run: the leader drops one that was overtaken on the way. */
  #attempts = 0;
  #now = 0;
  #effects: CoordinatorEffect[] = [];

  constructor(settings: CoordinatorSettings) {
    this.#settings = settings;
  }

  /** For operators: what is under way, and what each transaction waits for. */
  list(): readonly { gid: Gid; database: string; phase: Phase; begun: number; waitsFor: string }[] {
    return [...this.#transactions.values()].map((t) => ({
      gid: t.gid,
      database: t.database,
      phase: t.phase,
      begun: t.begun,
      waitsFor: this.#waitsFor(t),
    }));
  }

  has(gid: Gid): boolean {
    return this.#transactions.has(gid);
  }

  /** Whether the transaction may still be rolled back, or has been. */
  isUndecided(gid: Gid): boolean {
    const transaction = this.#transactions.get(gid);
    return transaction !== undefined && transaction.phase !== 'decided' && transaction.phase !== 'aborting';
  }

  /** Whether it is given up for good, and only its rollback here is waited for. */
  isAborting(gid: Gid): boolean {
    return this.#transactions.get(gid)?.phase === 'aborting';
  }

  step(event: CoordinatorEvent): readonly CoordinatorEffect[] {
    this.#effects = [];
    if ('now' in event) this.#now = event.now;
    this.#dispatch(event);
    return this.#effects;
  }

  #dispatch(event: CoordinatorEvent): void {
    switch (event.type) {
      case 'begin':
        return this.#begin(event);
      case 'members':
        return this.#onMembers(event.members);
      case 'leader':
        this.#leader = event.leader;
        for (const t of this.#transactions.values()) this.#advance(t, true);
        return;
      case 'committed':
        return this.#onCommitted(event.node, event.index);
      case 'recovered':
        for (const t of this.#transactions.values()) this.#onRecovered(t, event.prepared.has(t.gid));
        return;
      case 'decoding':
        for (const t of this.#transactions.values())
          if (!t.announced && t.database === event.database) t.since = event.now;
        return;
      case 'tick':
        for (const t of this.#transactions.values()) this.#onTick(t, event.now);
        return;
      default: {
        const transaction = this.#transactions.get(event.gid);
        if (transaction !== undefined) this.#dispatchTo(transaction, event);
      }
    }
  }

  #dispatchTo(t: Transaction, event: Exclude<Extract<CoordinatorEvent, { gid: Gid }>, { type: 'begin' }>): void {
    switch (event.type) {
      case 'prepared':
        t.prepared = true;
        t.since = t.sent = event.now;
        if (t.phase === 'aborting') this.#emit({ type: 'rollback-prepared', gid: t.gid, database: t.database });
        else t.phase = 'collecting';
        // It was named under an epoch that has ended since: nobody may vote for it.
        if (t.phase === 'collecting' && this.#members.get(this.#settings.self) !== t.parts.epoch)
          return this.#abort(t, reports.epochEnded(t.gid));
        return this.#advance(t, false);
      case 'announced':
        // Decoded again after a loss, it is not new to those who have voted.
        if (!t.announced) t.since = t.sent = event.now;
        t.announced = true;
        return;
      case 'progress':
        t.since = event.now;
        return;
      case 'prepare-failed':
        // Peers can have heard of it only if the server prepared it, so there is nobody to tell.
        this.#answer(t, { type: 'aborted', error: t.error ?? event.error });
        return this.#forget(t);
      case 'prepare-unknown':
        t.prepared = true;
        return t.phase === 'aborting'
          ? this.#emit({ type: 'rollback-prepared', gid: t.gid, database: t.database })
          : this.#abort(t, event.error);
      case 'vote':
        return this.#onVote(t, event.node, event.epoch, event.error);
      case 'abort':
        return this.#abort(t, event.error);
      case 'contended':
        return this.#onContended(t, event.by, event.table);
      case 'rolled-back':
        if (t.phase !== 'aborting') throw new Error(`${t.gid} was rolled back while ${t.phase}`);
        this.#answer(t, { type: 'aborted', error: t.error ?? reports.aborted(t.gid) });
        return this.#forget(t);
      case 'rejected':
        return this.#onRejected(t, event.term, event.attempt, event.reason);
      case 'decided':
        return this.#onDecided(t, event.index);
    }
  }

  #begin(event: Extract<CoordinatorEvent, { type: 'begin' }>): void {
    const parts = parseGid(event.gid);
    if (parts === undefined || this.#transactions.has(event.gid)) throw new Error(`cannot begin ${event.gid}`);
    const { gid, database, everywhere, dependsOn, now } = event;
    this.#transactions.set(gid, {
      gid,
      parts,
      database,
      everywhere,
      dependsOn,
      votes: new Map(),
      phase: 'preparing',
      prepared: false,
      announced: false,
      since: now,
      sent: now,
      begun: now,
      attempt: 0,
      suspected: false,
      answered: false,
      index: 0 as LogIndex,
      error: undefined,
    });
  }

  #onVote(t: Transaction, node: NodeId, epoch: Epoch, error: ErrorReport | undefined): void {
    if (error !== undefined) return this.#abort(t, error);
    t.votes.set(node, epoch);
    this.#advance(t, false);
  }

  /**
   * Proposes when nothing is missing; `again` when the former proposal's fate is unknown. That one is repeated even if a
   * vote is missing by now: either it is in the log, or its refusal brings the transaction back to collecting votes.
   */
  #advance(t: Transaction, again: boolean): void {
    const leader = this.#leader;
    if (leader === undefined || !t.prepared) return;
    const repeated = again && t.phase === 'proposing';
    if (!repeated && (t.phase !== 'collecting' || this.#missing(t).length > 0)) return;
    t.phase = 'proposing';
    t.attempt = ++this.#attempts;
    const votes: [NodeId, Epoch][] = [...t.votes];
    votes.push([this.#settings.self, t.parts.epoch]);
    this.#emit({
      type: 'propose',
      gid: t.gid,
      database: t.database,
      to: leader.node,
      term: leader.term,
      votes,
      dependsOn: t.dependsOn,
      notify: t.everywhere,
      attempt: t.attempt,
    });
  }

  /** The members whose vote under their present epoch is not here. The origin's own PREPARE is its vote. */
  #missing(t: Transaction): NodeId[] {
    const missing: NodeId[] = [];
    for (const [node, epoch] of this.#members) {
      const vote = node === this.#settings.self ? t.parts.epoch : t.votes.get(node);
      if (vote !== epoch) missing.push(node);
    }
    return missing;
  }

  #onRejected(t: Transaction, term: number, attempt: number | undefined, reason: Rejection): void {
    // Of several copies under way only the last one's refusal counts: one before it may yet be followed by a success.
    if (t.phase !== 'proposing' || this.#leader?.term !== term || attempt !== t.attempt) return;
    switch (reason.type) {
      case 'already-committed':
      case 'behind':
        return; // the log tells, or the proposal is made again once more of it has been read
      case 'votes-missing':
        // The leader knew the whole log and did not append: this proposal can never be found in it any more.
        t.phase = 'collecting';
        if (t.error !== undefined) this.#abort(t, t.error);
        return;
      case 'epoch-ended':
        t.phase = 'collecting';
        return this.#abort(t, t.error ?? reports.epochEnded(t.gid));
      default:
        throw new Error(`a COMMIT cannot be refused for ${reason.type}`);
    }
  }

  #onDecided(t: Transaction, index: LogIndex): void {
    if (t.phase === 'decided') return;
    if (t.phase === 'aborting' || !t.prepared) throw new Error(`I6 violated: COMMIT(${t.gid}) while ${t.phase}`);
    t.phase = 'decided';
    t.index = index;
    t.since = this.#now;
    this.#emit({ type: 'release', gid: t.gid });
    this.#settle(t);
  }

  #onCommitted(node: NodeId, index: LogIndex): void {
    if (index <= (this.#committed.get(node) ?? 0)) return;
    this.#committed.set(node, index);
    for (const t of this.#transactions.values()) if (t.phase === 'decided') this.#settle(t);
  }

  #settle(t: Transaction): void {
    const reached = (node: NodeId) => (this.#committed.get(node) ?? 0) >= t.index;
    if (!reached(this.#settings.self)) return;
    if (t.everywhere && ![...this.#members.keys()].every(reached)) return;
    this.#answer(t, { type: 'committed', index: t.index });
    this.#transactions.delete(t.gid);
  }

  #onMembers(members: Members): void {
    const before = this.#members;
    this.#members = new Map(members);
    for (const t of this.#transactions.values()) {
      if (t.phase === 'decided') {
        this.#settle(t);
      } else if (t.phase !== 'aborting' && members.get(this.#settings.self) !== t.parts.epoch) {
        // The log ended this epoch and has no COMMIT before: final, whatever was proposed.
        if (t.phase === 'proposing') t.phase = 'collecting';
        this.#abort(t, reports.epochEnded(t.gid));
      } else if (t.phase !== 'aborting') {
        for (const [node, epoch] of members) {
          if (node === this.#settings.self || before.get(node) === epoch) continue;
          this.#emit({ type: 'announce', gid: t.gid, to: node });
          if (t.phase === 'collecting') t.since = this.#now; // a vote asked for only now is not late yet
        }
        t.suspected = false;
        this.#advance(t, false);
      }
    }
  }

  /** A ROLLBACK PREPARED that was under way when PostgreSQL went down is repeated, or had been done. */
  #onRecovered(t: Transaction, isPrepared: boolean): void {
    if (t.phase !== 'aborting' || !t.prepared) return;
    if (isPrepared) this.#emit({ type: 'rollback-prepared', gid: t.gid, database: t.database });
    else this.#dispatchTo(t, { type: 'rolled-back', gid: t.gid });
  }

  #onContended(t: Transaction, by: Gid, table: string | undefined): void {
    const winner = parseGid(by);
    if (winner === undefined || comparePriority(winner, t.parts) > 0) return;
    this.#abort(t, reports.overruled(by, winner, table));
  }

  #abort(t: Transaction, error: ErrorReport): void {
    if (t.phase === 'decided' || t.phase === 'aborting') return;
    t.error ??= error;
    if (t.phase === 'proposing') return; // only the log decides now; a definitive rejection comes back to this error
    t.phase = 'aborting';
    t.since = this.#now;
    this.#emit({ type: 'tell-aborted', gid: t.gid });
    this.#emit({ type: 'release', gid: t.gid });
    if (t.prepared) this.#emit({ type: 'rollback-prepared', gid: t.gid, database: t.database });
  }

  #onTick(t: Transaction, now: number): void {
    const waited = now - t.since;
    if (now - t.sent >= this.#settings.resendAfter) {
      t.sent = now;
      if (t.phase === 'proposing') this.#advance(t, true);
      else if (t.phase === 'collecting') this.#announceToMissing(t);
    }
    const { voteTimeout, decisionTimeout } = this.#settings;
    // Were it given up before, a member that never votes would stay, and every transaction would end that way.
    if (t.phase === 'collecting' && t.announced && waited >= Math.min(voteTimeout, decisionTimeout) && !t.suspected) {
      t.suspected = true;
      for (const node of this.#missing(t)) {
        const epoch = this.#members.get(node);
        if (node !== this.#settings.self && epoch !== undefined)
          this.#emit({ type: 'suspect', node, epoch, gid: t.gid });
      }
    }
    // Usually its locks are gone when the client hears of it. PostgreSQL may be down, though, and the outcome is certain.
    if (t.phase === 'aborting' && waited >= this.#settings.resendAfter)
      this.#answer(t, { type: 'aborted', error: t.error ?? reports.aborted(t.gid) });
    if (waited < decisionTimeout) return;
    // In the log, and not committed here: so it must not be taken to be visible here.
    if (t.phase === 'decided') this.#answer(t, { type: 'unknown', error: reports.notHere(t.gid) });
    if (t.phase === 'collecting') this.#abort(t, t.announced ? reports.noMajority(t.gid) : reports.notDecoded(t.gid));
    else if (t.phase === 'proposing') this.#answer(t, { type: 'unknown', error: reports.unknown(t.gid) });
  }

  #announceToMissing(t: Transaction): void {
    for (const to of this.#missing(t)) if (to !== this.#settings.self) this.#emit({ type: 'announce', gid: t.gid, to });
  }

  #waitsFor(t: Transaction): string {
    switch (t.phase) {
      case 'preparing':
        return 'PREPARE TRANSACTION on this node';
      case 'collecting': {
        if (!t.announced) return 'its changes out of the WAL of this node';
        const missing = this.#missing(t);
        return missing.length > 0
          ? `the votes of nodes ${missing.sort((a, b) => a - b).join(', ')}`
          : 'a leader of the decision log';
      }
      case 'proposing':
        return 'the decision of a majority';
      case 'decided':
        return `the commit of log entry ${t.index}`;
      case 'aborting':
        return 'ROLLBACK PREPARED on this node';
    }
  }

  #answer(t: Transaction, outcome: CoordinatorOutcome): void {
    if (t.answered) return;
    t.answered = true;
    this.#emit({ type: 'answer', gid: t.gid, outcome });
  }

  #forget(t: Transaction): void {
    this.#transactions.delete(t.gid);
    this.#emit({ type: 'release', gid: t.gid });
  }

  #emit(effect: CoordinatorEffect): void {
    this.#effects.push(effect);
  }
}
