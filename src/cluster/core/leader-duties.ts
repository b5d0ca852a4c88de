import type { Guard, Votes } from '../../commit/core/guard.ts';
import type { LogCommand, Rejection } from '../../commit/core/types.ts';
import { parseGid } from '../../commit/gid.ts';
import type { Epoch, LogIndex, NodeId } from '../../runtime/ids.ts';
import type { Beat } from '../messages.ts';

/** A node that is further behind is not let in: all commits would wait until it has caught up. */
export const ADMIT_WITHIN = 32;

/** Heartbeat timeouts for which a session may go on with its advisory locks when its node last knew to be a member. */
export const LOCK_LEASE = 2;
/** After as many, on the leader's clock, the locks of an ended epoch are given away: clocks may differ in speed by less than half. */
const FREE_LOCKS_AFTER = 3;

export interface LeaderSettings {
  readonly self: NodeId;
  readonly heartbeatTimeout: number;
  /** No EXCLUDE may leave fewer members than this. */
  readonly minimumMembers: number;
}

/**
 * What only the leader does: it holds proposals against everything its log contains, committed or not, and it excludes
 * members that are silent. Exists from the moment the leader's own no-op is committed until its term is over; at its birth
 * nothing uncommitted stands in the log, so the guard of the applied entries is the right start.
 */
export class LeaderDuties {
  readonly term: number;
  readonly #settings: LeaderSettings;
  readonly #overlay: Guard;
  /** Of each node, for commits and for locks: its newest epoch that proposed something here, and the last proposal. */
  readonly #proposed: Map<string, { readonly epoch: Epoch; readonly attempt: number }>;
  /** When each member was last seen taking part properly; monotonic milliseconds. */
  readonly #lastGood: Map<NodeId, number>;
  #born: number;
  /** When this leader first saw that an epoch had ended in which sessions hold locks. */
  readonly #orphanedAt = new Map<string, number>();

  /** `former` are the duties of the same term whose view of the log turned out wrong. */
  constructor(settings: LeaderSettings, term: number, applied: Guard, now: number, former?: LeaderDuties) {
    this.#settings = settings;
    this.term = term;
    this.#overlay = applied.clone();
    this.#born = former === undefined ? now : former.#born;
    this.#proposed = former === undefined ? new Map<string, never>() : former.#proposed;
    this.#lastGood = former === undefined ? new Map<NodeId, number>() : former.#lastGood;
  }

  /** Why this command must not be appended now; undefined if it may. */
  check(command: LogCommand, votes: Votes, asOf: LogIndex): Rejection | undefined {
    if (command.type === 'admit' && this.#overlay.index - asOf > ADMIT_WITHIN) return { type: 'behind' };
    return this.#overlay.check(command, votes, asOf, this.#settings.minimumMembers);
  }

  /**
   * Whether a later proposal of the same run was here before: it went another way, over a new connection. A proposer
   * takes the refusal of its last proposal as final, so one that it sent before must have no effect any more.
   */
  isOvertaken(command: LogCommand): boolean {
    const isLock = command.type === 'lock' || command.type === 'unlock';
    if ((command.type !== 'commit' && !isLock) || command.attempt === undefined) return false;
    const origin = isLock ? command : parseGid(command.gid);
    if (origin === undefined) return false;
    const { node, epoch } = origin;
    const proposer = `${node}${isLock ? ' locks' : ''}`;
    const last = this.#proposed.get(proposer);
    if (last !== undefined && (epoch < last.epoch || (epoch === last.epoch && command.attempt <= last.attempt)))
      return true;
    this.#proposed.set(proposer, { epoch, attempt: command.attempt });
    return false;
  }

  /** The command is appended next. Only this leader appends in its term, so the index is known beforehand. */
  append(command: LogCommand, now: number): LogIndex {
    const index = (this.#overlay.index + 1) as LogIndex;
    // Its silence as a member begins now, whatever it was before.
    if (command.type === 'admit') this.#lastGood.set(command.node, now);
    this.#overlay.apply(index, command);
    return index;
  }

  onBeat(from: NodeId, beat: Beat, now: number): void {
    if (beat.postgres && beat.epoch === this.#overlay.members.get(from)) this.#lastGood.set(from, now);
  }

  /** This node is a working member under this epoch: nobody sends itself a beat. */
  onOwnTick(epoch: Epoch, now: number): void {
    if (epoch === this.#overlay.members.get(this.#settings.self)) this.#lastGood.set(this.#settings.self, now);
  }

  /**
   * Members to exclude now: silent, without their PostgreSQL, or under an epoch that they do not know of, for longer than
   * `heartbeat.timeout`. The reason is for operators.
   */
  overdue(now: number): { node: NodeId; epoch: Epoch; reason: string }[] {
    const overdue: { node: NodeId; epoch: Epoch; reason: string }[] = [];
    for (const [node, epoch] of this.#overlay.members) {
      const silent = now - Math.max(this.#lastGood.get(node) ?? 0, this.#born);
      if (silent >= this.#settings.heartbeatTimeout) {
        overdue.push({ node, epoch, reason: `no sign of life as a member for ${Math.round(silent)} ms` });
      }
    }
    return overdue;
  }

  /**
   * Ended epochs whose locks may be given away now: so long after their end was seen in the log that no session of theirs is left
   * (LOCK_LEASE). `now` must be a clock reading taken after `applied` came to be.
   */
  freeable(applied: Guard, now: number): { node: NodeId; epoch: Epoch }[] {
    const orphans = applied.orphans();
    const keys = new Set(orphans.map(({ node, epoch }) => `${node}/${epoch}`));
    for (const key of this.#orphanedAt.keys()) if (!keys.has(key)) this.#orphanedAt.delete(key);
    return orphans.filter(({ node, epoch }) => {
      const key = `${node}/${epoch}`;
      const since = this.#orphanedAt.get(key);
      if (since === undefined) this.#orphanedAt.set(key, now);
      return since !== undefined && now - since >= FREE_LOCKS_AFTER * this.#settings.heartbeatTimeout;
    });
  }

  epochOf(node: NodeId): Epoch | undefined {
    return this.#overlay.members.get(node);
  }
}
