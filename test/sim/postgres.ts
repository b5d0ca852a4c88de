import { CommitProgress } from '../../src/commit/core/commit-progress.ts';
import type { Gid, LogIndex } from '../../src/runtime/ids.ts';
import { Locks, type Tx, type Write } from './locks.ts';
import { Process, type Loop } from './loop.ts';
import type { Rng } from './rng.ts';
import { LiveSlot } from './slot.ts';
import { Violation } from './trace.ts';

/** What the history of a server says of one commit: the changes that a donor has to give. */
export interface HistoryEntry {
  readonly index: LogIndex;
  readonly gid: Gid;
  readonly database: string;
  readonly writes: readonly Write[];
  /** How many committers there were. */
  readonly lanes: number;
}

/** One connection of a proxy's, seen from the server. */
export interface Backend {
  readonly pid: number;
  /** Which run of the proxy opened it, and in which life of the server. */
  readonly run: number;
  readonly life: number;
  /** A client's, or one of the proxy's own: only those does a new run of the proxy end before it looks at the server. */
  readonly isClients: boolean;
  tx: Tx | undefined;
  /** Commands that were sent and have not arrived. They are carried out even if the connection breaks meanwhile. */
  sent: number;
  /** The server process gets on with nothing before that moment. */
  heldUntil: number;
  /** Between a command's arrival and its end. */
  busy: boolean;
  /** The proxy is gone: ends when it is idle. */
  orphaned: boolean;
  closed: boolean;
  /** Tells the caller of the command under way that the connection broke. */
  broken: () => void;
}

export type Result<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly sqlstate: string };
export type Reply<T> = (result: Result<T>) => void;

export interface PostgresHooks {
  trace(what: string): void;
  /** The commit is durable and visible. */
  committed(entry: HistoryEntry): void;
  rolledBack(gid: Gid): void;
  prepared(tx: Tx): void;
}

export const DATABASE = 'app';

/** An ordinary server: rows, locks, prepared transactions, and the progress of the committer's origin. */
export class PostgresModel {
  readonly process: Process;
  readonly locks: Locks;
  readonly #loop: Loop;
  readonly #rng: Rng;
  readonly #hooks: PostgresHooks;
  /** Durable: survives every crash. */
  readonly rows = new Map<string, { value: string; writer: Gid }>();
  readonly prepared = new Map<Gid, Tx>();
  readonly history: HistoryEntry[] = [];
  /** Up to here the history was lost with the slot that kept it. */
  historyFrom = 0 as LogIndex;
  readonly slot = new LiveSlot();
  /** Positions of the committers' origins, by the number of lanes. */
  readonly #origins = new Map<number, LogIndex[]>();
  readonly #committed = new Set<LogIndex>();
  #unfinished = new Set<{ readonly keep: () => void; readonly tx: Tx }>();
  #finishing = new Set<Gid>();
  readonly #backends = new Set<Backend>();
  readonly #calls = new Set<() => void>();
  #pid = 100;
  slowness = 1;

  constructor(node: number, loop: Loop, rng: Rng, hooks: PostgresHooks) {
    this.process = new Process(`pg${node}`);
    this.locks = new Locks(loop, this.process);
    this.#loop = loop;
    this.#rng = rng;
    this.#hooks = hooks;
  }

  // ---- connections

  connect(run: number, isClients = false): Backend {
    const backend = {
      pid: this.#pid++,
      run,
      life: this.process.life,
      isClients,
      tx: undefined,
      sent: 0,
      heldUntil: 0,
      busy: false,
      orphaned: false,
      closed: !this.process.alive,
      broken: () => undefined,
    };
    this.#backends.add(backend);
    return backend;
  }

  /** Sends a command. It is carried out even if the caller dies meanwhile; the reply is for the caller's present life. */
  call<T>(caller: Process, backend: Backend, command: (reply: Reply<T>) => void, reply: Reply<T>): void {
    let done = false;
    const callerLife = caller.life;
    const answer = (result: Result<T>) => {
      if (done) return;
      done = true;
      this.#calls.delete(broken);
      if (caller.life === callerLife) this.#loop.in(caller, this.#rng.between(0.05, 0.4), () => reply(result));
    };
    const broken = () => answer({ ok: false, sqlstate: '08006' });
    if (!this.process.alive || backend.closed || backend.life !== this.process.life) return broken();
    this.#calls.add(broken);
    backend.broken = broken;
    backend.sent++;
    const arrive = () => {
      if (backend.closed) {
        broken();
        return;
      }
      if (backend.heldUntil > this.#loop.now) {
        this.#loop.in(this.process, backend.heldUntil - this.#loop.now, arrive);
        return;
      }
      backend.sent--;
      backend.busy = true;
      command((result) => {
        backend.busy = false;
        if (backend.orphaned && backend.sent === 0) this.close(backend);
        answer(result);
      });
    };
    this.#loop.in(this.process, this.#rng.between(0.05, 0.4), arrive);
  }

