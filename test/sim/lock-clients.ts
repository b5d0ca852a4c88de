import type { LockAnswer, LockEffect } from '../../src/cluster/core/lock-agent.ts';
import type { PeerMessage } from '../../src/cluster/messages.ts';
import type { ReadAnswer } from '../../src/consensus/core/types.ts';
import type { LogIndex } from '../../src/runtime/ids.ts';
import type { SimNode } from './node.ts';
import { Violation } from './trace.ts';

/** The lock that the end of a run is about; load does not use it. */
const LAST = 'app:last';
/** Milliseconds. */
const DEADLOCK_TIMEOUT = 10;

/** One client that takes advisory locks and lets go of them, one session after the other. */
class LockClient {
  readonly #node: SimNode;
  readonly #name: string;
  readonly #sessionNumber: () => number;
  readonly #neighbours: () => readonly LockClient[];
  session = 0;
  /** What it believes to hold: true for shared. */
  readonly held = new Map<string, boolean>();
  #asked: { readonly lock: string; readonly shared: boolean; readonly wait: boolean } | undefined;
  /** It waits in PostgreSQL for a row that this one has changed. */
  waitsFor: LockClient | undefined;
  /** What it does when its request has been answered. */
  #then: ((answer: LockAnswer['type']) => void) | undefined;
  #life = 0;

  constructor(
    node: SimNode,
    number: number,
    { sessionNumber, neighbours }: { sessionNumber: () => number; neighbours: () => readonly LockClient[] },
  ) {
    this.#neighbours = neighbours;
    this.#node = node;
    this.#name = `l${node.id}${number}`;
    this.#sessionNumber = sessionNumber;
  }

  get busy(): boolean {
    return this.session !== 0;
  }

  get waits(): boolean {
    return this.#asked?.wait === true;
  }

