import type { CoordinatorOutcome } from '../../src/commit/core/coordinator.ts';
import type { Gid } from '../../src/runtime/ids.ts';
import type { Tx, Write } from './locks.ts';
import type { SimNode } from './node.ts';
import type { Backend, Reply } from './postgres.ts';
import { Violation } from './trace.ts';

type Change = (value: string | undefined) => string | Omit<Write, 'key' | 'base'>;

interface Statement {
  readonly key: string;
  /** Undefined for a read. */
  readonly change: Change | undefined;
}

/** How often in a row a transaction that stands may lose: each time it is older, and has fewer to lose to. */
const MOST_LOSSES = 40;
/** What a lost conflict or a deadlock is told as; a transaction that stands is run again then. */
const LOST = new Set(['40001', '40P01', '57014']);
/** Milliseconds between two transactions of those that write without a pause. */
const STEADY = 0.5;

const update =
  (f: (value: string) => string): Change =>
  (value) => ({ op: value === undefined ? 'insert' : 'update', value: f(value ?? '0') });

/** One client of a node's proxy: a transaction after the other. */
class Client {
  readonly #node: SimNode;
  readonly #name: string;
  readonly #isFirst: boolean;
  #backend: Backend | undefined;
  #life = 0;
  #count = 0;
  /** Another node's transaction won: this one has to be rolled back, if it has not come to PREPARE. */
  #overruled = false;
  #gid: Gid | undefined;
  /** PREPARE TRANSACTION is not answered yet; the outcome may be known before. */
  #preparing = false;
  #answered = false;
  /** The first that lost a conflict since a commit; its priority is kept. */
  #senior: Gid | undefined;
  #everywhere = false;
  /** It is as good as a lock of whole tables, has its name from the beginning, and gives way to older ones only (session/procedures/exclusive.ts). */
  #stands = false;
  /** What it will run again, and how often it has lost since it began to. */
  #again: readonly Statement[] | undefined;
  #losses = 0;
  committing = false;
  busy = false;

  constructor(node: SimNode, number: number) {
    this.#node = node;
    this.#isFirst = number === 1;
    this.#name = `c${node.id}${number}`;
  }

  get pid(): number | undefined {
    return this.#backend?.pid;
  }

  get isPreparing(): boolean {
    return this.#preparing;
  }

  get gid(): Gid | undefined {
    return this.#gid;
  }

