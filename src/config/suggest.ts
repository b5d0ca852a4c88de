/** The name nearest to `name`, if one is near enough to have been meant. */
export function suggest(name: string, candidates: readonly string[]): string | undefined {
  const wanted = normalize(name);
  const ranked = candidates
    .map((candidate) => ({ candidate, distance: editDistance(wanted, normalize(candidate)) }))
    .sort((a, b) => a.distance - b.distance);
  const best = ranked.at(0);
  if (best === undefined) return undefined;
  return best.distance <= Math.max(1, Math.floor(best.candidate.length / 3)) ? best.candidate : undefined;
}

/** `dataDir`, `data-dir` and `data_dir` are one name to a reader. */
const normalize = (name: string): string => name.toLowerCase().replaceAll(/[-_\s]/g, '');

/** Levenshtein's distance, with neighbours swapped counted as one step. */
function editDistance(a: string, b: string): number {
  const rows = [Array.from({ length: b.length + 1 }, (_, j) => j)];
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      const substitution = rows[i - 1][j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      let best = Math.min(row[j - 1] + 1, rows[i - 1][j] + 1, substitution);
      if (i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1])
        best = Math.min(best, rows[i - 2][j - 2] + 1);
      row.push(best);
    }
    rows.push(row);
  }
  return rows[a.length][b.length];
}
