/** The referee among the voters of the random runs: its store in memory, and what each node's adapter remembers of it. */
import { nextStep, type RefereeMemory } from '../../../src/consensus/core/referee-setup.ts';
import { repliesTo, type LogPosition, type RefereeRequest } from '../../../src/consensus/core/referee.ts';
import type { Message } from '../../../src/consensus/core/messages.ts';
import type { LogIndex, NodeId } from '../../../src/runtime/ids.ts';
import { SafetyViolation } from './checker.ts';
import { RefereeModel } from './referee-model.ts';

const OWNER = 'test';
const FORGOTTEN: RefereeMemory = { id: null, term: 0, lastTerm: 0, lastIndex: 0 as LogIndex };

/** A request on its way, with the terms of the log that its position stands for. */
export interface Asked {
  readonly id: string;
  readonly request: RefereeRequest;
  readonly log: readonly number[];
}

export class RefereeVoter {
  readonly #model = new RefereeModel();
  readonly #keeper: NodeId;
  readonly #lease: number;
  /** Durable on each node. */
  readonly #memories = new Map<NodeId, RefereeMemory>();
  /** The memory that each node's adapter relies on; lost in a crash. */
  readonly #active = new Map<NodeId, string>();
  /** `term/index` → the terms of the log that ends there: the same whoever says so, if positions mean what they should. */
  readonly #logs = new Map<string, readonly number[]>([['0/0', []]]);
  readonly #forgotten: (readonly number[])[] = [];
  #made = 0;
  granted = 0;
  taken = 0;
  lost = 0;

  constructor(keeper: NodeId, lease: number) {
    this.#keeper = keeper;
    this.#lease = lease;
  }

  /** Null while the node must not rely on the referee. */
  ask(node: NodeId, request: RefereeRequest, log: readonly number[]): Asked | null {
    const id = this.#active.get(node);
    if (id === undefined) return null;
    if (request.op === 'lead' && request.index > 0) this.#note(request.term, request.index, log);
    return { id, request, log };
  }

  arrive(node: NodeId, { id, request }: Asked, now: number): Message[] {
    const { verdict, found } = this.#model.run(OWNER, { op: 'raft', id, node, request, lease: this.#lease }, now);
    // The adapter believes nothing that it hears after it has turned to another memory.
    if (verdict === 'foreign' || verdict === 'moved') {
      if (this.#active.get(node) === id) this.#active.delete(node);
      return [];
    }
    const memory = this.#memories.get(node) ?? FORGOTTEN;
    if (memory.id === id && this.#active.get(node) === id) this.#memories.set(node, found);
    if (request.op === 'vote' && verdict === 'yes') this.granted++;
    if (request.op === 'lead' && verdict === 'yes' && request.index > 0) this.taken++;
    return repliesTo(request, { verdict, term: found.term });
  }

  /** One step of setting up. `position` is where the node's log ends now. */
  maintain(node: NodeId, position: LogPosition, log: readonly number[]): void {
    const { found } = this.#model.run(OWNER, { op: 'look' });
    const memory = this.#memories.get(node) ?? FORGOTTEN;
    const step = nextStep(node === this.#keeper, memory, found);
    if (step !== 'ready') this.#active.delete(node);
    switch (step) {
      case 'create': {
        const id = `memory${++this.#made}`;
        this.#memories.set(node, { ...FORGOTTEN, id });
        this.#note(position.lastTerm, position.lastIndex, log);
        this.#model.run(OWNER, { op: 'create', id, replaces: found.id, position });
        return;
      }
      case 'join': {
        const id = found.id ?? '';
        this.#memories.set(node, FORGOTTEN);
        this.#note(position.lastTerm, position.lastIndex, log);
        if (this.#model.run(OWNER, { op: 'join', id, position }).verdict === 'yes')
          this.#memories.set(node, { ...FORGOTTEN, id });
        return;
      }
      case 'seal':
      case 'discard':
        this.#model.run(OWNER, { op: step, id: found.id ?? '' });
        return;
      case 'ready':
        this.#active.set(node, found.id ?? '');
        return;
      case 'wait':
        return;
    }
  }

  crash(node: NodeId): void {
    this.#active.delete(node);
  }

  /**
   * Everything in the store is gone. An acknowledgement that is on its way may still commit an entry, which then is on the leader's
   * disk alone: that is allowed, as no other memory counts before this leader has told it where its log ends.
   */
  lose(): void {
    this.lost++;
    this.#forgotten.push(this.#log());
    this.#model.clear();
  }

  /** Whether the log that the referee stands for has this entry, or had it when its memory was lost. */
  has(index: LogIndex, term: number): boolean {
    return [...this.#forgotten, this.#log()].some((log) => log[index - 1] === term);
  }

  #log(): readonly number[] {
    const { found } = this.#model.run(OWNER, { op: 'look' });
    return this.#logs.get(`${found.lastTerm}/${found.lastIndex}`) ?? [];
  }

  #note(term: number, index: number, log: readonly number[]): void {
    const key = `${term}/${index}`;
    const known = this.#logs.get(key);
    if (known !== undefined && known.join() !== log.join())
      throw new SafetyViolation(`two logs end at ${key}: ${known.join()} and ${log.join()}`);
    this.#logs.set(key, log);
  }
}