  think(): void {
    const { world } = this.#node;
    const life = ++this.#life;
    const pause = world.standing === undefined ? world.settings.thinkTime : STEADY;
    world.loop.in(this.#node.process, world.rng.wait(pause), () => {
      if (life !== this.#life || !world.acceptsWork) return;
      // A node that takes no writes refuses such a statement before it has a name.
      const canStand = this.#node.core.refusal === undefined;
      if (canStand && (this.#again !== undefined || this.#isToStand()))
        this.begin(this.#again ?? this.#wholeTables(), true);
      else this.begin(world.standing === undefined ? this.#draw() : this.#hotOne());
    });
  }

  #isToStand(): boolean {
    const { world } = this.#node;
    if (world.standing !== undefined) return world.standing === this.#node && this.#isFirst;
    return world.rng.chance(world.settings.exclusive);
  }

  begin(statements: readonly Statement[], stands = false): void {
    this.#backend = this.#node.postgres.connect(this.#node.run, true);
    this.#overruled = this.committing = false;
    this.#stands = stands;
    this.#again = stands ? statements : undefined;
    this.#gid = stands ? this.#node.allocate(this.#senior) : undefined;
    this.busy = true;
    this.#life++;
    this.#everywhere = this.#node.world.rng.chance(this.#node.world.settings.everywhere);
    this.#run(statements, 0);
  }

  #run(statements: readonly Statement[], position: number): void {
    const { world, postgres, process } = this.#node;
    const backend = this.#backend!;
    const statement = statements.at(position);
    if (statement === undefined) return this.#commit();
    const { key, change } = statement;
    const command = (reply: Reply<string>): void => {
      if (change === undefined) return reply({ ok: true, value: postgres.rows.get(key)?.value ?? '' });
      if (
        backend.tx === undefined &&
        position > 0 &&
        statements.slice(0, position).some((one) => one.change !== undefined)
      ) {
        return reply({ ok: false, sqlstate: '25P02' });
      }
      if (backend.tx === undefined) postgres.begin(backend, 'client', undefined);
      postgres.write(backend, key, change, reply);
    };
    const life = this.#life;
    postgres.call<string>(process, backend, command, (result) => {
      if (life !== this.#life) return;
      if (!result.ok) return this.#failed(this.#overruled ? '40001' : result.sqlstate);
      const pause = world.rng.chance(0.1) ? world.rng.wait(30) : world.rng.between(0.1, 1);
      world.loop.in(process, pause, () => {
        if (life === this.#life) this.#run(statements, position + 1);
      });
    });
  }

  #commit(): void {
    const { core, world, postgres, replica } = this.#node;
    const backend = this.#backend!;
    if (this.#overruled) return this.#failed('40001');
    if (backend.tx === undefined || backend.tx.writes.size === 0) {
      world.count('reads');
      return this.#end();
    }
    if (core.refusal !== undefined || !replica.isUp) return this.#failed('57P03');
    const gid = this.#gid ?? this.#node.allocate(this.#senior);
    this.#gid = gid;
    this.committing = true;
    world.oracle.begun(gid, [...backend.tx.writes.values()]);
    world.count('commits asked for');
    this.#node.feed({ type: 'begin', gid, database: 'app', everywhere: this.#everywhere });
    const command = (reply: Reply<Tx>): void => {
      if (world.rng.chance(0.02)) {
        postgres.abort(backend);
        return reply({ ok: false, sqlstate: '23503' });
      }
      postgres.prepare(backend, gid, reply);
    };
    const life = this.#life;
    this.#preparing = true;
    replica.call<Tx>(backend, command, (result) => {
      const error = { sqlstate: result.ok ? '' : result.sqlstate, message: 'PREPARE failed' };
      if (result.ok) this.#node.feed({ type: 'prepared', gid });
      else
        this.#node.feed({ type: result.sqlstate.startsWith('08') ? 'prepare-unknown' : 'prepare-failed', gid, error });
      if (life !== this.#life) return;
      this.#preparing = false;
      if (this.#answered) this.#end();
    });
  }

  answer(outcome: CoordinatorOutcome): void {
    const { world } = this.#node;
    world.oracle.answered(this.#node, this.#gid!, outcome, this.#everywhere);
    const reason = outcome.type === 'committed' ? '' : ` ${outcome.error.sqlstate}`;
    world.note(this.#name, `${this.#gid!} ${outcome.type}${reason}`);
    world.count(`${outcome.type}${reason}`);
    if (outcome.type === 'committed') {
      if (this.#stands) world.count('stood and committed');
      this.#senior = undefined;
    } else if (outcome.type === 'aborted' && outcome.error.sqlstate === '40001') this.#senior ??= this.#gid;
    this.#noteEnd(outcome.type === 'aborted' ? outcome.error.sqlstate : '');
    // The session keeps its connection until PREPARE TRANSACTION is answered.
    this.#answered = true;
    if (!this.#preparing) this.#end();
  }

  /** A replay needs a lock that this transaction holds. Too late for one that has sent PREPARE. */
  overrule(): void {
    if (this.committing || this.#overruled) return;
    this.#overruled = true;
    const backend = this.#backend!;
    const { loop, rng } = this.#node.world;
    this.#node.world.count('clients overruled');
    loop.in(this.#node.postgres.process, rng.between(0.1, 1), () => this.#node.postgres.abort(backend));
  }

  #failed(sqlstate: string): void {
    this.#node.world.count(`not begun ${sqlstate}`);
    if (this.#stands && LOST.has(sqlstate)) this.#senior ??= this.#gid;
    this.#noteEnd(sqlstate);
    this.#end();
  }

  /** Whoever stands gets through, however steadily others write; but not before an older one whose changes still come out of the WAL. */
  #noteEnd(sqlstate: string): void {
    if (!this.#stands) return;
    const lost = LOST.has(sqlstate);
    if (lost && this.#node.world.isDecodingMuch) return;
    this.#losses = lost ? this.#losses + 1 : 0;
    if (!lost) this.#again = undefined;
    this.#node.world.most('most losses in a row', this.#losses);
    if (this.#losses > MOST_LOSSES)
      throw new Violation('starvation', `${this.#name} lost ${this.#losses} times in a row, with ${this.#gid!}`);
  }

  /** See ConflictVictim.standing. */
  get standing(): Gid | undefined {
    return this.#stands && this.busy && !this.committing && !this.#overruled ? this.#gid : undefined;
  }

  #end(): void {
    const { postgres } = this.#node;
    const backend = this.#backend;
    if (backend !== undefined) this.#node.world.loop.in(postgres.process, 0.2, () => postgres.hangUp(backend));
    this.busy = this.committing = this.#answered = false;
    this.#gid = undefined;
    this.think();
  }

  /** The proxy died: nobody tells this client anything. */
  lost(): void {
    if (this.committing) this.#node.world.count('clients lost while committing');
    this.#life++;
    this.#again = undefined;
    this.#losses = 0;
    this.busy = this.committing = this.#preparing = this.#answered = false;
  }

  // ---- the work

  /** One row, as quick writers change it. */
  #hotOne(): Statement[] {
    const { rng, settings } = this.#node.world;
    return [{ key: `a${rng.below(settings.hotKeys + 1)}`, change: update((value) => value) }];
  }

  /** All that is hot, in one order. */
  #wholeTables(): Statement[] {
    const mark = `${this.#name}.${++this.#count}`;
    const all = Array.from({ length: this.#node.world.settings.hotKeys + 1 }, (_, i) => i);
    return [
      ...all.map((i) => ({ key: `a${i}`, change: update((value) => value) })),
      ...all.map((i) => ({ key: `b${i}`, change: update(() => mark) })),
    ];
  }

  #draw(): Statement[] {
    const { rng, settings } = this.#node.world;
    if (rng.chance(0.1)) return [{ key: 'a0', change: undefined }];
    const mark = `${this.#name}.${++this.#count}`;
    const hot = (letter: string) => `${letter}${rng.below(settings.hotKeys + 1)}`;
    switch (rng.below(5)) {
      case 0: {
        const amount = 1 + rng.below(9);
        const from = rng.below(settings.hotKeys + 1);
        const to = (from + 1 + rng.below(settings.hotKeys)) % (settings.hotKeys + 1);
        return [
          { key: `a${from}`, change: update((value) => String(Number(value) - amount)) },
          { key: `a${to}`, change: update((value) => String(Number(value) + amount)) },
        ];
      }
      case 1:
        return [{ key: hot('l'), change: update((value) => `${value.slice(-40)},${mark}`) }];
      case 2:
        return rng
          .shuffle([hot('b'), `b${10 + rng.below(50)}`, `b${10 + rng.below(50)}`])
          .map((key) => ({ key, change: update(() => mark) }));
      case 3: {
        const key = `u${rng.below(12)}`;
        const insert: Change = (value) => (value === undefined ? { op: 'insert', value: mark } : '23505');
        const remove: Change = (value) => (value === undefined ? '02000' : { op: 'delete', value: '' });
        return [
          { key: hot('b'), change: undefined },
          { key, change: rng.chance(0.6) ? insert : remove },
        ];
      }
      default:
        return [
          { key: hot('a'), change: undefined },
          { key: `k${this.#node.id}.${rng.below(20)}`, change: update(() => mark) },
        ];
    }
  }
}

/** All clients of one node. */
export class Clients {
  readonly #node: SimNode;
  readonly #clients: Client[];

  constructor(node: SimNode) {
    this.#node = node;
    this.#clients = Array.from({ length: node.world.settings.clientsPerNode }, (_, i) => new Client(node, i + 1));
  }

  start(): void {
    for (const client of this.#clients) client.think();
  }

  lost(): void {
    for (const client of this.#clients) client.lost();
  }

  get busy(): boolean {
    return this.#clients.some((client) => client.busy);
  }

  overrule(pid: number): void {
    const client = this.#clients.find((one) => one.busy && one.pid === pid);
    if (client !== undefined) return client.overrule();
    // A stranger's, such as one that an earlier run of the proxy left behind: it may wait for a lock, and notice nothing.
    const { postgres, world } = this.#node;
    const backend = postgres.backend(pid);
    if (backend?.isClients !== true) return;
    world.count('backends terminated');
    world.loop.in(postgres.process, world.rng.between(0.1, 1), () => postgres.terminate(backend));
  }

  standing(pid: number): Gid | undefined {
    return this.#clients.find((client) => client.busy && client.pid === pid)?.standing;
  }

  answer(gid: Gid, outcome: CoordinatorOutcome): void {
    const client = this.#clients.find((one) => one.gid === gid);
    if (client === undefined) this.#node.world.unheard(this.#node, gid, outcome);
    else client.answer(outcome);
  }

  /** For the end of a run: one transaction that has to succeed in the end. */
  probe(): void {
    const key = `k${this.#node.id}.0`;
    this.#clients[0].begin([{ key, change: update(() => 'probe') }]);
  }

  /** A client's connection to the server breaks. */
  killOne(): void {
    const client = this.#node.world.rng.pick(this.#clients);
    const backend = client.pid === undefined ? undefined : this.#node.postgres.backend(client.pid);
    if (client.busy && backend !== undefined) this.#node.postgres.breakConnection(backend);
  }

  /** The connection of a client to the server breaks, and the server goes on with what it was sent: mostly of one that is at PREPARE. */
  loseOne(hold: number): void {
    const { rng } = this.#node.world;
    const busy = this.#clients.filter((client) => client.busy);
    const atPrepare = busy.filter((client) => client.isPreparing);
    const client = (atPrepare.length > 0 && rng.chance(0.8) ? atPrepare : busy).at(0);
    const backend = client?.pid === undefined ? undefined : this.#node.postgres.backend(client.pid);
    if (backend === undefined || backend.orphaned) return;
    if (client?.isPreparing === true) this.#node.world.count('connections lost at PREPARE');
    this.#node.postgres.loseConnection(backend, hold);
  }
}
