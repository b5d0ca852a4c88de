import type { Guard } from '../../commit/core/guard.ts';
import type { LogCommand } from '../../commit/core/types.ts';
import type { Epoch, LogIndex, NodeId } from '../../runtime/ids.ts';
import type { PeerMessage } from '../messages.ts';
import { LeaderDuties } from './leader-duties.ts';
import type { NodeEffect, NodeEvent, NodeSettings } from './types.ts';

type Proposal = Extract<PeerMessage, { t: 'propose' }>;
type Reason = Extract<PeerMessage, { t: 'rejected' }>['reason'];

export interface ProposalsView {
  /** What this node has read of the log. */
  readonly guard: () => Guard;
  /** Up to where without a hole: what a proposal may claim. */
  readonly readUpTo: () => LogIndex;
  readonly now: () => number;
  /** Wall-clock milliseconds, to be written down. */
  readonly wall: () => number;
  readonly emit: (effect: NodeEffect) => void;
  readonly rejected: (term: number, command: LogCommand, reason: Reason) => void;
}

/**
 * How commands come into the decision log: they are proposed to whoever leads, and a node that leads checks and appends them (leader-duties.ts). Its
 * own take the same way.
 */
export class Proposals {
  readonly #settings: NodeSettings;
  readonly #view: ProposalsView;
  #leader: { readonly node: NodeId; readonly term: number } | undefined;
  #duties: LeaderDuties | undefined;
  /** Raft refused an entry although this node may still lead: the last index before it, and that term. */
  #refusedAfter: { readonly index: LogIndex; readonly duties: LeaderDuties } | undefined;

  constructor(settings: NodeSettings, view: ProposalsView) {
    this.#settings = settings;
    this.#view = view;
  }

  /** Undefined while none is known, or this node leads and has not read all that was committed before. */
  get leader(): { readonly node: NodeId; readonly term: number } | undefined {
    return this.#leader;
  }

  /** As the leader. */
  get duties(): LeaderDuties | undefined {
    return this.#duties;
  }

  // ---- leadership

  onLeadership({ leader, term, ready }: Extract<NodeEvent, { type: 'leadership' }>): void {
    const isSelf = leader === this.#settings.self;
    this.#leader = leader === null || (isSelf && !ready) ? undefined : { node: leader, term };
    if (!isSelf || !ready) this.#duties = undefined;
    else if (this.#duties?.term !== term)
      this.#duties = new LeaderDuties(this.#settings, term, this.#view.guard(), this.#view.now());
  }

  /**
   * Raft does not lead any more, which it tells next; or it has too much under way. Its log lacks what the duties' view of
   * it has, so that view is of no use; a new one can be had when all that was appended before is applied.
   */
  onAppendRefused(index: LogIndex | undefined): void {
    const duties = this.#duties;
    if (duties === undefined) return;
    this.#duties = undefined;
    if (index === undefined) return;
    this.#refusedAfter = { index: (index - 1) as LogIndex, duties };
    this.resumeDuties();
  }

  /** More of the log is applied. */
  resumeDuties(): void {
    const refused = this.#refusedAfter;
    const guard = this.#view.guard();
    if (refused === undefined || guard.index < refused.index) return;
    this.#refusedAfter = undefined;
    const { node, term } = this.#leader ?? {};
    if (node !== this.#settings.self || term !== refused.duties.term) return;
    this.#duties = new LeaderDuties(this.#settings, term, guard, this.#view.now(), refused.duties);
  }

  // ---- proposals

  propose(to: NodeId, term: number, command: LogCommand, votes: readonly (readonly [NodeId, Epoch])[] = []): void {
    const message: Proposal = { t: 'propose', term, command, votes, asOf: this.#view.readUpTo() };
    if (to === this.#settings.self) this.onProposal(to, message);
    else this.#view.emit({ type: 'send', to, message });
  }

  /** To whoever leads; nothing while nobody does. */
  proposeToLeader(command: LogCommand): void {
    if (this.#leader !== undefined) this.propose(this.#leader.node, this.#leader.term, command);
  }

  onProposal(from: NodeId, { term, command, votes, asOf }: Proposal): void {
    const duties = this.#duties;
    // Anything but the leader of that very term says nothing: the sender asks again when it knows better.
    if (duties === undefined || duties.term !== term || duties.isOvertaken(command)) return;
    const reason = duties.check(command, new Map(votes), asOf);
    if (reason === undefined)
      this.#view.emit({ type: 'append', term, index: duties.append(command, this.#view.now()), command });
    else if (reason.type === 'already-committed') return;
    else if (from === this.#settings.self) this.#view.rejected(term, command, reason);
    else this.#view.emit({ type: 'send', to: from, message: { t: 'rejected', term, command, reason } });
  }

  // ---- what a leader proposes by itself, or for others

  #lead(command: LogCommand): void {
    if (this.#duties !== undefined) this.propose(this.#settings.self, this.#duties.term, command);
  }

  /** A voter has a new memory. */
  letIn(node: NodeId, memory: string): void {
    if (!this.#settings.voters.includes(node)) return;
    this.#lead({ type: 'voter', node, memory, time: this.#view.wall() });
  }

  exclude(node: NodeId, epoch: Epoch, reason: string, slow: boolean): void {
    if (this.#duties?.epochOf(node) !== epoch) return;
    this.#lead({ type: 'exclude', node, epoch, reason, time: this.#view.wall(), slow });
  }

  /** Asks the leader to exclude a member, or does it. */
  suspect(node: NodeId, epoch: Epoch, reason: string, slow: boolean): void {
    if (this.#duties !== undefined) this.exclude(node, epoch, reason, slow);
    else if (this.#leader !== undefined)
      this.#view.emit({
        type: 'send',
        to: this.#leader.node,
        message: { t: 'suspect', node, epoch, reason, slow },
      });
  }

  /** Excludes silent members, and frees the locks of epochs whose sessions must have heard of their end. */
  tick(now: number): void {
    for (const { node, epoch, reason } of this.#duties?.overdue(now) ?? []) this.exclude(node, epoch, reason, false);
    for (const { node, epoch } of this.#duties?.freeable(this.#view.guard(), now) ?? [])
      this.#lead({ type: 'free-locks', node, epoch });
  }
}
