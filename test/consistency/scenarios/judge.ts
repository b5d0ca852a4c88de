import { COMMITTED } from './run-order.ts';
import type { Outcome } from './target.ts';

/** With these a cluster may end a transaction that one server lets commit, as long as the rest is as if it had never run. */
const ABORTS: ReadonlySet<string> = new Set(['40001', '40P01', '23505', '23503', '23P01']);

/** What one server can come to. */
export class Possible {
  readonly #outcomes = new Set<string>();
  /** Without the errors of those that did not commit. */
  readonly #effects = new Set<string>();
  readonly codes = new Set<string>();
  waited = false;

  add(outcome: Outcome): void {
    this.#outcomes.add(keyOf(outcome));
    this.#effects.add(effectOf(outcome));
    for (const { end } of outcome.ends) if (end !== COMMITTED) this.codes.add(end);
    this.waited ||= outcome.waited;
  }

  /** As if the sessions that are not named had been rolled back before they did anything. */
  addWithout(outcome: Outcome, who: readonly number[], sessions: number): void {
    const ends = Array.from({ length: sessions }, (_, i) => {
      const at = who.indexOf(i);
      return at === -1 ? { end: 'absent', reads: [] } : outcome.ends[at];
    });
    this.#effects.add(effectOf({ ...outcome, ends }));
  }

  /** What is wrong with an outcome on the cluster; undefined where nothing is. */
  verdict(outcome: Outcome): string | undefined {
    if (outcome.states.some((state) => state !== outcome.states[0])) return `nodes differ: ${show(outcome)}`;
    if (this.#outcomes.has(keyOf(outcome))) return undefined;
    const strange = outcome.ends.find(({ end }) => end !== COMMITTED && !ABORTS.has(end) && !this.codes.has(end));
    if (strange !== undefined) return `an error that is no lost conflict: ${show(outcome)}`;
    if (this.#effects.has(effectOf(outcome))) return undefined;
    return `one server never comes to this: ${show(outcome)}`;
  }
}

function keyOf({ ends, states }: Outcome): string {
  return JSON.stringify([ends, states[0]]);
}

/** What is left of it: who committed, what those have read, and the state. */
function effectOf({ ends, states }: Outcome): string {
  return JSON.stringify([ends.map(({ end, reads }) => (end === COMMITTED ? reads : 'not')), states[0]]);
}

function show({ ends, states }: Outcome): string {
  const sessions = ends.map(({ end, reads }) => [end, ...reads].join(' '));
  return `${sessions.join(' | ')} → ${[...new Set(states)].join(' <> ')}`;
}
