/** All orders in which sessions with so many steps can take them; each is a list of sessions, numbered from 0. */
export function allOrders(steps: readonly number[]): number[][] {
  if (steps.every((left) => left === 0)) return [[]];
  return steps.flatMap((left, who) =>
    left === 0 ? [] : allOrders(steps.map((n, i) => (i === who ? n - 1 : n))).map((rest) => [who, ...rest]),
  );
}

/** At most `count` of them, evenly spread; `seed` chooses where the first one stands. */
export function someOf<T>(all: readonly T[], count: number, seed: number): T[] {
  if (all.length <= count) return [...all];
  const pace = all.length / count;
  return Array.from({ length: count }, (_, i) => all[Math.floor(i * pace + (seed % pace))]);
}