  think(): void {
    const { world } = this.#node;
    // Entries of theirs must not make up most of the log, which short ones cannot keep.
    this.#after(world.rng.wait(4 * world.settings.thinkTime), () => {
      if (!world.acceptsWork) return;
      if (this.#node.core.refusal !== undefined) return this.think();
      this.#begin();
      this.#acquire(1 + world.rng.below(3));
    });
  }

  #begin(): void {
    this.session = this.#sessionNumber();
    this.#life++;
  }

  #after(delay: number, act: () => void): void {
    const life = ++this.#life;
    this.#node.world.loop.in(this.#node.process, delay, () => {
      if (life === this.#life) act();
    });
  }

  /** Several locks in any order, so that some close a circle. */
  #acquire(count: number): void {
    const { rng, settings } = this.#node.world;
    const lock = `app:${rng.below(settings.hotKeys + 1)}`;
    // PostgreSQL counts what a session has already; the cluster is not asked again.
    if (count === 0 || this.held.has(lock)) return this.#hold();
    const life = this.#life;
    this.ask(lock, rng.chance(0.3), rng.chance(0.7), (answer) => {
      if (answer === 'granted') this.#after(rng.between(0.1, 2), () => this.#acquire(count - 1));
      else this.#hold();
    });
    // A timeout, or the user's wish.
    if (this.#asked !== undefined && rng.chance(0.15))
      this.#node.world.loop.in(this.#node.process, rng.wait(30), () => {
        if (life === this.#life && this.#asked !== undefined) this.#withdraw();
      });
  }

  ask(lock: string, shared: boolean, wait: boolean, then: (answer: LockAnswer['type']) => void): void {
    this.#asked = { lock, shared, wait };
    this.#then = then;
    this.#node.world.count(wait ? 'locks asked for' : 'locks tried');
    this.#node.feed({ type: 'lock-request', request: { type: 'acquire', session: this.session, lock, shared, wait } });
  }

  #withdraw(): void {
    this.#node.world.count('locks withdrawn');
    this.#asked = this.#then = undefined;
    this.#node.feed({ type: 'lock-request', request: { type: 'withdraw', session: this.session } });
    this.#hold();
  }

  #hold(): void {
    const { rng } = this.#node.world;
    this.#after(rng.wait(20), () => {
      if (rng.chance(0.3) && this.held.size > 0) return this.#change();
      if (rng.chance(0.4) || this.held.size === 0) return this.end();
      const locks = [...this.held].slice(0, 1 + rng.below(this.held.size));
      for (const [lock] of locks) this.held.delete(lock);
      this.#then = () => this.#hold();
      this.#node.feed({ type: 'lock-request', request: { type: 'release', session: this.session, locks } });
    });
  }

  /** Wants a row of a session that waits for an advisory lock, if there is one: until that one's transaction is over. */
  #change(): void {
    const { rng } = this.#node.world;
    const others = this.#neighbours().filter((one) => one !== this && one.waits);
    if (others.length === 0) return this.#hold();
    this.waitsFor = rng.pick(others);
    this.#node.world.count('locks waited for in PostgreSQL');
    const [other, { session }] = [this.waitsFor, this.waitsFor];
    const look = (): void =>
      this.#after(1, () => {
        if (other.waits && other.session === session) return look();
        this.waitsFor = undefined;
        this.#hold();
      });
    look();
  }

  answer(answer: LockAnswer): void {
    const { world } = this.#node;
    if (answer.type === 'granted' && this.#node.now >= answer.until) {
      world.count('locks granted late');
      return this.#node.feed({ type: 'lock-late', session: this.session });
    }
    world.count(`locks ${answer.type}${answer.type === 'failed' ? ` ${answer.error.sqlstate}` : ''}`);
    world.note(this.#name, `${answer.type} ${JSON.stringify(this.#asked ?? {})}`);
    if (answer.type === 'granted') this.held.set(this.#asked!.lock, this.#asked!.shared);
    const then = this.#then;
    this.#asked = this.#then = undefined;
    then?.(answer.type);
  }

  /** The session is told that it is over. */
  lost(reason: string): void {
    this.#node.world.count(reason.startsWith('it has not heard') ? 'lock leases over' : 'lock sessions ended');
    this.#node.world.note(this.#name, `ended: ${reason}`);
    this.gone();
    this.think();
  }

  end(): void {
    const { session } = this;
    this.gone();
    this.#node.feed({ type: 'lock-request', request: { type: 'close', session } });
    this.think();
  }

  /** It believes nothing any more. */
  gone(): void {
    this.#life++;
    this.waitsFor = undefined;
    this.session = 0;
    this.held.clear();
    this.#asked = this.#then = undefined;
  }

  /** For the end of a run. */
  takeLast(): void {
    this.#begin();
    this.#askForLast();
  }

  /** Again and again, as it may fail while nobody leads. */
  #askForLast(): void {
    this.ask(LAST, false, true, (answer) => {
      if (answer === 'failed') this.#after(50, () => this.#askForLast());
    });
  }

  get hasLast(): boolean {
    return this.held.has(LAST);
  }
}

/** All sessions of one node that use advisory locks, and what its proxy does for them beside the core. */
export class LockClients {
  readonly #node: SimNode;
  readonly #clients: LockClient[];
  #sessions = 0;
  #questions = 0;
  /** Questions for the read index under way: when they were asked. */
  readonly #asked = new Map<number, number>();
  /** As the leader: whose questions Raft has not answered. */
  readonly #reads = new Map<number, { readonly from: number; readonly id: number }>();

