import type { AnomalyKind } from './checker/check.ts';

export const LEVELS = ['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'] as const;
export type Level = (typeof LEVELS)[number];

/** What PostgreSQL's levels let happen, without the order that a cycle needed; anything else is forbidden. */
const ALLOWED: Record<Level, readonly string[]> = {
  'READ COMMITTED': ['G-single', 'G-nonadjacent', 'G2-item', 'lost-update'],
  'REPEATABLE READ': ['G2-item'],
  SERIALIZABLE: [],
};

/** `commit.order` of the nodes. */
export type CommitOrder = 'strict' | 'relaxed';

/**
 * What readers of a node may see, for a moment, that commits in the order "relaxed": two commits of which neither can have seen the other, in
 * either order (docs/commit-order.md). One that depends on another is still never seen without it, so a cycle needs two reads that disagree.
 */
const ALLOWED_BY_ORDER: Record<CommitOrder, readonly string[]> = {
  strict: [],
  relaxed: ['G-nonadjacent'],
};

export function isForbidden(kind: AnomalyKind, level: Level, order: CommitOrder): boolean {
  const cycle = kind.replace(/-(process|realtime)$/, '');
  return !ALLOWED[level].includes(cycle) && !ALLOWED_BY_ORDER[order].includes(cycle);
}
