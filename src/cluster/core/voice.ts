import { VoterStanding, type Memory, type StandingMessage } from '../../consensus/core/standing.ts';
import type { NodeId } from '../../runtime/ids.ts';
import type { NodeEffect } from './types.ts';

/** Sees to it that this node's voice in the decision log's elections counts; the rules are those of standing.ts. */
export class Voice {
  readonly #self: NodeId;
  readonly #voters: readonly NodeId[];
  readonly #emit: (effect: NodeEffect) => void;
  /** Undefined until this node's log is known to be its own: it neither asks nor answers before that. */
  #standing: VoterStanding | undefined;

  constructor(self: NodeId, voters: readonly NodeId[], emit: (effect: NodeEffect) => void) {
    this.#self = self;
    this.#voters = voters;
    this.#emit = emit;
  }

  /** Why it does not count, for operators; undefined if it does, or is not used yet. */
  get problem(): string | undefined {
    return this.#standing?.problem;
  }

  begin(memory: Memory): void {
    this.#standing = new VoterStanding(this.#self, this.#voters, memory);
    if (this.#standing.begin()) this.#counts();
  }

  /** The log has let this voter in with that memory, if any. */
  read(memory: string | undefined): void {
    if (this.#standing?.onLetIn(memory) === true) this.#counts();
  }

  onMessage(from: NodeId, message: StandingMessage): void {
    const standing = this.#standing;
    if (standing === undefined) return;
    if (message.t === 'memories') {
      const answer = standing.answer(from, message.known);
      if (answer !== undefined) this.#send(from, answer);
      return;
    }
    const next = standing.onAnswer(from, message);
    if (next === 'counts') this.#counts();
    else if (next === 'ask') this.ask(undefined);
  }

  /** Whether a cluster begins now is asked of the others; to be let into one that has begun, of whoever leads it. */
  ask(leader: NodeId | undefined): void {
    for (const voter of this.#voters) this.askOne(voter);
    const standing = this.#standing;
    if (standing === undefined || standing.counts || leader === undefined) return;
    this.#send(leader, { t: 'let-in', memory: standing.memory.name });
  }

  askOne(voter: NodeId): void {
    const question = this.#standing?.question;
    if (question !== undefined && voter !== this.#self) this.#send(voter, question);
  }

  #counts(): void {
    this.#emit({ type: 'counts', founders: this.#standing!.memory.founders });
  }

  #send(to: NodeId, message: Extract<NodeEffect, { type: 'send' }>['message']): void {
    this.#emit({ type: 'send', to, message });
  }
}