  constructor(node: SimNode) {
    this.#node = node;
    this.#clients = Array.from(
      { length: node.world.settings.lockClientsPerNode + 1 },
      (_, i) =>
        new LockClient(node, i, { sessionNumber: () => ++this.#sessions, neighbours: () => this.#clients.slice(1) }),
    );
  }

  start(): void {
    for (const client of this.#clients.slice(1)) client.think();
    this.#look();
  }

  /** What the proxy does when deadlock_timeout is over, for all who wait. */
  #look(): void {
    this.#node.world.loop.in(this.#node.process, DEADLOCK_TIMEOUT, () => {
      for (const client of this.#clients) {
        if (!client.waits) continue;
        const blocks = this.#clients.filter(({ waitsFor }) => waitsFor === client).map(({ session }) => session);
        this.#node.feed({ type: 'lock-request', request: { type: 'blocks', session: client.session, blocks } });
      }
      this.#look();
    });
  }

  /** The proxy died. */
  lost(): void {
    for (const client of this.#clients) client.gone();
    this.#asked.clear();
    this.#reads.clear();
  }

  get busy(): boolean {
    return this.#clients.some((client) => client.busy);
  }

  /** Used by nobody but `#loseOne`. */
  get last(): LockClient {
    return this.#clients[0];
  }

  /** Calls back for what clients believe to hold, as long as the proxy acts for them: a paused one looks at its clock before it goes on. */
  believed(each: (lock: string, shared: boolean, session: number) => void): void {
    if (this.#clients.every(({ held }) => held.size === 0)) return;
    const { process, core, now } = this.#node;
    if (!process.alive) return;
    const isOver = Number.isFinite(core.lockLeaseEnd) && now >= core.lockLeaseEnd;
    if (isOver) return;
    for (const { held, session } of this.#clients) for (const [lock, shared] of held) each(lock, shared, session);
  }

  perform(effect: LockEffect): void {
    switch (effect.type) {
      case 'lock-answer':
        this.#clients.find(({ session }) => session === effect.session)?.answer(effect.answer);
        return;
      case 'locks-lost':
        this.#clients.find(({ session }) => session === effect.session)?.lost(effect.reason);
        return;
      case 'confirm-locks':
        return this.#confirm(effect.sentAt);
    }
  }

  // ---- the read index

  #confirm(sentAt: number): void {
    const { leader } = this.#node.raft;
    if (leader === null) return;
    const id = ++this.#questions;
    this.#asked.set(id, sentAt);
    if (leader === this.#node.id) this.#read(leader, id);
    else this.#node.send(leader, { t: 'read-index', id });
  }

  #read(from: number, id: number): void {
    const context = ++this.#questions;
    this.#reads.set(context, { from, id });
    this.#node.stepRaft({ type: 'readIndex', context });
  }

  onRead(answer: ReadAnswer): void {
    const read = this.#reads.get(answer.context);
    this.#reads.delete(answer.context);
    if (read === undefined || !answer.ok) return;
    if (read.from === (this.#node.id as number)) this.#answered(read.id, answer.index);
    else this.#node.send(read.from as SimNode['id'], { t: 'read-index-is', id: read.id, index: answer.index });
  }

  onMessage(from: number, message: Extract<PeerMessage, { t: 'read-index' | 'read-index-is' }>): void {
    if (message.t === 'read-index') this.#read(from, message.id);
    else if (message.index !== undefined) this.#answered(message.id, message.index);
  }

  #answered(id: number, index: LogIndex): void {
    const sentAt = this.#asked.get(id);
    this.#asked.delete(id);
    if (sentAt !== undefined) this.#node.feed({ type: 'locks-confirmed', sentAt, index });
  }
}

/** No two sessions believe at one time to hold locks that exclude each other. Looked at after every step. */
export function checkLocks(nodes: readonly SimNode[]): void {
  const seen = new Map<string, { readonly shared: boolean; readonly session: number; readonly node: number }>();
  for (const node of nodes) {
    node.locks.believed((lock, shared, session) => {
      const other = seen.get(lock);
      if (other !== undefined && !(shared && other.shared))
        throw new Violation(
          'advisory locks',
          `sessions ${other.session} of node ${other.node} and ${session} of node ${node.id} both hold "${lock}"`,
        );
      seen.set(lock, { shared, session, node: node.id });
    });
  }
}
