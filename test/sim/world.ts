import type { NodeEffect, NodeEvent } from '../../src/cluster/core/types.ts';
import type { CoordinatorOutcome } from '../../src/commit/core/coordinator.ts';
import type { LogCommand } from '../../src/commit/core/types.ts';
import { nodeId, type Gid, type NodeId } from '../../src/runtime/ids.ts';
import { describeEffect, describeEvent } from './describe.ts';
import { Faults } from './faults.ts';
import { checkLocks } from './lock-clients.ts';
import { Loop } from './loop.ts';
import { Network } from './network.ts';
import { SimNode } from './node.ts';
import { Oracle } from './oracle.ts';
import { Rng } from './rng.ts';
import { drawSettings, type SimSettings } from './settings.ts';
import { Trace, Violation } from './trace.ts';

/** Faults go on for at least this much virtual time: several times every timeout. */
const CHAOS = 3000;
/** How long load goes on without faults, and without anything running into a timeout. */
const CALM = 600;
/** After the faults have ended, everything must be well within this much virtual time, or this many steps. */
const PATIENCE = 60_000;
const MAX_HEALING_STEPS = 400_000;

/** A cluster in a box: everything that happens in it follows from the seed. */
export class World {
  readonly seed: number;
  readonly loop = new Loop();
  readonly rng: Rng;
  readonly settings: SimSettings;
  readonly trace: Trace;
  readonly oracle: Oracle;
  readonly network: Network;
  readonly nodes: readonly SimNode[];
  readonly nodeIds: readonly NodeId[];
  readonly counts = new Map<string, number>();
  readonly #faults: Faults;
  acceptsWork = true;
  /** The one client that locks all that is hot, again and again, while all others write without a pause. */
  standing: SimNode | undefined;
  #partition = 0;
  #hasFaults = true;
  #decodingUntil = 0;

  constructor(seed: number, verbose = false) {
    this.seed = seed;
    this.rng = new Rng(seed);
    this.settings = drawSettings(this.rng);
    this.trace = new Trace(verbose);
    this.oracle = new Oracle(() => this.nodes);
    this.nodeIds = Array.from({ length: this.settings.nodes }, (_, i) => nodeId(i + 1));
    this.nodes = this.nodeIds.map((id) => new SimNode(this, id));
    this.network = new Network(this.loop, this.rng, this.nodes);
    this.#faults = new Faults(this);
  }

  /** Faults for so many steps, then none until all is well. Throws a Violation. */
  run(steps: number): void {
    for (const node of this.nodes) {
      node.postgres.start();
      this.startProxy(node);
    }
    // Some runs meet their first fault before there is a leader.
    this.loop.after(this.rng.pick([0, 300, 600]), () => this.#faults.start());
    while (this.loop.steps < steps || this.loop.now < CHAOS) this.#step();
    this.#heal();
  }

  #step(): void {
    if (!this.loop.step()) throw new Violation('liveness', 'nothing is going to happen any more');
    for (const node of this.nodes) this.oracle.check(node);
    checkLocks(this.nodes);
    if (this.loop.steps % 64 === 0) for (const node of this.nodes) this.oracle.checkTables(node, 60);
  }

  // ---- the end

