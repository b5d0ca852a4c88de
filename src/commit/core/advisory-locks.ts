import type { Epoch, NodeId } from '../../runtime/ids.ts';
import type { LogCommand } from './types.ts';

export type LockCommand = Extract<LogCommand, { type: 'lock' | 'unlock' }>;
export type LockWaits = Extract<LogCommand, { type: 'lock-waits' }>;

/** One lock, for operators. */
export interface LockStatus {
  /** Database and key. */
  readonly lock: string;
  readonly holders: readonly LockParty[];
  /** In the order in which they get it. */
  readonly waiters: readonly LockParty[];
}

interface LockParty {
  readonly node: NodeId;
  /** The node's own number of the session. */
  readonly session: number;
  readonly mode: 'ExclusiveLock' | 'ShareLock';
}

/** What became of a LOCK, by this entry or by a later one. */
export interface LockOutcome {
  readonly node: NodeId;
  readonly epoch: Epoch;
  readonly session: number;
  readonly request: number;
  readonly result: 'granted' | 'denied' | 'deadlock';
  /** Of a deadlock: who waits for whom, for the client. */
  readonly detail?: string;
}

type SessionRow = readonly [node: NodeId, epoch: Epoch, session: number, last: number, held: readonly HeldRow[]];
type HeldRow = readonly [lock: string, exclusive: boolean, shared: boolean];
type WaiterRow = readonly [node: NodeId, epoch: Epoch, session: number, request: number, shared: boolean];
type BlockedRow = readonly [node: NodeId, epoch: Epoch, session: number, blocker: number, request: number];

export interface AdvisoryLocksSnapshot {
  readonly sessions: readonly SessionRow[];
  readonly queues: readonly (readonly [lock: string, waiters: readonly WaiterRow[]])[];
  readonly blocked?: readonly BlockedRow[];
}

interface Held {
  exclusive: boolean;
  shared: boolean;
}

interface Session {
  readonly node: NodeId;
  readonly epoch: Epoch;
  readonly session: number;
  /** The newest request that the log has: a copy of it, or an older one, changes nothing. */
  last: number;
  /** By the lock's name. */
  readonly held: Map<string, Held>;
  waiter: Waiter | undefined;
  /**
   * Sessions of the same node whose transactions it waits for in PostgreSQL, and by which requests they wait here themselves: what was said
   * of a request that is over does not count.
   */
  readonly blockers: Map<Session, number>;
}

interface Waiter {
  readonly session: Session;
  readonly request: number;
  readonly lock: string;
  readonly shared: boolean;
}

/** One session waits for another: for an advisory lock if it has a waiter, else in PostgreSQL. */
interface Step {
  readonly session: Session;
  readonly blocker: Session;
}

interface Lock {
  readonly holders: Map<Session, Held>;
  readonly queue: Waiter[];
}

const NONE: readonly LockOutcome[] = [];

/**
 * Advisory locks of the whole cluster, as a prefix of the decision log has them: who holds what, and who waits in which order. The same on every
 * node, so nobody has to be asked who is next. Rules of PostgreSQL (lock.c): a request conflicts with holders of other sessions and with
 * those who wait before it; a session that holds the lock already goes before those who wait for it to let go. How often a
 * session took a lock is not kept here but by the PostgreSQL that it is connected to.
 *
 * A session is one of an epoch of a node. When the epoch ends its waiters go at once; what it holds stays until FREE-LOCKS, when nobody
 * there can believe any more to hold it, or until an ADMIT of the node, which asks for that only without such sessions.
 *
 * A circle of waiting may go through PostgreSQL: a session that holds a lock waits there for a row, say, of one that waits for the lock. Nodes
 * tell of such waits (LOCK-WAITS) while they last; they are believed until one of the two asks for something else.
 */
export class AdvisoryLocks {
  readonly #sessions = new Map<string, Session>();
  readonly #locks = new Map<string, Lock>();

  /** Nothing is held or waited for. */
  get isEmpty(): boolean {
    return this.#locks.size === 0;
  }

  /** Sessions that hold nothing count as well: their last requests are remembered. */
  get hasSessions(): boolean {
    return this.#sessions.size > 0;
  }

