import { Violation } from './trace.ts';
import { World } from './world.ts';

export interface RunResult {
  readonly seed: number;
  readonly hash: string;
  readonly steps: number;
  readonly time: number;
  readonly counts: ReadonlyMap<string, number>;
  readonly failure: Failure | undefined;
}

export interface Failure {
  readonly rule: string;
  readonly message: string;
  readonly stack: string;
  readonly lines: readonly string[];
}

/** One seed, one run. */
export function runSeed(seed: number, steps: number, verbose = false): RunResult {
  const world = new World(seed, verbose);
  let failure: Failure | undefined;
  try {
    world.run(steps);
  } catch (error) {
    const { message, stack = '' } = error as Error;
    // The cores' own assertions name the rule first, too.
    const rule = error instanceof Violation ? error.rule : `assertion: ${message.split(/[:0-9]/)[0].trim()}`;
    failure = { rule, message, stack, lines: world.trace.last() };
  }
  for (const node of world.nodes)
    if (node.postgres.locks.deadlocks > 0)
      world.counts.set('deadlocks', (world.counts.get('deadlocks') ?? 0) + node.postgres.locks.deadlocks);
  return { seed, hash: world.trace.hash, steps: world.loop.steps, time: world.loop.now, counts: world.counts, failure };
}

export function printFailure({ seed, steps, failure }: RunResult): string {
  if (failure === undefined) return `seed ${seed}: no rule broken in ${steps} steps`;
  return [
    ...failure.lines,
    `seed ${seed}, step ${steps}: ${failure.rule}`,
    failure.message,
    failure.stack.split('\n').slice(1, 6).join('\n'),
  ].join('\n');
}
