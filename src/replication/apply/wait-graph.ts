/** How one backend's waiting ends: at a backend that waits for nobody, or at prepared transactions that `waiter` waits for. */
export interface Wait {
  readonly root: number;
  readonly end:
    { readonly type: 'backend'; readonly pid: number } | { readonly type: 'prepared'; readonly waiter: number };
  /** Backends on the shortest way there; they wait themselves, and are served before the root. */
  readonly between: readonly number[];
}

/**
 * All ends of the root's waiting. `blockers` has whom each waiting backend waits for, as pg_blocking_pids tells it, 0 standing for
 * prepared transactions; a backend that is not in it waits for nobody. A ring of waiting has no end: PostgreSQL's own deadlock
 * detector sees to it.
 */
export function waitsOf(root: number, blockers: ReadonlyMap<number, readonly number[]>): Wait[] {
  const waits: Wait[] = [];
  const visited = new Set([root]);
  let level = [{ pid: root, between: [] as readonly number[] }];
  while (level.length > 0) {
    const next: typeof level = [];
    for (const { pid, between } of level) {
      for (const blocker of blockers.get(pid) ?? []) {
        if (blocker === 0) waits.push({ root, end: { type: 'prepared', waiter: pid }, between });
        if (blocker === 0 || visited.has(blocker)) continue;
        visited.add(blocker);
        if (blockers.has(blocker)) next.push({ pid: blocker, between: [...between, blocker] });
        else waits.push({ root, end: { type: 'backend', pid: blocker }, between });
      }
    }
    level = next;
  }
  return waits;
}
