import { expect } from 'vitest';
import { printFailure, runSeed } from './run.ts';
import { Summary } from './summary.ts';

/** How many runs the test files make together, each file its share of them. */
export const SEEDS = Number(process.env['SEEDS'] ?? 300);
export const STEPS = 2000;

/** The seeds from the first up to the last; every run keeps every rule, and what is usual has happened in them. */
export function runShare(first: number, last: number): void {
  const summary = new Summary();
  for (let seed = first; seed <= last; seed++) {
    const result = runSeed(seed, STEPS);
    if (result.failure !== undefined) throw new Error(printFailure(result));
    summary.add(result.steps, result.counts);
  }
  if (process.env['SEEDS'] !== undefined) console.log(summary.print());
  const runs = last - first + 1;
  if (runs < 50) return;
  const usual = [
    'committed',
    'aborted 40001',
    'catch-ups',
    'log: exclude',
    'log: admit',
    'fault: proxy crash',
    'fault: postgres crash',
  ];
  for (const what of usual) expect.soft(summary.counts.get(what), what).toBeGreaterThan(runs / 2);
}
