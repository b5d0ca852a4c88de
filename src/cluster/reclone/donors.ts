import type { NodeId } from '../../runtime/ids.ts';
import type { Beat } from '../messages.ts';
import type { Donor } from './recloner.ts';

/** What this node knows of the others. */
export interface Cluster {
  readonly leader: NodeId | null;
  /** Whether the log names it as a member. */
  readonly isMember: (node: NodeId) => boolean;
  readonly isUp: (node: NodeId) => boolean;
  readonly heardOf: (node: NodeId) => Beat | undefined;
}

/**
 * The nodes that a copy can be taken of, the best one first: whoever leads the log has enough to do. One that is still named as a member but does not take
 * part just now may itself lack what nobody else has, and without a leader it is not known who is a member.
 */
export function donorsAmong(others: readonly NodeId[], { leader, isMember, isUp, heardOf }: Cluster): readonly Donor[] {
  if (leader === null) return [];
  const isAtWork = (beat: Beat | undefined): boolean => beat?.postgres === true && beat.epoch !== 0;
  return others
    .filter((node) => isUp(node) && isMember(node) && isAtWork(heardOf(node)))
    .sort((a, b) => Number(a === leader) - Number(b === leader))
    .map((node) => {
      const { committed, bypassed } = heardOf(node)!;
      return { node, committed, bypassed };
    });
}
