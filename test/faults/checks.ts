import type { Operation } from './operations.ts';

/** The ids that one node holds, by kind of operation. */
export type Marks = Readonly<Record<Operation['kind'], readonly number[]>>;

/** What contradicts the answers that clients were given; empty when nothing does. */
export function contradictions(operations: readonly Operation[], marks: Marks): string[] {
  const found: string[] = [];
  const known = new Set(operations.map(({ id }) => id));
  const held = { transfer: new Set<number>(), append: new Set<number>(), insert: new Set<number>() };
  for (const kind of ['transfer', 'append', 'insert'] as const) {
    for (const id of marks[kind]) {
      if (held[kind].has(id)) found.push(`${kind} ${id} is there twice`);
      if (!known.has(id)) found.push(`${kind} ${id} is there and was never asked for`);
      held[kind].add(id);
    }
  }
  for (const { id, kind, node, answer, error } of operations) {
    const isThere = held[kind].has(id);
    if (answer === 'committed' && !isThere) found.push(`${kind} ${id} of node ${node} was acknowledged and is lost`);
    if (answer === 'failed' && isThere)
      found.push(`${kind} ${id} of node ${node} was reported as failed (${error ?? ''}) and is there`);
  }
  return found;
}
