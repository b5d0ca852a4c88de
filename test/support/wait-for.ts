import { inspect } from 'node:util';
import { poll } from '../../src/cli/dev/poll.ts';

export interface WaitOptions {
  /** 10 seconds when not given. */
  readonly timeoutMs?: number;
  readonly everyMs?: number;
  /** What to show of the state when the deadline passes; by default what the probe last returned or threw. */
  readonly describe?: () => unknown;
}

type Truthy<T> = Exclude<T, undefined | null | false | 0 | ''>;

/**
 * Waits until `probe` returns something true and returns that. A probe that throws counts as not yet. The error at the
 * deadline says what was waited for and what was seen last.
 */
export async function waitFor<T>(
  what: string,
  probe: () => Promise<T> | T,
  options: WaitOptions = {},
): Promise<Truthy<T>> {
  const { timeoutMs = 10_000, everyMs = 25, describe } = options;
  let last: unknown = 'nothing seen yet';
  const found = await poll<{ value: Truthy<T> }>(
    what,
    async () => {
      try {
        last = await probe();
      } catch (error) {
        last = error;
        return undefined;
      }
      return Boolean(last) && { value: last as Truthy<T> };
    },
    { timeoutMs, everyMs, describe: () => inspect(describe === undefined ? last : describe(), { depth: 4 }) },
  );
  return found.value;
}
