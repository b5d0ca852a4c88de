export const EDGE_KINDS = ['ww', 'wr', 'rw', 'process', 'realtime'] as const;
export type EdgeKind = (typeof EDGE_KINDS)[number];

export interface Edge {
  readonly from: number;
  readonly to: number;
  readonly kind: EdgeKind;
}

/** Which transaction has to come before which, and why. */
export class Graph {
  readonly #out = new Map<number, Edge[]>();
  readonly #seen = new Set<string>();

  /** An edge to itself says nothing about an order between transactions and is left out. */
  add(from: number, to: number, kind: EdgeKind): void {
    const name = `${from} ${to} ${kind}`;
    if (from === to || this.#seen.has(name)) return;
    this.#seen.add(name);
    const edges = this.#out.get(from);
    if (edges === undefined) this.#out.set(from, [{ from, to, kind }]);
    else edges.push({ from, to, kind });
  }

  edges(kinds: ReadonlySet<EdgeKind>): Edge[] {
    return [...this.#out.values()].flat().filter(({ kind }) => kinds.has(kind));
  }

  from(node: number, kinds: ReadonlySet<EdgeKind>): Edge[] {
    return (this.#out.get(node) ?? []).filter(({ kind }) => kinds.has(kind));
  }

  /** The strongly connected component of every node (Tarjan, without recursion): nodes of one cycle have one number. */
  components(kinds: ReadonlySet<EdgeKind>): Map<number, number> {
    const index = new Map<number, number>();
    const low = new Map<number, number>();
    const component = new Map<number, number>();
    const stack: number[] = [];
    for (const root of this.#out.keys()) {
      if (index.has(root)) continue;
      const work = [this.#visit(root, index, low, stack, kinds)];
      for (let top = work.at(-1); top !== undefined; top = work.at(-1)) {
        const edge = top.edges[top.next++] as Edge | undefined;
        if (edge !== undefined) {
          if (!index.has(edge.to)) work.push(this.#visit(edge.to, index, low, stack, kinds));
          else if (!component.has(edge.to)) low.set(top.node, Math.min(low.get(top.node)!, index.get(edge.to)!));
          continue;
        }
        work.pop();
        const { node } = top;
        const parent = work.at(-1);
        if (parent !== undefined) low.set(parent.node, Math.min(low.get(parent.node)!, low.get(node)!));
        if (low.get(node) !== index.get(node)) continue;
        for (let member = stack.pop()!; ; member = stack.pop()!) {
          component.set(member, index.get(node)!);
          if (member === node) break;
        }
      }
    }
    return component;
  }

  #visit(
    node: number,
    index: Map<number, number>,
    low: Map<number, number>,
    stack: number[],
    kinds: ReadonlySet<EdgeKind>,
  ) {
    low.set(node, index.size);
    index.set(node, index.size);
    stack.push(node);
    return { node, edges: this.from(node, kinds), next: 0 };
  }

  /**
   * A shortest closed walk that begins with `first`, over edges of the given kinds. With `apart`, no two rw edges of it
   * follow each other, the last and the first included.
   */
  cycle(first: Edge, kinds: ReadonlySet<EdgeKind>, apart = false): Edge[] | undefined {
    type Place = { readonly edge: Edge; readonly before: Place | undefined };
    const seen = new Set<string>();
    let places: Place[] = [{ edge: first, before: undefined }];
    while (places.length > 0) {
      const next: Place[] = [];
      for (const place of places) {
        for (const edge of this.from(place.edge.to, kinds)) {
          if (apart && edge.kind === 'rw' && place.edge.kind === 'rw') continue;
          if (edge.to === first.from && !(apart && edge.kind === 'rw' && first.kind === 'rw')) {
            const walk = [edge];
            for (let at: Place | undefined = place; at !== undefined; at = at.before) walk.unshift(at.edge);
            return walk;
          }
          const state = `${edge.to} ${apart && edge.kind === 'rw'}`;
          if (seen.has(state)) continue;
          seen.add(state);
          next.push({ edge, before: place });
        }
      }
      places = next;
    }
    return undefined;
  }
}
