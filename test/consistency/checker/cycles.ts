import type { Edge, EdgeKind, Graph } from './graph.ts';

export type CycleKind = 'G0' | 'G1c' | 'G-single' | 'G-nonadjacent' | 'G2-item';
export type OrderSuffix = '' | '-process' | '-realtime';

export interface Cycle {
  readonly kind: `${CycleKind}${OrderSuffix}`;
  readonly edges: readonly Edge[];
}

const WEIGHT: Record<CycleKind, number> = { G0: 0, G1c: 1, 'G-single': 2, 'G-nonadjacent': 3, 'G2-item': 4 };

/**
 * Cycles of the graph, each as the strongest kind that it proves: one for every component of ww, and of ww and wr, and
 * one for every rw edge on a cycle. What needs the order of a session or of time is found last and says so.
 */
export function findCycles(graph: Graph, extra: readonly Exclude<OrderSuffix, ''>[]): Cycle[] {
  const found: Cycle[] = [];
  const known = new Map<string, number>();
  const orders: EdgeKind[] = [];
  for (const suffix of ['', ...extra] as const) {
    if (suffix !== '') orders.push(suffix === '-process' ? 'process' : 'realtime');
    for (const { kind, edges } of cyclesWith(graph, orders)) {
      const needed = suffix === '' || edges.some((edge) => edge.kind === orders.at(-1));
      const name = `${kind} ${edges[0].from} ${edges[0].to}`;
      if (!needed || (known.get(name) ?? Infinity) <= WEIGHT[kind]) continue;
      known.set(name, WEIGHT[kind]);
      found.push({ kind: `${kind}${suffix}`, edges });
    }
  }
  return found;
}

function cyclesWith(graph: Graph, orders: readonly EdgeKind[]): { kind: CycleKind; edges: Edge[] }[] {
  const writes = new Set<EdgeKind>(['ww', ...orders]);
  const information = new Set<EdgeKind>([...writes, 'wr']);
  const all = new Set<EdgeKind>([...information, 'rw']);
  const found = [...ofComponents(graph, 'G0', 'ww', writes), ...ofComponents(graph, 'G1c', 'wr', information)];
  const components = graph.components(all);
  for (const edge of graph.edges(new Set(['rw']))) {
    if (components.get(edge.from) !== components.get(edge.to)) continue;
    const single = graph.cycle(edge, information);
    const apart = single ?? graph.cycle(edge, all, true);
    const edges = apart ?? graph.cycle(edge, all);
    if (edges === undefined) continue;
    found.push({ kind: single ? 'G-single' : apart ? 'G-nonadjacent' : 'G2-item', edges });
  }
  return found;
}

/** One cycle of every component, through an edge of the kind that makes it what it is. */
function ofComponents(
  graph: Graph,
  kind: CycleKind,
  through: EdgeKind,
  kinds: ReadonlySet<EdgeKind>,
): { kind: CycleKind; edges: Edge[] }[] {
  const components = graph.components(kinds);
  const done = new Set<number>();
  const found = [];
  for (const edge of graph.edges(new Set([through]))) {
    const component = components.get(edge.from);
    if (component === undefined || component !== components.get(edge.to) || done.has(component)) continue;
    const edges = graph.cycle(edge, kinds);
    if (edges === undefined) continue;
    done.add(component);
    found.push({ kind, edges });
  }
  return found;
}
