/**
 * Runs a Raft core: hands it events one at a time and carries out what it asks. Thin on purpose: every decision is the
 * core's. Ticks and messages come from outside; storage and transport are interfaces, so that a simulator can drive this.
 *
 * Storage is never waited for. While a sync runs, further events are stepped, and what they ask storage to keep shares
 * the next sync. What must not be said before it is durable the core holds back itself.
 */
import type { LogIndex, NodeId } from '../runtime/ids.ts';
import type { Message } from './core/messages.ts';
import { RaftCore } from './core/raft-core.ts';
import type {
  Effects,
  Entry,
  Leadership,
  PersistBatch,
  ProposalAnswer,
  RaftConfig,
  RaftEvent,
  ReadAnswer,
  RejectReason,
  Restored,
  Role,
  Snapshot,
} from './core/types.ts';
import type { Storage } from './log-store.ts';

/** What the layer above is told, in the order it happened. A handler may call the node again; none may throw. */
export interface RaftHandlers {
  /** The state machine is to be replaced: at start, if there is a snapshot, and when the leader sent one. */
  install(snapshot: Snapshot): void;
  /** Committed and durable here; in order, each entry once per run, no-ops included. */
  committed(entries: readonly Entry[]): void;
  leadership(leadership: Leadership): void;
  /** The node has stopped for good: storage failed or an invariant broke. The process must be restarted. */
  failed(error: Error): void;
}

export interface RaftNodeOptions {
  readonly config: RaftConfig;
  readonly restored: Restored;
  readonly storage: Storage;
  /** May lose messages and must not wait. Messages hold references into the log and must not be changed. */
  readonly send: (to: NodeId, message: Message) => void;
  readonly handlers: RaftHandlers;
}

export interface RaftStatus {
  readonly id: NodeId;
  readonly role: Role;
  readonly term: number;
  readonly leader: NodeId | null;
  readonly ready: boolean;
  readonly commitIndex: LogIndex;
  readonly deliveredIndex: LogIndex;
  readonly durableIndex: LogIndex;
  readonly firstIndex: LogIndex;
  readonly lastIndex: LogIndex;
  readonly lastTerm: number;
  readonly snapshotIndex: LogIndex;
}

/** A read index could not be had here; nothing was changed, so it may be asked for again. */
export class ReadRefused extends Error {
  readonly reason: RejectReason;
  readonly leader: NodeId | null;

  constructor(reason: RejectReason, leader: NodeId | null) {
    super(`no read index: ${reason}`);
    this.name = 'ReadRefused';
    this.reason = reason;
    this.leader = leader;
  }
}

interface PendingRead {
  readonly resolve: (index: LogIndex) => void;
  readonly reject: (error: Error) => void;
}

export class RaftNode {
  readonly #core: RaftCore;
  readonly #options: RaftNodeOptions;
  #state: 'new' | 'running' | 'ended' = 'new';
  /** Effects not yet carried out. More than one only while a handler calls the node. */
  #effects: Effects[] = [];
  #carryingOut = false;
  /** The highest request that storage confirmed and the core hasn't been told of; 0 if there is none. */
  #confirmed = 0;
  #reads = new Map<number, PendingRead>();
  #nextRead = 1;

  constructor(options: RaftNodeOptions) {
    this.#options = options;
    this.#core = new RaftCore(options.config, options.restored);
  }

