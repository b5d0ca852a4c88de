import type { LockCommand, LockOutcome, LockWaits } from '../../commit/core/advisory-locks.ts';
import type { ErrorReport, LogCommand } from '../../commit/core/types.ts';
import type { Epoch, LogIndex, NodeId } from '../../runtime/ids.ts';

/** What sessions of this node ask for. A session has one request under way at a time, except that it may withdraw one or close. */
export type LockRequest =
  | {
      readonly type: 'acquire';
      readonly session: number;
      readonly lock: string;
      readonly shared: boolean;
      readonly wait: boolean;
    }
  /** It does not want any more what it asked for last. */
  | { readonly type: 'withdraw'; readonly session: number }
  | {
      readonly type: 'release';
      readonly session: number;
      readonly locks: readonly (readonly [lock: string, shared: boolean])[];
    }
  /** It is gone, and believes to hold nothing. */
  | { readonly type: 'close'; readonly session: number }
  /** It waits; these sessions of this node wait in PostgreSQL for its transaction. */
  | { readonly type: 'blocks'; readonly session: number; readonly blocks: readonly number[] };

export type LockAnswer =
  /** Only if the clock has not come to `until`: else tell the core (`lock-late`). */
  | { readonly type: 'granted'; readonly until: number }
  | { readonly type: 'denied' | 'released' }
  | { readonly type: 'failed'; readonly error: ErrorReport };

export type LockEffect =
  | { readonly type: 'lock-answer'; readonly session: number; readonly answer: LockAnswer }
  /** The session must end before anything else happens: what it holds may be given to others. */
  | { readonly type: 'locks-lost'; readonly session: number; readonly reason: string }
  /** Ask for the read index, and answer with `locks-confirmed` and the same `sentAt`. */
  | { readonly type: 'confirm-locks'; readonly sentAt: number };

export interface LockAgentSettings {
  readonly self: NodeId;
  /** Milliseconds for which sessions may go on with their locks after this node last knew to be a member. */
  readonly lease: number;
  readonly resendAfter: number;
  /** Milliseconds after which a request that did not come into the log fails. */
  readonly patience: number;
}

export interface LockAgentView {
  readonly epoch: () => Epoch;
  /** Everything up to here is committed in this node's PostgreSQL. */
  readonly committed: () => LogIndex;
  readonly propose: (command: LogCommand) => void;
  /** The log has it already. */
  readonly knows: (waits: LockWaits) => boolean;
  readonly emit: (effect: LockEffect) => void;
}

interface Outgoing {
  readonly command: LockCommand;
  /** When it was first asked for, and last proposed. */
  readonly since: number;
  sentAt: number;
  /** Nobody waits for its end. */
  readonly silent: boolean;
}

interface Session {
  readonly number: number;
  /** Not seen in the log yet; the first is proposed. */
  readonly outgoing: Outgoing[];
  /** The LOCK that the log lets wait. */
  waitsFor: Lock | undefined;
  /** Granted by this entry, and the session has not been told. */
  granted: LogIndex | undefined;
  /** What it was told last, which may turn out to be too late. */
  told: { readonly command: Lock; readonly granted: LogIndex } | undefined;
  /** What the session believes to hold, and how; see `nameOf`. */
  readonly held: Set<string>;
  closed: boolean;
}

type Lock = Extract<LogCommand, { type: 'lock' }>;

/** Of the lease, how often it is renewed. */
const RENEWALS = 8;

/**
 * Advisory locks for the sessions of one node: brings their requests into the log, whoever leads it, and tells them what follows from that
 * (advisory-locks.ts). A session is told of a lock when this node has committed all that was committed before it was granted, so that it
 * sees what the former holder did.
 *
 * Nobody may be given a lock while a session here believes to hold it. So what sessions hold rests on a lease: it runs from the moment at which
 * this node was a member for certain, which is when it sent a request that the log took, or a question for the read index whose answer showed no
 * end of its epoch. The leader frees the locks of an epoch only when the lease has run out since its end (LeaderDuties.freeable).
 */
export class LockAgent {
  readonly #settings: LockAgentSettings;
  readonly #view: LockAgentView;
  readonly #sessions = new Map<number, Session>();
  #request = 0;
  #attempt = 0;
  #now = 0;
  /** This node was a member then. */
  #confirmedAt = -Infinity;
  #askedAt = -Infinity;
  /** Read index that an answer brought, once the log is read up to there. */
  #unread: { readonly sentAt: number; readonly index: LogIndex }[] = [];

  constructor(settings: LockAgentSettings, view: LockAgentView) {
    this.#settings = settings;
    this.#view = view;
  }

  /** Until then sessions may go on with what they hold; on the clock of `tick`. */
  get leaseEnd(): number {
    return this.#confirmedAt + this.#settings.lease;
  }

  // ---- sessions

