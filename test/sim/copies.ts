import type { SimNode } from './node.ts';
import type { World } from './world.ts';

/** Replaces a node's data by another node's, while proxy and server are down. */
export function takeCopy(world: World, node: SimNode): void {
  node.crash();
  world.crashPostgres(node);
  copyWhenOut(world, node, 40);
}

/**
 * Only a node that the log has excluded may lose what it voted for: a while is waited for that. And the donor must be a member at work that has
 * all that the log commits, or the only copy of a commit could be thrown away.
 */
function copyWhenOut(world: World, node: SimNode, patience: number): void {
  world.loop.after(world.rng.between(10, 60), () => {
    if (node.process.alive || node.postgres.process.alive) return;
    const donor = world.rng.pick(world.nodes);
    const isPossible = !world.oracle.members.has(node.id) && donor !== node && isAtWork(donor);
    if (!isPossible && patience > 0) return copyWhenOut(world, node, patience - 1);
    if (isPossible && world.oracle.hasAll(donor.postgres, Infinity)) {
      world.count('clones');
      world.note(`pg${node.id}`, `cloned from node ${donor.id} at ${donor.postgres.progress.contiguous}`);
      node.postgres.cloneFrom(donor.postgres);
    }
    node.postgres.start();
    world.startProxy(node);
  });
}

/** What others can hear of it. */
export const isAtWork = ({ process, postgres, core }: SimNode): boolean =>
  process.alive && postgres.process.alive && core.state === 'member';
