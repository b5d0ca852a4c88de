import { CommitLanes, type Assigned } from '../../src/commit/core/commit-lanes.ts';
import { CatchUpTroubles } from '../../src/cluster/catch-up-troubles.ts';
import { CommitProgress } from '../../src/commit/core/commit-progress.ts';
import type { DecidedCommit } from '../../src/commit/core/commit-queue.ts';
import type { Gid, LogIndex, NodeId } from '../../src/runtime/ids.ts';
import { isAtWork, takeCopy } from './copies.ts';
import type { SimNode } from './node.ts';
import type { Backend, HistoryEntry, PostgresModel, Reply } from './postgres.ts';
import { Violation } from './trace.ts';

interface CatchUp {
  readonly gid: Gid;
  readonly index: LogIndex;
  readonly database: string;
  cancelled: boolean;
  backend: Backend | undefined;
}

interface Look {
  readonly progress: CommitProgress;
  readonly prepared: ReadonlyMap<Gid, string>;
  readonly hasSlot: boolean;
}

/** Milliseconds for which a node waits for a donor that has what the others have lost. */
const COPY_AFTER = 1000;

/** What one run of a proxy does in its PostgreSQL on behalf of the core: replays, commits, rollbacks, catch-up. */
export class Replica {
  readonly #node: SimNode;
  readonly #run: number;
  /** In which life of the server this run is connected. */
  #life = -1;
  /** Commands of this run that the server may still be at: a look has to wait for their end. */
  #inFlight = 0;
  #wantLook = true;
  #looking = false;
  /** How often the server was looked at: what is heard of a commit that was begun before is no news any more. */
  #looks = 0;
  /** Rises when the connections to the server break; in which of them the slot is being made. */
  #connection = 0;
  #making = -1;
  readonly #sources = new Set<Gid>();
  readonly #replays = new Map<Gid, Backend>();
  readonly #catchUps = new Map<Gid, CatchUp>();
  readonly #troubles: CatchUpTroubles;
  #order: CommitLanes;
  readonly #lanes: { commits: DecidedCommit[]; committing: boolean }[];
  /** Everything up to here was seen to be committed, and was noted in the server. */
  #lastCommitted = 0 as LogIndex;
  #noted = 0 as LogIndex;
  /** What the server had when it was last looked at, and what a single lane has committed. */
  #found = new CommitProgress([]);
  #singly = 0 as LogIndex;
  /** A commit failed: nothing after it may be tried before the server was looked at. */
  #stopped = false;
  /** Found by the last sweep. */
  #suspects: ReadonlySet<Gid> = new Set();