  #heal(): void {
    this.#hasFaults = false;
    this.note('====', 'the faults end');
    this.#partition++;
    this.network.heal();
    this.network.slowness = 1;
    for (const node of this.nodes) {
      node.diskSlowness = node.postgres.slowness = 1;
      this.loop.resume(node.process);
      this.loop.resume(node.postgres.process);
      if (!node.postgres.process.alive) node.postgres.start();
      this.startProxy(node);
    }
    // Load goes on for a while: the nodes have to come back under it.
    this.#until('all nodes are members', () => this.nodes.every((node) => node.core.state === 'member'));
    this.#calm();
    this.#stand();
    this.acceptsWork = false;
    this.#until('all clients are answered', () => this.nodes.every((node) => !node.clients.busy));
    this.#until('all locks are had and let go of', () => this.nodes.every((node) => !node.locks.busy));
    if (this.nodes.length > 2) this.#loseOne();
    for (const node of this.nodes) this.#probe(node);
    this.#until('all is settled', () => this.nodes.every((node) => this.#isSettled(node)));
    this.oracle.checkEnd();
  }

  /**
   * Load without faults: conflicts have to be settled by rules, not by timeouts, so nobody is excluded and no client is
   * refused for lack of a decision. What the faults left behind may take a while.
   */
  #calm(): void {
    const timeouts = (): string =>
      JSON.stringify(
        ['log: exclude', 'aborted 57P03', 'unknown 08007', 'lock leases over'].map(
          (what) => this.counts.get(what) ?? 0,
        ),
      );
    const seen: string[] = [];
    for (let attempt = 0; attempt < 8; attempt++) {
      this.#until('all nodes take writes', () => this.nodes.every((node) => node.core.refusal === undefined));
      const before = timeouts();
      const end = this.loop.now + CALM;
      this.#until('time passes', () => this.loop.now >= end);
      if (timeouts() === before) return;
      seen.push(before);
    }
    throw new Violation(
      'calm',
      `exclusions, refusals, unknown outcomes, lost locks without faults: ${seen.join(', ')}`,
    );
  }

  /** Steady writes: what locks whole tables gets through all the same, and does not lose for ever. */
  #stand(): void {
    this.standing = this.rng.pick(this.nodes);
    const before = this.counts.get('stood and committed') ?? 0;
    this.#until(
      'who locks all that is hot gets through',
      () => (this.counts.get('stood and committed') ?? 0) >= before + 3,
    );
    this.standing = undefined;
  }

  /** A majority goes on: with one node dead and nobody's transactions under way, the others exclude it and commit. */
  #loseOne(): void {
    const lost = this.rng.pick(this.nodes);
    const others = this.nodes.filter((node) => node !== lost);
    this.note('====', `node ${lost.id} is lost`);
    lost.locks.last.takeLast();
    this.#until('it holds a lock', () => lost.locks.last.hasLast);
    for (const node of others) node.locks.last.takeLast();
    lost.crash();
    this.crashPostgres(lost);
    this.#until('the lost node is excluded', () => !this.oracle.members.has(lost.id));
    this.#until('the other nodes take writes', () => others.every((node) => node.core.refusal === undefined));
    for (const node of others) this.#probe(node);
    for (let left = others; left.length > 0; left = left.filter((node) => node.locks.last.busy)) {
      this.#until('its lock is given to another node', () => left.some((node) => node.locks.last.hasLast));
      left.find((node) => node.locks.last.hasLast)?.locks.last.end();
    }
    lost.postgres.start();
    this.startProxy(lost);
    this.#until('all nodes are members', () => this.nodes.every((node) => node.core.state === 'member'));
  }

  #isSettled(node: SimNode): boolean {
    const { core, postgres, clients } = node;
    if (clients.busy || !core.guard.locks.isEmpty || core.state !== 'member' || postgres.prepared.size > 0)
      return false;
    if (postgres.history.length !== this.oracle.commitCount) return false;
    return core.coordinator.list().length === 0 && core.participant.list().length === 0;
  }

  /** New transactions commit on every node. A conflict may make one fail; not for long. */
  #probe(node: SimNode): void {
    for (let attempt = 1; attempt <= 20; attempt++) {
      const before = this.counts.get('committed') ?? 0;
      const start = this.loop.now + (attempt - 1) * 50;
      this.#until('time passes', () => this.loop.now >= start);
      node.clients.probe();
      this.#until(`the last transaction of node ${node.id} is answered`, () => !node.clients.busy);
      if ((this.counts.get('committed') ?? 0) > before) return;
    }
    throw new Violation('liveness', `no new transaction commits on node ${node.id}`);
  }

  #until(what: string, isSo: () => boolean): void {
    const deadline = this.loop.now + PATIENCE;
    const last = this.loop.steps + MAX_HEALING_STEPS;
    while (!isSo()) {
      if (this.loop.now > deadline || this.loop.steps > last) {
        for (const node of this.nodes) this.note(`n${node.id}`, node.describe());
        throw new Violation('liveness', `not so within ${PATIENCE} ms: ${what}`);
      }
      this.#step();
    }
  }

  // ---- what faults do

  /** The later part of a fault: not once all faults have ended, as everything is whole then. */
  later(delay: number, act: () => void): void {
    this.loop.after(delay, () => {
      if (this.#hasFaults) act();
    });
  }

  startProxy(node: SimNode): void {
    if (!node.process.alive) node.start();
  }

  crashPostgres(node: SimNode): void {
    const { life } = node.postgres.process;
    node.postgres.crash();
    this.loop.in(node.process, this.rng.wait(15), () => node.replica.onServerGone(life));
  }

  newPartition(cut: ReadonlySet<number>): number {
    this.network.partition(cut);
    return ++this.#partition;
  }

  healPartition(number: number): void {
    if (number === this.#partition) this.network.heal();
  }

  /** Afterwards everything has to come right. */
  get hasFaults(): boolean {
    return this.#hasFaults;
  }

  /** Some server's WAL takes that long to tell a large transaction, or a part of it. */
  decodingMuch(milliseconds: number): void {
    this.#decodingUntil = Math.max(this.#decodingUntil, this.loop.now + milliseconds);
  }

  get isDecodingMuch(): boolean {
    return this.loop.now <= this.#decodingUntil;
  }

  // ---- what is written down

  note(who: string, what: string): void {
    this.trace.add(this.loop.now, who, what);
  }

  noteEvent(node: SimNode, event: NodeEvent): void {
    const text = describeEvent(event);
    if (text !== undefined) this.note(`n${node.id}`, text);
  }

  noteEffect(node: SimNode, effect: NodeEffect): void {
    const text = describeEffect(effect);
    if (text !== undefined) this.note(`n${node.id}`, text);
  }

  count(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1);
  }

  most(what: string, count: number): void {
    this.counts.set(what, Math.max(count, this.counts.get(what) ?? 0));
  }

  logged(index: number, command: LogCommand | undefined): void {
    this.count(`log: ${command?.type ?? 'no-op'}`);
    this.note('LOG', `${index} ${command === undefined ? 'no-op' : JSON.stringify(command)}`);
  }

  /** An answer for a client that has gone. It has to be right all the same. */
  unheard(node: SimNode, gid: Gid, outcome: CoordinatorOutcome): void {
    this.count('answers unheard');
    this.oracle.answered(node, gid, outcome, false);
  }
}
