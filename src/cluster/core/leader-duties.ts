import type { Guard, Votes } from '../../commit/core/guard.ts';
import type { LogCommand, Rejection } from '../../commit/core/types.ts';
import type { Epoch, LogIndex, NodeId } from '../../runtime/ids.ts';
import type { Beat } from '../messages.ts';

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
  /** When each member was last seen taking part properly; monotonic milliseconds. */
  readonly #lastGood = new Map<NodeId, number>();
  #born: number;

  constructor(settings: LeaderSettings, term: number, applied: Guard, now: number) {
    this.#settings = settings;
    this.term = term;
    this.#overlay = applied.clone();
    this.#born = now;
  }

  /** Why this command must not be appended now; undefined if it may. */
  check(command: LogCommand, votes: Votes, asOf: LogIndex): Rejection | undefined {
    return this.#overlay.check(command, votes, asOf, this.#settings.minimumMembers);
  }

  /** The command is appended next. Only this leader appends in its term, so the index is known beforehand. */
  append(command: LogCommand): LogIndex {
    const index = (this.#overlay.index + 1) as LogIndex;
    this.#overlay.apply(index, command);
    return index;
  }

  onBeat(from: NodeId, beat: Beat, now: number): void {
    if (beat.postgres && beat.epoch === this.#overlay.members.get(from)) this.#lastGood.set(from, now);
  }

  /**
   * Members to exclude now: silent, without their PostgreSQL, or under an epoch that they do not know of, for longer than
   * `heartbeat.timeout`. The reason is for operators.
   */
  overdue(now: number): { node: NodeId; epoch: Epoch; reason: string }[] {
    const overdue: { node: NodeId; epoch: Epoch; reason: string }[] = [];
    for (const [node, epoch] of this.#overlay.members) {
      if (node === this.#settings.self) continue;
      const silent = now - Math.max(this.#lastGood.get(node) ?? 0, this.#born);
      if (silent >= this.#settings.heartbeatTimeout) {
        overdue.push({ node, epoch, reason: `no sign of life as a member for ${Math.round(silent)} ms` });
      }
    }
    return overdue;
  }

  epochOf(node: NodeId): Epoch | undefined {
    return this.#overlay.members.get(node);
  }
}
