import type { AnomalyKind } from './checker/check.ts';

export const LEVELS = ['READ COMMITTED', 'REPEATABLE READ', 'SERIALIZABLE'] as const;
export type Level = (typeof LEVELS)[number];

/** What PostgreSQL's levels let happen, without the order that a cycle needed; anything else is forbidden. */
const ALLOWED: Record<Level, readonly string[]> = {
  'READ COMMITTED': ['G-single', 'G-nonadjacent', 'G2-item', 'lost-update'],
  'REPEATABLE READ': ['G2-item'],
  SERIALIZABLE: [],
};

export function isForbidden(kind: AnomalyKind, level: Level): boolean {
  return !ALLOWED[level].includes(kind.replace(/-(process|realtime)$/, ''));
}