  constructor(node: SimNode) {
    this.#node = node;
    this.#run = node.run;
    const lanes = node.world.rng.pick(node.world.settings.lanes);
    this.#order = new CommitLanes(lanes);
    this.#lanes = Array.from({ length: lanes }, () => ({ commits: [], committing: false }));
    this.#troubles = new CatchUpTroubles(
      () => node.now,
      (isSo) => {
        if (isSo) node.world.count('found that what it lacks is gone');
        node.feed({ type: 'history-gone', isSo });
      },
    );
  }

  /** Whether the server has been looked at in its present life and nothing speaks against it. */
  get isUp(): boolean {
    return !this.#wantLook && this.#life === this.#node.postgres.process.life;
  }

  start(): void {
    this.#poll();
    this.#watch();
    this.#sweepLater();
  }

  /** A command whose end a look waits for. */
  call<T>(backend: Backend, command: (reply: Reply<T>) => void, reply: Reply<T>): void {
    this.#inFlight++;
    this.#node.postgres.call<T>(this.#node.process, backend, command, (result) => {
      this.#inFlight--;
      reply(result);
    });
  }

  #connect(): Backend {
    return this.#node.postgres.connect(this.#run);
  }

  // ---- looking at the server

  /** The connections to the server's former life broke. */
  onServerGone(life: number): void {
    if (life !== this.#life) return;
    this.#connection += 1;
    this.recover();
    this.#node.feed({ type: 'postgres-down' });
  }

  recover(): void {
    this.#wantLook = this.#stopped = true;
    this.#troubles.clear();
    this.#order.stop();
    for (const lane of this.#lanes) lane.commits = [];
  }

  /** What the server is sure to prove after whatever may happen. */
  get noted(): LogIndex {
    return this.#lanes.length === 1 ? this.#found.provenBy(this.#singly) : this.#noted;
  }

  /** One lane proves by itself how far it is. */
  #note(): void {
    const index = this.#lastCommitted;
    const { postgres, world } = this.#node;
    if (!this.isUp || this.#lanes.length === 1 || index <= this.#noted || world.rng.chance(0.9)) return;
    const backend = this.#connect();
    const note = (reply: Reply<null>): void => {
      postgres.note(index);
      reply({ ok: true, value: null });
    };
    this.call(backend, note, (result) => {
      postgres.close(backend);
      if (result.ok) this.#noted = index;
    });
  }

  #poll(): void {
    const { loop, rng } = this.#node.world;
    loop.in(this.#node.process, rng.between(3, 15), () => {
      this.#look();
      this.#note();
      this.#poll();
    });
  }

  #look(): void {
    const { postgres, process, world } = this.#node;
    if (!this.#wantLook || this.#looking || this.#inFlight > 0 || !postgres.process.alive) return;
    this.#looking = true;
    const { life } = postgres.process;
    const backend = this.#connect();
    const look = (reply: Reply<Look>): void => {
      if (!postgres.terminateBefore(this.#run)) {
        world.loop.in(postgres.process, 1, () => look(reply));
        return;
      }
      // A server that is ahead of a log that was lost is of no use before the others have sent the log.
      if (postgres.progress.highest > this.#node.raft.durableIndex) return reply({ ok: false, sqlstate: 'log-behind' });
      const prepared = new Map([...postgres.prepared].map(([gid, tx]) => [gid, tx.database]));
      reply({ ok: true, value: { progress: postgres.progress, prepared, hasSlot: postgres.slot.isThere } });
    };
    postgres.call<Look>(process, backend, look, (result) => {
      this.#looking = false;
      if (!result.ok || this.#inFlight > 0 || life !== postgres.process.life) return;
      this.#wantLook = this.#stopped = false;
      this.#life = life;
      this.#looks += 1;
      this.#order = new CommitLanes(this.#lanes.length);
      for (const [gid, tx] of postgres.prepared) if (tx.kind === 'client') this.#node.decode(gid, tx);
      const { progress, prepared, hasSlot } = result.value;
      this.#found = progress;
      if (progress.contiguous > this.#lastCommitted || !progress.has(this.#lastCommitted))
        this.#lastCommitted = progress.contiguous;
      if (progress.highest > this.#lastCommitted) world.count('found overtaken commits');
      this.#node.feed({ type: 'readiness', problem: hasSlot ? undefined : 'its slot is being made anew' });
      if (!hasSlot && this.#making !== this.#connection) this.#makeSlot(this.#connection);
      this.#node.feed({ type: 'postgres-up', committed: this.#lastCommitted, progress, prepared });
    });
  }

  /** As DatabaseSlots does, while the node takes part in all but writes of its own. */
  #makeSlot(connection: number): void {
    this.#making = connection;
    const { postgres, process, clients, world } = this.#node;
    const backend = this.#connect();
    const make = (reply: Reply<null>): void =>
      postgres.makeSlot(backend, (pid) => world.loop.in(process, 0.5, () => clients.overrule(pid)), reply);
    postgres.call<null>(process, backend, make, (result) => {
      postgres.close(backend);
      if (connection !== this.#connection) return;
      if (!result.ok) return world.loop.in(process, world.rng.between(1, 5), () => this.#makeSlot(connection));
      this.#making = -1;
      world.count('live slots made anew');
      this.#node.feed({ type: 'readiness', problem: undefined });
    });
  }

  // ---- replays

  keep(gid: Gid): void {
    this.#sources.add(gid);
  }

  release(gid: Gid): void {
    this.#sources.delete(gid);
  }

  apply(gid: Gid): void {
    const { world, postgres } = this.#node;
    if (!this.#sources.has(gid)) {
      const error = { sqlstate: 'XX000', message: 'the changes are not here' };
      return this.#node.feed({ type: 'applied', gid, error });
    }
    const backend = this.#connect();
    this.#replays.set(gid, backend);
    this.call(
      backend,
      (reply) => postgres.replay(backend, gid, world.oracle.payload(gid), reply),
      (result) => {
        this.#replays.delete(gid);
        postgres.close(backend);
        if (result.ok) return this.#node.feed({ type: 'applied', gid });
        world.count(`replay ${result.sqlstate}`);
        const error = { sqlstate: result.sqlstate, message: 'replay failed' };
        this.#node.feed({ type: 'applied', gid, error });
      },
    );
  }

  cancelApply(gid: Gid): void {
    const catchUp = this.#catchUps.get(gid);
    if (catchUp !== undefined) {
      catchUp.cancelled = true;
      this.#catchUps.delete(gid);
      this.#troubles.over(String(catchUp.index));
    }
    const backend = this.#replays.get(gid) ?? catchUp?.backend;
    if (backend !== undefined) this.#cancel(backend);
  }

  /** Repeated until it hits: it may overtake the command. */
  #cancel(backend: Backend): void {
    const { world, postgres } = this.#node;
    world.loop.in(postgres.process, world.rng.between(0.1, 1), () => {
      if (backend.closed) return;
      postgres.cancel(backend);
      this.#cancel(backend);
    });
  }

  /** Looks now and then who holds up the replays. */
  #watch(): void {
    const { world, postgres, process } = this.#node;
    world.loop.in(process, world.rng.between(8, 30), () => {
      const running = new Map([
        ...this.#replays,
        ...[...this.#catchUps.values()].map(({ gid, backend }) => [gid, backend] as const),
      ]);
      for (const [gid, backend] of running) {
        const holder = backend?.tx === undefined ? undefined : postgres.locks.holderBefore(backend.tx);
        if (holder === undefined) continue;
        world.count('blocked replays seen');
        const isNamed = holder.kind === 'replay' || holder.state === 'prepared';
        const who = isNamed
          ? ({ type: 'transaction', gid: holder.gid! } as const)
          : ({ type: 'backend', pid: holder.pid, standing: this.#node.clients.standing(holder.pid) } as const);
        world.loop.in(process, 0.5, () => {
          this.#node.feed({ type: 'blocked', gid, holder: who });
        });
      }
      this.#watch();
    });
  }

  // ---- commits and rollbacks

  commit(entry: DecidedCommit): void {
    this.#begin(this.#order.add(entry));
  }

  #begin(assigned: readonly Assigned[]): void {
    for (const { lane, entry } of assigned) {
      this.#lanes[lane].commits.push(entry);
      this.#commitNext(lane);
    }
  }

  /** Several travel at once; the server carries them out one after the other, even if nobody waits any more. */
  #commitNext(number: number): void {
    const lane = this.#lanes[number];
    if (lane.committing || this.#stopped || lane.commits.length === 0) return;
    const batch = lane.commits.splice(0, 4);
    lane.committing = true;
    const { postgres, process, world } = this.#node;
    const backend = this.#connect();
    const looks = this.#looks;
    const command = (reply: Reply<null>): void => {
      const next = (position: number): void => {
        const entry = batch.at(position);
        if (entry === undefined) return reply({ ok: true, value: null });
        postgres.commitPrepared(entry.gid, entry.index, this.#lanes.length, (result) => {
          if (!result.ok)
            throw new Violation(
              'I4',
              `COMMIT PREPARED ${entry.gid} (${entry.index}) on node ${this.#node.id} fails: ${result.sqlstate}`,
            );
          // A proxy that is dead now hears nothing, nor does the next run of it.
          if (this.#node.run === this.#run && process.alive)
            world.loop.in(process, 0.2, () => looks === this.#looks && this.#onCommitted(entry.index));
          next(position + 1);
        });
      };
      next(0);
    };
    this.call(backend, command, (result) => {
      lane.committing = false;
      postgres.close(backend);
      this.#stopped ||= !result.ok;
      this.#commitNext(number);
    });
  }

  #onCommitted(index: LogIndex): void {
    const { reported, assigned } = this.#order.done(index);
    for (const one of reported) {
      this.#lastCommitted = one;
      if (this.#lanes.length === 1) this.#singly = one;
      this.#node.feed({ type: 'committed', index: one });
    }
    this.#begin(assigned);
  }

  rollbackPrepared(gid: Gid): void {
    const { postgres, world } = this.#node;
    const backend = this.#connect();
    this.call<null>(
      backend,
      (reply) => postgres.rollbackPrepared(gid, reply),
      (result) => {
        postgres.close(backend);
        if (!result.ok && result.sqlstate === '08006') return;
        // A sweep is at it: one connection carries out all rollbacks, one after the other.
        if (!result.ok && result.sqlstate === '55000') {
          world.loop.in(this.#node.process, 0.5, () => this.rollbackPrepared(gid));
          return;
        }
        if (!result.ok && result.sqlstate !== '42704')
          throw new Violation('rollback', `ROLLBACK PREPARED ${gid} fails: ${result.sqlstate}`);
        if (!result.ok) world.oracle.rolledBack(this.#node.id, gid);
        this.#node.feed({ type: 'rolled-back', gid });
      },
    );
  }

  // ---- what nobody waits for

  #sweepLater(): void {
    const { world, process } = this.#node;
    world.loop.in(process, world.settings.sweepInterval * world.rng.between(0.9, 1.1), () => this.#sweep());
  }

  /** As LocalReplica does: what is found twice in a row, and is abandoned by what the core knows, is rolled back. */
  #sweep(): void {
    const { postgres, process, core } = this.#node;
    if (!this.isUp) return this.#sweepLater();
    const found = new Set<Gid>();
    const end = (): void => {
      this.#suspects = found;
      this.#sweepLater();
    };
    const backend = this.#connect();
    const look = (reply: Reply<Gid[]>): void => reply({ ok: true, value: [...postgres.prepared.keys()] });
    postgres.call<Gid[]>(process, backend, look, (result) => {
      postgres.close(backend);
      if (!result.ok) return end();
      const next = (position: number): void => {
        const gid = result.value.at(position);
        if (gid === undefined) return end();
        if (!core.isAbandoned(gid)) return next(position + 1);
        found.add(gid);
        if (!this.#suspects.has(gid)) return next(position + 1);
        this.#rollBackAbandoned(gid, () => next(position + 1));
      };
      next(0);
    });
  }

  #rollBackAbandoned(gid: Gid, then: () => void): void {
    const { postgres, process, world } = this.#node;
    const backend = this.#connect();
    const command = (reply: Reply<null>): void => postgres.rollbackPrepared(gid, reply);
    postgres.call<null>(process, backend, command, (result) => {
      postgres.close(backend);
      if (result.ok) world.count('abandoned, rolled back');
      then();
    });
  }

  // ---- catch-up

  catchUp(gid: Gid, index: LogIndex, database: string): void {
    if (this.#catchUps.has(gid)) throw new Violation('catch-up', `${gid} is asked for twice on node ${this.#node.id}`);
    const one: CatchUp = { gid, index, database, cancelled: false, backend: undefined };
    this.#catchUps.set(gid, one);
    this.#fetch(one);
  }

  #fetch(one: CatchUp): void {
    const { world, postgres } = this.#node;
    world.loop.in(this.#node.process, world.rng.wait(2), () => {
      if (one.cancelled || postgres.process.life !== this.#life) return;
      const found = this.#fromDonors(one.index, ({ history }) => history.find(({ index }) => index === one.index));
      if (found === undefined) return this.#fetch(one);
      if (found.gid !== one.gid)
        throw new Violation('one log', `a donor has ${found.gid} at ${one.index}, not ${one.gid}`);
      this.#replayMissing(one, found);
    });
  }

  #replayMissing(one: CatchUp, { writes }: HistoryEntry): void {
    const { world, postgres } = this.#node;
    const backend = this.#connect();
    one.backend = backend;
    this.call(
      backend,
      (reply) => postgres.replay(backend, one.gid, writes, reply),
      (result) => {
        postgres.close(backend);
        one.backend = undefined;
        if (!result.ok) {
          world.count(`catch-up ${result.sqlstate}`);
          if (!one.cancelled) this.#fetch(one);
          return;
        }
        world.count('catch-ups');
        if (!one.cancelled) this.#catchUps.delete(one.gid);
        this.#node.feed({ type: 'caught-up', gid: one.gid, index: one.index, database: one.database });
      },
    );
  }

  /** Asks the other nodes, one after the other, for what the log has from `first` on. */
  #fromDonors<T>(
    first: number,
    read: (donor: PostgresModel, hasAll: (index: LogIndex) => boolean) => T | undefined,
  ): T | undefined {
    const { world, id } = this.#node;
    const gone = new Set<NodeId>();
    const others = world.nodes.filter((one) => one.id !== id);
    for (const donor of world.rng.shuffle([...others])) {
      const isUsable = donor.process.alive && !donor.process.stopped && donor.postgres.process.alive;
      if (!isUsable || !world.network.isReachable(donor.id, id)) continue;
      if (donor.postgres.historyFrom >= first) {
        gone.add(donor.id);
        continue;
      }
      const found = read(donor.postgres, (index) => world.oracle.hasAll(donor.postgres, index));
      if (found === undefined) continue;
      this.#troubles.over(String(first));
      return found;
    }
    this.#troubles.failed(String(first), 'no donor', gone);
    this.#takeCopyIfHopeless(others.length);
    return undefined;
  }

  /** As Recloner does: nobody is left who has what this node lacks, or whoever has it is away for long. */
  #takeCopyIfHopeless(others: number): void {
    const { world, core, now, id } = this.#node;
    const lost = this.#troubles.hopeless;
    if (lost === undefined || core.state === 'member') return;
    if (lost.gone.size < others && now - lost.since < COPY_AFTER) return;
    // The proxy stays there meanwhile, as in a small cluster nothing is decided without it.
    if (world.oracle.members.has(id) || !this.#hasDonor()) return;
    world.count('copies for want of history');
    world.loop.after(0, () => takeCopy(world, this.#node));
  }

  /** Without a leader it is not known who is a member. */
  #hasDonor(): boolean {
    const { world, raft, id } = this.#node;
    return (
      raft.leader !== null &&
      world.nodes.some((one) => one.id !== id && isAtWork(one) && world.network.isReachable(one.id, id))
    );
  }

  fillGap(from: LogIndex, to: LogIndex): void {
    const { world } = this.#node;
    world.loop.in(this.#node.process, world.rng.wait(10), () => {
      const entries = this.#fromDonors(from + 1, ({ history }, hasAll) => {
        if (!hasAll(to)) return undefined;
        return history.filter(({ index }) => index > from && index <= to).sort((a, b) => a.index - b.index);
      });
      if (entries === undefined) return this.fillGap(from, to);
      world.count('gaps filled');
      let before = from;
      const decided = entries.map(({ index, gid, database }): DecidedCommit => {
        const least = world.oracle.dependsOn(gid);
        const dependsOn = world.rng.chance(0.5) ? least : before;
        before = index;
        return { index, gid, database, time: 0, dependsOn, notify: false };
      });
      this.#node.feed({ type: 'gap-filled', from, to, entries: decided });
    });
  }
}