  start(): void {
    if (this.#state !== 'new') throw new Error('a raft node starts once');
    this.#state = 'running';
    const { restored, handlers } = this.#options;
    if (restored.snapshot !== null) handlers.install(restored.snapshot);
  }

  /** Stops without handing over; see `transferLeadership`. Storage finishes what it was asked. */
  async stop(): Promise<void> {
    if (this.#state === 'ended') return;
    this.#end();
    await this.#options.storage.close();
  }

  /**
   * One unit of electionTicks and heartbeatTicks. Ticks that a stalled process missed must not be made up for: a leader
   * would count them as silence of its followers before it has read their messages.
   */
  tick(): void {
    this.#step({ type: 'tick' });
  }

  /** Keeps the payloads of its entries: they must not be views into a receive buffer that is large or used again. */
  receive(from: NodeId, message: Message): void {
    this.#step({ type: 'message', from, message });
  }

  /**
   * Answered at once. Accepted means appended, not committed: the entry is committed if `committed` brings one with this
   * index and term, and lost if it brings another one with this index. `payload` must not be changed afterwards. A
   * handler's `committed` never runs before this returns with the index of a proposal made in it.
   */
  propose(payload: Uint8Array, expectedTerm: number): ProposalAnswer {
    const answer = this.#step({ type: 'propose', payload, expectedTerm })?.proposal ?? null;
    if (answer !== null) return answer;
    return { accepted: false, reason: 'not-leader', term: this.#core.term, leader: null, definitive: false };
  }

  /** Rejects with ReadRefused if this node can't be sure that it leads. Pending as long as that is open. */
  readIndex(): Promise<LogIndex> {
    return new Promise((resolve, reject) => {
      const context = this.#nextRead++;
      this.#reads.set(context, { resolve, reject });
      if (this.#step({ type: 'readIndex', context }) !== null) return;
      this.#reads.delete(context);
      reject(new ReadRefused('not-leader', null));
    });
  }

  /** `state` is the state machine after the entry at `index`, which has been delivered. */
  compact(index: LogIndex, state: Uint8Array): void {
    this.#step({ type: 'compact', index, state });
  }

  transferLeadership(to: NodeId): void {
    this.#step({ type: 'transferLeadership', to });
  }

  campaign(): void {
    this.#step({ type: 'campaign' });
  }

  /** To be called when it is durable that this voter's memory counts. */
  counts(): void {
    this.#step({ type: 'counts' });
  }

  /** Entries in memory, both ends included; appended ones too, which may still be replaced. */
  entries(from: LogIndex, to: LogIndex): readonly Entry[] {
    return this.#core.entries(from, to);
  }

  get status(): RaftStatus {
    const { id, role, term, leader, ready, commitIndex, deliveredIndex, durableIndex } = this.#core;
    const { firstIndex, lastIndex, lastTerm, snapshot } = this.#core;
    const snapshotIndex = snapshot?.index ?? (0 as LogIndex);
    return {
      ...{ id, role, term, leader, ready, commitIndex, deliveredIndex, durableIndex },
      ...{ firstIndex, lastIndex, lastTerm, snapshotIndex },
    };
  }

  #step(event: RaftEvent): Effects | null {
    if (this.#state !== 'running') return null;
    let effects: Effects;
    try {
      effects = this.#core.step(event);
    } catch (error) {
      this.#fail(error);
      return null;
    }
    this.#effects.push(effects);
    if (!this.#carryingOut) this.#carryOutAll();
    return effects;
  }

  #carryOutAll(): void {
    this.#carryingOut = true;
    try {
      for (let next = this.#effects.shift(); next !== undefined; next = this.#effects.shift()) this.#carryOut(next);
    } catch (error) {
      this.#fail(error);
    } finally {
      this.#carryingOut = false;
    }
  }

  #carryOut(effects: Effects): void {
    const { storage, send, handlers } = this.#options;
    if (effects.persist !== null) this.#persist(effects.persist);
    if (effects.compact !== null) storage.compact(effects.compact).catch((error: unknown) => this.#fail(error));
    for (const { to, message } of effects.messages) send(to, message);
    if (effects.install !== null) handlers.install(effects.install);
    if (effects.committed.length > 0) handlers.committed(effects.committed);
    if (effects.leadership !== null) handlers.leadership(effects.leadership);
    for (const read of effects.reads) this.#answer(read);
  }

  #persist(batch: PersistBatch): void {
    this.#options.storage.append(batch).then(
      () => this.#persisted(batch.seq),
      (error: unknown) => this.#fail(error),
    );
  }

  /** One sync confirms many requests in one turn; the core is told once, and says what follows from them once. */
  #persisted(seq: number): void {
    const first = this.#confirmed === 0;
    this.#confirmed = seq;
    if (!first) return;
    queueMicrotask(() => {
      const confirmed = this.#confirmed;
      this.#confirmed = 0;
      this.#step({ type: 'persisted', seq: confirmed });
    });
  }

  #answer(answer: ReadAnswer): void {
    const read = this.#reads.get(answer.context);
    this.#reads.delete(answer.context);
    if (answer.ok) read?.resolve(answer.index);
    else read?.reject(new ReadRefused(answer.reason, answer.leader));
  }

  #fail(error: unknown): void {
    if (this.#state === 'ended') return;
    this.#end();
    this.#options.handlers.failed(error instanceof Error ? error : new Error(String(error)));
  }

  #end(): void {
    this.#state = 'ended';
    this.#effects = [];
    for (const read of this.#reads.values()) read.reject(new ReadRefused('not-leader', null));
    this.#reads.clear();
  }
}