  onRequest(request: LockRequest): void {
    switch (request.type) {
      case 'acquire':
        return this.#acquire(request);
      case 'withdraw':
        return this.#withdraw(request.session);
      case 'release':
        return this.#release(request);
      case 'close': {
        const session = this.#sessions.get(request.session);
        if (session !== undefined) this.#close(session);
        return;
      }
      case 'blocks':
        return this.#blocks(request);
    }
  }

  #acquire({ session: number, lock, shared, wait }: Extract<LockRequest, { type: 'acquire' }>): void {
    const { self } = this.#settings;
    const epoch = this.#view.epoch();
    if (epoch === 0) return this.#fail(number, 'this node is no member of the cluster');
    const session = this.#session(number);
    this.#send(session, {
      type: 'lock',
      node: self,
      epoch,
      session: number,
      request: ++this.#request,
      lock,
      shared,
      wait,
    });
  }

  #release({ session: number, locks }: Extract<LockRequest, { type: 'release' }>): void {
    const session = this.#session(number);
    for (const [lock, shared] of locks) session.held.delete(nameOf(lock, shared));
    this.#send(session, this.#unlock(session, locks));
  }

  #unlock({ number }: Session, locks: Extract<LogCommand, { type: 'unlock' }>['locks']): LockCommand {
    const [node, epoch] = [this.#settings.self, this.#view.epoch()];
    return { type: 'unlock', node, epoch, session: number, request: ++this.#request, locks };
  }

  /** The UNLOCK bears a higher number: if it overtakes its LOCK, that has no effect any more. */
  #withdraw(number: number): void {
    const session = this.#sessions.get(number);
    if (session === undefined) return;
    const at = session.outgoing.findIndex(({ command }) => command.type === 'lock');
    const unwanted = session.waitsFor ?? session.outgoing.at(at)?.command;
    if (unwanted?.type !== 'lock') return;
    if (at !== -1) session.outgoing.splice(at, 1);
    session.waitsFor = session.granted = undefined;
    // Behind another one it has not been proposed.
    if (at > 0) return;
    const { lock, shared } = unwanted;
    this.#send(session, this.#unlock(session, session.held.has(nameOf(lock, shared)) ? [] : [[lock, shared]]), true);
  }

  #close(session: Session): void {
    if (session.closed) return;
    session.closed = true;
    session.waitsFor = session.granted = session.told = undefined;
    session.outgoing.length = 0;
    session.held.clear();
    this.#send(session, this.#unlock(session, undefined), true);
  }

  /** Proposed once: whoever looks for deadlocks looks again. A session that holds no lock closes no circle. */
  #blocks({ session: number, blocks }: Extract<LockRequest, { type: 'blocks' }>): void {
    const session = this.#sessions.get(number);
    if (session?.waitsFor === undefined || session.granted !== undefined) return;
    const { node, epoch, request } = session.waitsFor;
    const holders = blocks.filter((one) => (this.#sessions.get(one)?.held.size ?? 0) > 0);
    const waits: LockWaits = { type: 'lock-waits', node, epoch, session: number, request, blocks: holders };
    if (!this.#view.knows(waits)) this.#view.propose(waits);
  }

  #session(number: number): Session {
    const known = this.#sessions.get(number);
    if (known !== undefined) return known;
    const fresh: Session = {
      ...{ number, outgoing: [], waitsFor: undefined, granted: undefined, told: undefined },
      ...{ held: new Set<string>(), closed: false },
    };
    this.#sessions.set(number, fresh);
    return fresh;
  }

  // ---- the way into the log

  #send(session: Session, command: LockCommand, silent = false): void {
    session.outgoing.push({ command, since: this.#now, sentAt: -Infinity, silent });
    if (session.outgoing.length === 1) this.#propose(session);
  }

  #propose({ outgoing }: Session): void {
    const first = outgoing.at(0);
    if (first === undefined) return;
    first.sentAt = this.#now;
    this.#view.propose({ ...first.command, attempt: ++this.#attempt });
  }

  leaderChanged(): void {
    for (const session of this.#sessions.values()) this.#propose(session);
  }

  // ---- what the log says

  /** An entry was read. `outcomes` are those of requests from anywhere. */
  onEntry(index: LogIndex, command: LogCommand | undefined, outcomes: readonly LockOutcome[]): void {
    const isOwn = (one: { node: NodeId; epoch: Epoch }) =>
      one.node === this.#settings.self && one.epoch === this.#view.epoch();
    if ((command?.type === 'lock' || command?.type === 'unlock') && isOwn(command)) this.#onOwn(command);
    for (const outcome of outcomes) if (isOwn(outcome)) this.#onOutcome(index, outcome);
    if (this.#unread.length > 0) this.#onRead(index);
  }

  #onOwn(command: LockCommand): void {
    const session = this.#sessions.get(command.session);
    const first = session?.outgoing.at(0);
    if (session === undefined || first?.command.request !== command.request) return;
    session.outgoing.shift();
    // The log took it after it was sent, so the epoch was open then.
    this.#confirmedAt = Math.max(this.#confirmedAt, first.since);
    if (command.type === 'lock') session.waitsFor = command;
    else if (!first.silent) this.#answer(session, { type: 'released' });
    this.#propose(session);
    if (session.closed && session.outgoing.length === 0) this.#sessions.delete(session.number);
  }

  #onOutcome(index: LogIndex, { session: number, request, result, detail }: LockOutcome): void {
    const session = this.#sessions.get(number);
    if (session?.waitsFor?.request !== request) return;
    if (result === 'granted') {
      session.granted = index;
      return this.#tell(session);
    }
    session.waitsFor = undefined;
    if (result === 'denied') this.#answer(session, { type: 'denied' });
    else
      this.#answer(session, {
        type: 'failed',
        error: {
          sqlstate: '40P01',
          message: 'deadlock detected',
          detail,
          hint: 'These are sessions of the cluster, numbered by the node that they are connected to.',
        },
      });
  }

  /** This node's PostgreSQL has committed more. */
  onCommitted(): void {
    for (const session of this.#sessions.values()) this.#tell(session);
  }

  #tell(session: Session): void {
    const { granted, waitsFor } = session;
    if (granted === undefined || waitsFor === undefined || granted > this.#view.committed()) return;
    session.held.add(nameOf(waitsFor.lock, waitsFor.shared));
    this.#answer(session, { type: 'granted', until: this.leaseEnd });
    session.waitsFor = session.granted = undefined;
    session.told = { command: waitsFor, granted };
  }

  /** The answer just given came when the lease was over: the session has to wait until that is renewed. */
  onLate(number: number): void {
    const session = this.#sessions.get(number);
    if (session?.told === undefined) return;
    const { command, granted } = session.told;
    session.held.delete(nameOf(command.lock, command.shared));
    session.told = undefined;
    session.waitsFor = command;
    session.granted = granted;
    this.#askedAt = -Infinity;
  }

  #answer({ number }: Session, answer: LockAnswer): void {
    this.#view.emit({ type: 'lock-answer', session: number, answer });
  }

  #fail(session: number, reason: string): void {
    const error: ErrorReport = {
      sqlstate: '57P03',
      message: 'cannot take an advisory lock: this node cannot reach the cluster now',
      detail: `Node ${this.#settings.self}: ${reason}.`,
      hint: 'Connect to another node, or try again when a majority of the nodes is reachable.',
    };
    this.#view.emit({ type: 'lock-answer', session, answer: { type: 'failed', error } });
  }

  // ---- the lease

  tick(now: number): void {
    this.#now = now;
    if (this.#sessions.size === 0) return;
    for (const session of [...this.#sessions.values()]) this.#onTick(session);
    const isNeeded = [...this.#sessions.values()].some(({ held, waitsFor }) => held.size > 0 || waitsFor !== undefined);
    if (!isNeeded || now - this.#askedAt < this.#settings.lease / RENEWALS) return;
    this.#askedAt = now;
    this.#view.emit({ type: 'confirm-locks', sentAt: now });
  }

  #onTick(session: Session): void {
    if (session.held.size > 0 && this.#now >= this.leaseEnd) {
      this.#lose(session, 'it has not heard for too long that it still is a member');
      return this.#close(session);
    }
    const asked = session.outgoing.find(({ command }) => command.type === 'lock');
    if (asked !== undefined && this.#now - asked.since >= this.#settings.patience) {
      this.#withdraw(session.number);
      this.#fail(session.number, 'the decision log did not take the request in time');
    }
    const first = session.outgoing.at(0);
    if (first !== undefined && this.#now - first.sentAt >= this.#settings.resendAfter) this.#propose(session);
  }

  #lose(session: Session, reason: string): void {
    this.#view.emit({ type: 'locks-lost', session: session.number, reason });
  }

  /** All that was decided before `sentAt` stands in the log up to `index`. */
  onConfirmed(sentAt: number, index: LogIndex, read: LogIndex): void {
    this.#unread.push({ sentAt, index });
    this.#onRead(read);
  }

  #onRead(read: LogIndex): void {
    const before = this.#confirmedAt;
    this.#unread = this.#unread.filter(({ sentAt, index }) => {
      if (index > read) return true;
      this.#confirmedAt = Math.max(this.#confirmedAt, sentAt);
      return false;
    });
    if (this.#confirmedAt > before) this.onCommitted();
  }

  /** This node is no member any more, or about to be none: its epoch ends, and with it all that sessions have of it. */
  left(reason: string): void {
    this.#confirmedAt = -Infinity;
    this.#unread = [];
    const sessions = [...this.#sessions.values()];
    this.#sessions.clear();
    for (const session of sessions) {
      if (session.held.size > 0) this.#lose(session, reason);
      else if (!session.closed && this.#isAwaited(session)) this.#fail(session.number, reason);
    }
  }

  #isAwaited({ waitsFor, outgoing }: Session): boolean {
    return waitsFor !== undefined || outgoing.some(({ silent }) => !silent);
  }
}

const nameOf = (lock: string, shared: boolean): string => `${shared ? 'shared' : 'exclusive'} ${lock}`;
