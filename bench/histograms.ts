/** Sum and count of histograms, by a short name: `decode` for a phase, else the metric's name without `pgmm_` and unit. */
export type Sums = ReadonlyMap<string, { readonly sum: number; readonly count: number }>;

const LINE = /^pgmm_(\w+)_seconds_(sum|count)(?:\{phase="(\w+)"\})? (\S+)$/gm;

/** Reads a page of /metrics. */
export function readSums(page: string): Sums {
  const sums = new Map<string, { sum: number; count: number }>();
  for (const match of page.matchAll(LINE)) {
    const [, metric, part] = match;
    const name = (match[3] as string | undefined) ?? metric;
    const entry = sums.get(name) ?? { sum: 0, count: 0 };
    entry[part as 'sum' | 'count'] = Number(match[4]);
    sums.set(name, entry);
  }
  return sums;
}

/** The mean of what several proxies have observed between two readings, in milliseconds; without what nobody observed. */
export function means(before: readonly Sums[], after: readonly Sums[]): Record<string, number> {
  const names = new Set(after.flatMap((sums) => [...sums.keys()]));
  const found: Record<string, number> = {};
  for (const name of names) {
    const total = (all: readonly Sums[], part: 'sum' | 'count'): number =>
      all.reduce((sum, one) => sum + (one.get(name)?.[part] ?? 0), 0);
    const count = total(after, 'count') - total(before, 'count');
    if (count > 0) found[name] = (1000 * (total(after, 'sum') - total(before, 'sum'))) / count;
  }
  return found;
}

/** The values of a metric without histogram, one for each set of labels. */
export function values(page: string, metric: string): number[] {
  return page
    .split('\n')
    .filter((line) => line.startsWith(`${metric}{`) || line.startsWith(`${metric} `))
    .map((line) => Number(line.slice(line.lastIndexOf(' ') + 1)));
}
