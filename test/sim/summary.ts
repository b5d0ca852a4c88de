/** What happened in many runs: a run in which nothing happens proves nothing. */
export class Summary {
  runs = 0;
  failures = 0;
  #steps = 0;
  readonly counts = new Map<string, number>();
  readonly #failed = new Map<string, number[]>();

  add(steps: number, counts: ReadonlyMap<string, number>): void {
    this.runs++;
    this.#steps += steps;
    for (const [what, count] of counts) this.counts.set(what, (this.counts.get(what) ?? 0) + count);
  }

  /** Whether this is the first run that broke this rule. */
  fail(seed: number, rule: string): boolean {
    this.failures++;
    const seeds = this.#failed.get(rule);
    if (seeds === undefined) this.#failed.set(rule, [seed]);
    else seeds.push(seed);
    return seeds === undefined;
  }

  print(): string {
    const names = [...this.counts.keys()].sort();
    const width = Math.max(0, ...names.map((name) => name.length));
    const lines = names.map((name) => `  ${name.padEnd(width)} ${String(this.counts.get(name)).padStart(9)}`);
    lines.push(`${this.runs} runs, ${this.#steps} steps, ${this.failures} failed`);
    for (const [rule, seeds] of this.#failed) {
      lines.push(`  ${rule}: ${seeds.length} times, with seeds ${seeds.slice(0, 10).join(', ')}`);
    }
    return lines.join('\n');
  }
}
