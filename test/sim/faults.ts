import { takeCopy } from './copies.ts';
import type { SimNode } from './node.ts';
import type { Rng } from './rng.ts';
import type { World } from './world.ts';

type Fault = (world: World, node: SimNode) => void;

const downtime = (rng: Rng): number => rng.wait(rng.pick([30, 200, 700]));

function restartLater(world: World, node: SimNode): void {
  world.later(downtime(world.rng), () => world.startProxy(node));
}

function pause(world: World, node: SimNode, which: 'process' | 'postgres'): void {
  const process = which === 'process' ? node.process : node.postgres.process;
  if (!process.alive || process.stopped) return;
  process.stopped = true;
  const { life } = process;
  world.later(downtime(world.rng), () => {
    if (process.life === life) world.loop.resume(process);
  });
}

function partition(world: World, chosen: (from: number, to: number) => boolean): void {
  const cut = new Set<number>();
  for (const from of world.nodeIds)
    for (const to of world.nodeIds) if (from !== to && chosen(from, to)) cut.add(from * 64 + to);
  if (cut.size === 0) return;
  const epoch = world.newPartition(cut);
  world.later(downtime(world.rng) * 1.5, () => world.healPartition(epoch));
}

const sides = (world: World): Set<number> => new Set(world.nodeIds.filter(() => world.rng.chance(0.5)));

const FAULTS: Readonly<Record<string, Fault>> = {
  'proxy crash': (world, node) => {
    node.crash();
    restartLater(world, node);
  },
  'postgres crash': (world, node) => {
    world.crashPostgres(node);
    world.later(downtime(world.rng), () => node.postgres.start());
  },
  'node crash': (world, node) => {
    node.crash();
    world.crashPostgres(node);
    world.later(downtime(world.rng), () => node.postgres.start());
    restartLater(world, node);
  },
  /** So many may forget that those who don't are a majority: of more, nobody could tell what was decided. */
  'emptied disk': (world, node) => {
    const forgetful = world.nodes.filter((one) => one === node || !one.memory.counts);
    if (forgetful.length > world.nodes.length - (Math.floor(world.nodes.length / 2) + 1)) return;
    world.count('disks emptied');
    node.emptyDisk();
    restartLater(world, node);
  },
  'clone anew': takeCopy,
  'all nodes crash': (world) => {
    for (const node of world.nodes) {
      if (world.rng.chance(0.2)) continue;
      node.crash();
      if (world.rng.chance(0.7)) world.crashPostgres(node);
      world.later(downtime(world.rng), () => node.postgres.start());
      restartLater(world, node);
    }
  },
  /** What is prepared and was not read yet is not read any more. The proxy notices, as its connection ends. */
  'live slot lost': (world, node) => {
    node.postgres.slot.lose();
    const { life } = node.postgres.process;
    world.loop.in(node.process, world.rng.wait(3), () => node.replica.onServerGone(life));
  },
  'history lost': (world, node) => {
    const all = world.rng.chance(0.5);
    for (const one of all ? world.nodes : [node]) one.postgres.loseHistory();
  },
  'proxy pause': (world, node) => pause(world, node, 'process'),
  'postgres pause': (world, node) => pause(world, node, 'postgres'),
  'node pause': (world, node) => {
    pause(world, node, 'process');
    pause(world, node, 'postgres');
  },
  'symmetric partition': (world) => {
    const side = sides(world);
    partition(world, (from, to) => side.has(from) !== side.has(to));
  },
  'one-way partition': (world) => {
    const side = sides(world);
    partition(world, (from, to) => side.has(from) && !side.has(to));
  },
  isolation: (world, node) =>
    partition(world, (from, to) => from === (node.id as number) || to === (node.id as number)),
  flapping: (world, node) => {
    for (let i = 0; i < 6; i++) {
      world.later(i * world.rng.between(20, 120), () =>
        partition(
          world,
          (from, to) => (from === (node.id as number)) !== (to === (node.id as number)) && world.rng.chance(0.7),
        ),
      );
    }
  },
  'broken link': (world) => {
    for (let i = world.rng.below(3); i >= 0; i--) world.network.breakOne();
  },
  'slow disk': (world, node) => {
    const factor = world.rng.pick([10, 60]);
    node.diskSlowness = factor;
    if (world.rng.chance(0.5)) node.postgres.slowness = factor;
    world.later(downtime(world.rng) * 2, () => {
      node.diskSlowness = node.postgres.slowness = 1;
    });
  },
  'slow network': (world) => {
    world.network.slowness = world.rng.pick([8, 30]);
    world.later(downtime(world.rng), () => {
      world.network.slowness = 1;
    });
  },
  'clock jump': (world, node) => {
    node.skew += world.rng.pick([-1, 1]) * world.rng.wait(3_600_000);
  },
  'killed backend': (_world, node) => node.clients.killOne(),
  /** Looked for often, as PREPARE takes a moment only. */
  'lost connections': (world, node) => {
    for (let i = 0; i < 12; i++) {
      const hold = world.rng.chance(0.3) ? 0 : downtime(world.rng);
      world.later(i * world.rng.between(1, 12), () => node.clients.loseOne(hold));
    }
  },
  'leadership transfer': (world, node) => {
    const leader = world.nodes.find((one) => one.process.alive && one.raft.role === 'leader');
    if (leader !== undefined && leader !== node && !leader.process.stopped)
      leader.stepRaft({ type: 'transferLeadership', to: node.id });
  },
  campaign: (_world, node) => {
    if (node.process.alive && !node.process.stopped) node.stepRaft({ type: 'campaign' });
  },
};

/** A seed's faults: some of the kinds, at some rate. What a run never meets, another one meets often. */
export class Faults {
  readonly #world: World;
  readonly #kinds: string[];
  readonly #every: number;

  constructor(world: World) {
    this.#world = world;
    const { rng } = world;
    const names = Object.keys(FAULTS);
    this.#kinds = rng.chance(0.3) ? names : rng.shuffle([...names]).slice(0, 2 + rng.below(6));
    this.#every = rng.pick([60, 150, 400]);
    for (const node of world.nodes) {
      node.drift = rng.between(0.85, 1.15);
      node.skew = rng.chance(0.3) ? rng.between(-7_200_000, 7_200_000) : rng.between(-50, 50);
    }
  }

  start(): void {
    this.#next();
  }

  #next(): void {
    const world = this.#world;
    world.later(world.rng.wait(this.#every), () => {
      const kind = world.rng.pick(this.#kinds);
      const node = world.rng.pick(world.nodes);
      world.note('====', `${kind} (node ${node.id})`);
      world.count(`fault: ${kind}`);
      FAULTS[kind](world, node);
      this.#next();
    });
  }
}