  /** Whether a request of this session, or a later one, is in the log. Not known any more of a session that has ended. */
  has({ node, epoch, session, request }: LockCommand): boolean {
    return (this.#sessions.get(keyOf(node, epoch, session))?.last ?? -1) >= request;
  }

  /** Epochs in which something is held, each once. */
  epochs(): { node: NodeId; epoch: Epoch }[] {
    const found = new Map<string, { node: NodeId; epoch: Epoch }>();
    for (const { node, epoch, held } of this.#sessions.values())
      if (held.size > 0) found.set(`${node}/${epoch}`, { node, epoch });
    return [...found.values()];
  }

  /** The answers that follow from the entry; none while a request has to wait. */
  apply(command: LockCommand): readonly LockOutcome[] {
    if (this.has(command)) return NONE;
    const outcomes: LockOutcome[] = [];
    const session = this.#session(command);
    session.last = command.request;
    session.blockers.clear();
    this.#withdraw(session, outcomes);
    if (command.type === 'lock') this.#acquire(session, command, outcomes);
    else if (command.locks !== undefined)
      for (const [lock, shared] of command.locks) this.#release(session, lock, shared, outcomes);
    else this.#end(session, outcomes);
    return outcomes;
  }

  /** Whether an entry would change nothing. */
  knows({ node, epoch, session, request, blocks }: LockWaits): boolean {
    const blocker = this.#sessions.get(keyOf(node, epoch, session));
    if (blocker?.waiter?.request !== request) return true;
    return this.#neighbours(blocker).every(
      (one) => (one.blockers.get(blocker) === request) === blocks.includes(one.session),
    );
  }

  /** Others are found to wait for a session that waits: if that closes a circle, its request fails. */
  blocked({ node, epoch, session, request, blocks }: LockWaits): readonly LockOutcome[] {
    const blocker = this.#sessions.get(keyOf(node, epoch, session));
    const waiter = blocker?.waiter;
    if (blocker === undefined || waiter?.request !== request) return NONE;
    for (const one of this.#neighbours(blocker)) {
      if (blocks.includes(one.session)) one.blockers.set(blocker, request);
      else one.blockers.delete(blocker);
    }
    const circle = this.#circle(blocker);
    if (circle === undefined) return NONE;
    const outcomes: LockOutcome[] = [];
    this.#answer(waiter, 'deadlock', outcomes, circle.map(describe).join(' '));
    this.#withdraw(blocker, outcomes);
    return outcomes;
  }

  /** The other sessions of its node. */
  #neighbours({ node, epoch, session }: Session): Session[] {
    return [...this.#sessions.values()].filter(
      (one) => one.node === node && one.epoch === epoch && one.session !== session,
    );
  }

  /** The node's epoch has ended: its sessions wait no more. */
  epochEnded(node: NodeId, epoch: Epoch): readonly LockOutcome[] {
    const outcomes: LockOutcome[] = [];
    for (const session of [...this.#sessions.values()]) {
      if (session.node !== node || session.epoch !== epoch) continue;
      this.#withdraw(session, outcomes);
      if (session.held.size === 0) this.#end(session, outcomes);
    }
    return outcomes;
  }

  /** Nobody believes any more to hold what sessions of the node held, of this epoch or an earlier one. */
  free(node: NodeId, epoch: Epoch): readonly LockOutcome[] {
    const outcomes: LockOutcome[] = [];
    for (const session of [...this.#sessions.values()]) {
      if (session.node !== node || session.epoch > epoch) continue;
      this.#withdraw(session, outcomes);
      this.#end(session, outcomes);
    }
    return outcomes;
  }

  // ---- one session

  #session({ node, epoch, session }: LockCommand): Session {
    const key = keyOf(node, epoch, session);
    const known = this.#sessions.get(key);
    if (known !== undefined) return known;
    const fresh = newSession(node, epoch, session, 0);
    this.#sessions.set(key, fresh);
    return fresh;
  }

  /**
   * Until then its last request is remembered, even if it holds nothing: a copy of a LOCK that was denied, or let go of, would be granted
   * to nobody.
   */
  #end(session: Session, outcomes: LockOutcome[]): void {
    for (const name of [...session.held.keys()]) {
      this.#release(session, name, true, outcomes);
      this.#release(session, name, false, outcomes);
    }
    this.#sessions.delete(keyOf(session.node, session.epoch, session.session));
  }