  /** What a proxy does that needs a connection no more. One that broke it can't close: the server has yet to notice. */
  hangUp(backend: Backend): void {
    if (!backend.orphaned) this.close(backend);
  }

  /** The connection breaks, and the server process is held up: what was sent is carried out all the same, if it lives, when nobody expects it any more. */
  loseConnection(backend: Backend, hold: number): void {
    backend.heldUntil = this.#loop.now + hold;
    backend.orphaned = true;
    this.#loop.in(this.process, hold, () => this.#closeIfIdle(backend));
    backend.broken();
  }

  #closeIfIdle(backend: Backend): void {
    if (!backend.busy && backend.sent === 0) this.close(backend);
  }

  close(backend: Backend): void {
    if (backend.closed) return;
    backend.closed = true;
    this.#backends.delete(backend);
    this.abort(backend);
  }

  /** The proxy died. Its servers notice when they next read or write. */
  orphan(run: number): void {
    for (const backend of this.#backends) {
      if (backend.run > run || backend.orphaned) continue;
      backend.orphaned = true;
      if (backend.isClients && this.#rng.chance(0.2)) backend.heldUntil = this.#loop.now + this.#rng.wait(150);
      this.#loop.in(this.process, this.#rng.wait(20), () => this.#closeIfIdle(backend));
    }
  }

  /** pg_terminate_backend of what earlier runs had for themselves. True when nothing of that is left. */
  terminateBefore(run: number): boolean {
    let gone = true;
    for (const backend of [...this.#backends]) {
      if (backend.run >= run || backend.isClients) continue;
      backend.orphaned = true;
      if (backend.tx?.state === 'preparing' || (backend.busy && backend.tx === undefined)) gone = false;
      else this.close(backend);
    }
    return gone;
  }

  // ---- statements

  begin(backend: Backend, kind: Tx['kind'], gid: Gid | undefined): Tx {
    if (backend.tx !== undefined) throw new Error('a transaction is already in progress');
    const tx: Tx = {
      kind,
      pid: backend.pid,
      gid,
      database: DATABASE,
      state: 'open',
      writes: new Map(),
      locks: new Set(),
      waiting: undefined,
      slot: 0,
    };
    this.slot.begun(tx);
    backend.tx = tx;
    return tx;
  }

  /**
   * Changes one row under its lock. `change` gets the newest committed version (READ COMMITTED looks again after a wait),
   * or the transaction's own, and says what to write, or the SQLSTATE of an error. An error ends the transaction.
   */
  write(
    backend: Backend,
    key: string,
    change: (value: string | undefined) => string | Omit<Write, 'key' | 'base'>,
    reply: Reply<string>,
  ): void {
    const tx = backend.tx;
    if (tx?.state !== 'open') return reply({ ok: false, sqlstate: '25P02' });
    const failed = (sqlstate: string) => {
      this.abort(backend);
      reply({ ok: false, sqlstate });
    };
    const granted = () => {
      const own = tx.writes.get(key);
      const row = this.rows.get(key);
      const value = own === undefined ? row?.value : own.op === 'delete' ? undefined : own.value;
      const change_ = change(value);
      if (typeof change_ === 'string') {
        failed(change_);
        return;
      }
      const base = own === undefined ? (row?.writer ?? null) : own.base;
      const op =
        own === undefined ? change_.op : base === null ? 'insert' : change_.op === 'delete' ? 'delete' : 'update';
      tx.writes.set(key, { key, op, base, value: change_.value });
      reply({ ok: true, value: change_.value });
    };
    this.locks.acquire(tx, key, granted, failed);
  }

  /** ROLLBACK, or the end of a failed transaction. */
  abort(backend: Backend): void {
    const { tx } = backend;
    if (tx === undefined) return;
    if (tx.waiting !== undefined) this.locks.stopWaiting(tx, '57014');
    this.#rollBack(tx);
    backend.tx = undefined;
  }

  /** pg_cancel_backend: too late for what is at PREPARE already. */
  cancel(backend: Backend): void {
    if (backend.tx?.state === 'open') this.abort(backend);
  }

  /** pg_terminate_backend: likewise. */
  terminate(backend: Backend): void {
    if (backend.tx === undefined || backend.tx.state === 'open') this.close(backend);
  }

  #rollBack(tx: Tx): void {
    if (tx.state !== 'open') return;
    tx.state = 'gone';
    this.locks.release(tx);
  }

  /** A peer's transaction, sent in one piece: its rows by key, as they came, then PREPARE. */
  replay(backend: Backend, gid: Gid, writes: readonly Write[], reply: Reply<Tx>): void {
    this.begin(backend, 'replay', gid);
    const next = (position: number): void => {
      const write = writes.at(position);
      if (write === undefined) return this.prepare(backend, gid, reply);
      const change = (value: string | undefined) => {
        if ((value === undefined) === (write.op === 'insert')) return { op: write.op, value: write.value };
        return write.op === 'insert' ? '23505' : '40001';
      };
      this.write(backend, write.key, change, (result) => {
        if (!result.ok) return reply(result);
        this.#loop.in(this.process, this.#rng.between(0.02, 0.3), () => next(position + 1));
      });
    };
    next(0);
  }

  // ---- two phases

  prepare(backend: Backend, gid: Gid, reply: Reply<Tx>): void {
    const { tx } = backend;
    if (tx?.state !== 'open') return reply({ ok: false, sqlstate: '25P02' });
    if (this.prepared.has(gid))
      throw new Violation('duplicate PREPARE', `${gid} is prepared already on ${this.process.name}`);
    tx.gid = gid;
    tx.state = 'preparing';
    const unfinished = {
      tx,
      keep: () => {
        tx.state = 'prepared';
        this.prepared.set(gid, tx);
        this.slot.prepared(tx);
        this.#hooks.prepared(tx);
      },
    };
    this.#sync(
      unfinished,
      () => {
        backend.tx = undefined;
        reply({ ok: true, value: tx });
      },
      backend,
    );
  }

  commitPrepared(gid: Gid, index: LogIndex, lanes: number, reply: Reply<null>): void {
    const tx = this.#take(gid, reply);
    if (tx === undefined) return;
    this.#sync({ tx, keep: () => this.#commit(tx, gid, index, lanes) }, () => {
      this.#finishing.delete(gid);
      reply({ ok: true, value: null });
    });
  }

  rollbackPrepared(gid: Gid, reply: Reply<null>): void {
    const tx = this.#take(gid, reply);
    if (tx === undefined) return;
    const keep = () => {
      this.prepared.delete(gid);
      this.locks.release(tx);
      tx.state = 'gone';
      this.#hooks.rolledBack(gid);
    };
    this.#sync({ tx, keep }, () => {
      this.#finishing.delete(gid);
      reply({ ok: true, value: null });
    });
  }

  #take(gid: Gid, reply: Reply<null>): Tx | undefined {
    const tx = this.prepared.get(gid);
    if (tx === undefined) reply({ ok: false, sqlstate: '42704' });
    else if (this.#finishing.has(gid)) reply({ ok: false, sqlstate: '55000' });
    else {
      this.#finishing.add(gid);
      return tx;
    }
    return undefined;
  }

  /** Whether the COMMIT of this index has been carried out here. */
  has(index: LogIndex): boolean {
    return this.#committed.has(index);
  }

  get progress(): CommitProgress {
    return new CommitProgress([...this.#origins.values()]);
  }

  /** pg_replication_origin_advance() on the origin of a single lane. */
  note(index: LogIndex): void {
    this.#origins.set(1, [Math.max(index, this.#origins.get(1)?.[0] ?? 0) as LogIndex]);
  }

  #commit(tx: Tx, gid: Gid, index: LogIndex, lanes: number): void {
    this.prepared.delete(gid);
    const writes = [...tx.writes.values()];
    const entry = { index, gid, database: tx.database, writes, lanes };
    this.#hooks.committed(entry);
    for (const { key, op, value } of writes) {
      if (op === 'delete') this.rows.delete(key);
      else this.rows.set(key, { value, writer: gid });
    }
    const positions = this.#origins.get(lanes) ?? Array<LogIndex>(lanes).fill(0 as LogIndex);
    this.#origins.set(lanes, positions);
    positions[index % lanes] = index;
    this.#committed.add(index);
    this.history.push(entry);
    this.locks.release(tx);
    tx.state = 'gone';
  }

  /** The WAL's flush: a crash before its end keeps the record or loses it. */
  #sync(unfinished: { readonly keep: () => void; readonly tx: Tx }, then: () => void, backend?: Backend): void {
    this.#unfinished.add(unfinished);
    const finish = () => {
      const hold = (backend?.heldUntil ?? 0) - this.#loop.now;
      if (hold > 0) {
        this.#loop.in(this.process, hold, finish);
        return;
      }
      if (!this.#unfinished.delete(unfinished)) return;
      unfinished.keep();
      then();
    };
    this.#loop.in(this.process, this.slowness * this.#rng.between(0.2, 1.2), finish);
  }

  // ---- slots

  /** What nodes that are away lack has to come from others then. */
  loseHistory(): void {
    this.historyFrom = this.progress.highest;
  }

  /** Makes the live slot, once all that is under way now has ended. Clients that are in the way are named again and again until they are not. */
  makeSlot(backend: Backend, inTheWay: (pid: number) => void, reply: Reply<null>): void {
    // It can be ended at any moment.
    backend.busy = false;
    const asked = this.slot.ask();
    const open = [...this.#backends].flatMap(({ tx }) => (tx === undefined ? [] : [tx]));
    const before = new Set([...open, ...this.prepared.values()]);
    const look = (): void => {
      if (backend.closed) return;
      for (const tx of before) {
        if (tx.state === 'gone') before.delete(tx);
        else if (tx.state === 'open' && tx.kind === 'client') inTheWay(tx.pid);
      }
      if (before.size > 0) return this.#loop.in(this.process, this.#rng.between(0.5, 3), look);
      this.slot.make(asked);
      reply({ ok: true, value: null });
    };
    look();
  }

  // ---- the server's life

  start(): void {
    if (!this.process.alive) this.process.start();
  }

  crash(): void {
    if (!this.process.alive) return;
    this.process.die();
    const unfinished = this.#unfinished;
    this.#unfinished = new Set();
    this.#finishing = new Set();
    // In WAL order, so a prefix is kept.
    let lost = this.#rng.chance(0.4);
    for (const one of unfinished) {
      lost ||= this.#rng.chance(0.3);
      if (!lost) one.keep();
    }
    for (const backend of this.#backends) {
      backend.closed = true;
      if (backend.tx !== undefined && backend.tx.state !== 'prepared') backend.tx.state = 'gone';
      backend.tx = undefined;
    }
    this.#backends.clear();
    this.locks.reset(this.prepared.values());
    for (const tx of this.prepared.values()) tx.waiting = undefined;
    for (const broken of [...this.#calls]) broken();
  }

  /** A stopped server is cloned anew from another one's committed data; what was prepared is gone. */
  cloneFrom(donor: PostgresModel): void {
    for (const tx of this.prepared.values()) tx.state = 'gone';
    this.prepared.clear();
    this.locks.reset([]);
    this.rows.clear();
    for (const [key, row] of donor.rows) this.rows.set(key, row);
    this.history.splice(0, this.history.length, ...donor.history);
    this.slot.lose();
    this.#origins.clear();
    for (const [lanes, positions] of donor.#origins) this.#origins.set(lanes, [...positions]);
    this.#committed.clear();
    for (const index of donor.#committed) this.#committed.add(index);
    this.loseHistory();
  }

  /** The connection's server process dies: a PREPARE that it was at is done, or is not. */
  breakConnection(backend: Backend): void {
    for (const one of this.#unfinished) {
      if (one.tx !== backend.tx) continue;
      this.#unfinished.delete(one);
      if (this.#rng.chance(0.5)) {
        one.keep();
      } else {
        one.tx.state = 'gone';
        this.locks.release(one.tx);
      }
      backend.tx = undefined;
    }
    this.close(backend);
    backend.broken();
  }

  backend(pid: number): Backend | undefined {
    for (const backend of this.#backends) if (backend.pid === pid) return backend;
    return undefined;
  }
}