  #acquire(session: Session, command: Extract<LogCommand, { type: 'lock' }>, outcomes: LockOutcome[]): void {
    const { lock: name, shared, request } = command;
    const held = session.held.get(name);
    const waiter: Waiter = { session, request, lock: name, shared };
    const lock = this.#lock(name);
    const isFree =
      (held !== undefined && (shared ? held.shared : held.exclusive)) ||
      (!conflictsWithHolders(lock, waiter) &&
        (held !== undefined || !lock.queue.some((one) => conflicts(one, waiter))));
    if (isFree) this.#grant(lock, waiter, outcomes);
    else if (!command.wait) this.#answer(waiter, 'denied', outcomes);
    else this.#wait(lock, waiter, outcomes);
    this.#tidy(name, lock);
  }

  #wait(lock: Lock, waiter: Waiter, outcomes: LockOutcome[]): void {
    const { session } = waiter;
    const held = lock.holders.get(session);
    const before =
      held === undefined ? -1 : lock.queue.findIndex((one) => held.exclusive || (held.shared && !one.shared));
    lock.queue.splice(before === -1 ? lock.queue.length : before, 0, waiter);
    session.waiter = waiter;
    const circle = this.#circle(session);
    if (circle === undefined) return;
    this.#answer(waiter, 'deadlock', outcomes, circle.map(describe).join(' '));
    lock.queue.splice(lock.queue.indexOf(waiter), 1);
    session.waiter = undefined;
  }

  #grant(lock: Lock, waiter: Waiter, outcomes: LockOutcome[]): void {
    const { session, shared, lock: name } = waiter;
    const held = session.held.get(name) ?? { exclusive: false, shared: false };
    held[shared ? 'shared' : 'exclusive'] = true;
    session.held.set(name, held);
    lock.holders.set(session, held);
    session.waiter = undefined;
    this.#answer(waiter, 'granted', outcomes);
  }

  #answer(waiter: Waiter, result: LockOutcome['result'], outcomes: LockOutcome[], detail?: string): void {
    const { node, epoch, session } = waiter.session;
    const { request } = waiter;
    outcomes.push({ node, epoch, session, request, result, ...(detail !== undefined && { detail }) });
  }

  #withdraw(session: Session, outcomes: LockOutcome[]): void {
    const { waiter } = session;
    if (waiter === undefined) return;
    session.waiter = undefined;
    const lock = this.#lock(waiter.lock);
    lock.queue.splice(lock.queue.indexOf(waiter), 1);
    this.#wake(waiter.lock, lock, outcomes);
  }

  #release(session: Session, name: string, shared: boolean, outcomes: LockOutcome[]): void {
    const held = session.held.get(name);
    if (held === undefined) return;
    held[shared ? 'shared' : 'exclusive'] = false;
    const lock = this.#lock(name);
    if (!held.exclusive && !held.shared) {
      session.held.delete(name);
      lock.holders.delete(session);
    }
    this.#wake(name, lock, outcomes);
  }

  // ---- one lock

  #lock(name: string): Lock {
    const known = this.#locks.get(name);
    if (known !== undefined) return known;
    const fresh: Lock = { holders: new Map(), queue: [] };
    this.#locks.set(name, fresh);
    return fresh;
  }

  /** Lets through who waits for nobody any more, in the order of the queue. */
  #wake(name: string, lock: Lock, outcomes: LockOutcome[]): void {
    const staying: Waiter[] = [];
    for (const waiter of lock.queue.splice(0)) {
      if (conflictsWithHolders(lock, waiter) || staying.some((one) => conflicts(one, waiter))) staying.push(waiter);
      else this.#grant(lock, waiter, outcomes);
    }
    lock.queue.push(...staying);
    this.#tidy(name, lock);
  }

  #tidy(name: string, lock: Lock): void {
    if (lock.holders.size === 0 && lock.queue.length === 0) this.#locks.delete(name);
  }

  // ---- deadlocks

  /** The waits of a circle that this session stands in. Only a new waiter, or LOCK-WAITS, can close one. */
  #circle(start: Session): Step[] | undefined {
    const seen = new Set<Session>();
    const path: Step[] = [];
    const visit = (session: Session): boolean => {
      if (seen.has(session)) return false;
      seen.add(session);
      for (const blocker of this.#blockers(session)) {
        path.push({ session, blocker });
        if (blocker === start || visit(blocker)) return true;
        path.pop();
      }
      return false;
    };
    return visit(start) ? path : undefined;
  }

  *#blockers({ waiter, blockers }: Session): Generator<Session> {
    if (waiter === undefined) {
      for (const [session, request] of blockers) if (session.waiter?.request === request) yield session;
      return;
    }
    const { holders, queue } = this.#lock(waiter.lock);
    for (const [session, held] of holders)
      if (session !== waiter.session && (held.exclusive || !waiter.shared)) yield session;
    for (const one of queue) {
      if (one === waiter) return;
      if (conflicts(one, waiter)) yield one.session;
    }
  }

  /** At most so many. */
  list(limit: number): LockStatus[] {
    return [...this.#locks].slice(0, limit).map(([lock, { holders, queue }]) => ({
      lock,
      holders: [...holders].map(([session, { exclusive }]) => party(session, !exclusive)),
      waiters: queue.map(({ session, shared }) => party(session, shared)),
    }));
  }

  // ---- snapshots

  snapshot(): AdvisoryLocksSnapshot {
    const blocked = [...this.#sessions.values()].flatMap(({ node, epoch, session, blockers }) =>
      [...blockers]
        .filter(([{ waiter }, request]) => waiter?.request === request)
        .map(([blocker, request]) => [node, epoch, session, blocker.session, request] as const),
    );
    return {
      ...(blocked.length > 0 && { blocked }),
      sessions: [...this.#sessions.values()].map(({ node, epoch, session, last, held }) => [
        ...([node, epoch, session, last] as const),
        [...held].map(([lock, { exclusive, shared }]) => [lock, exclusive, shared] as const),
      ]),
      queues: [...this.#locks]
        .filter(([, { queue }]) => queue.length > 0)
        .map(([lock, { queue }]) => [
          lock,
          queue.map(
            ({ session: { node, epoch, session }, request, shared }) =>
              [node, epoch, session, request, shared] as const,
          ),
        ]),
    };
  }

  static restore({ sessions, queues, blocked = [] }: AdvisoryLocksSnapshot): AdvisoryLocks {
    const locks = new AdvisoryLocks();
    for (const [node, epoch, number, last, held] of sessions) {
      const session = newSession(node, epoch, number, last);
      locks.#sessions.set(keyOf(node, epoch, number), session);
      for (const [name, exclusive, shared] of held) {
        const one = { exclusive, shared };
        session.held.set(name, one);
        locks.#lock(name).holders.set(session, one);
      }
    }
    for (const [lock, waiters] of queues) {
      for (const [node, epoch, number, request, shared] of waiters) {
        const session = locks.#sessions.get(keyOf(node, epoch, number));
        if (session === undefined) throw new Error(`a session waits for "${lock}" that the snapshot does not have`);
        session.waiter = { session, request, lock, shared };
        locks.#lock(lock).queue.push(session.waiter);
      }
    }
    for (const [node, epoch, number, blocker, request] of blocked) {
      const other = locks.#sessions.get(keyOf(node, epoch, blocker));
      if (other !== undefined) locks.#sessions.get(keyOf(node, epoch, number))?.blockers.set(other, request);
    }
    return locks;
  }
}

const newSession = (node: NodeId, epoch: Epoch, session: number, last: number): Session => ({
  ...{ node, epoch, session, last },
  ...{ held: new Map<string, Held>(), waiter: undefined, blockers: new Map<Session, number>() },
});

const keyOf = (node: NodeId, epoch: Epoch, session: number): string => `${node}/${epoch}/${session}`;

const conflicts = (one: Waiter, other: Waiter): boolean =>
  one.session !== other.session && !(one.shared && other.shared);

function conflictsWithHolders({ holders }: Lock, waiter: Waiter): boolean {
  for (const [session, held] of holders)
    if (session !== waiter.session && (held.exclusive || !waiter.shared)) return true;
  return false;
}

const party = ({ node, session }: Session, shared: boolean): LockParty => ({
  ...{ node, session },
  mode: shared ? 'ShareLock' : 'ExclusiveLock',
});

function describe({ session, blocker }: Step): string {
  const { node, session: number, waiter } = session;
  const which = `Session ${number} of node ${node}`;
  if (waiter === undefined) return `${which} waits in PostgreSQL for session ${blocker.session} of that node.`;
  return `${which} waits for ${party(session, waiter.shared).mode} on advisory lock ${waiter.lock}.`;
}
