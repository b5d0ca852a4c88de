import { setTimeout as sleep } from 'node:timers/promises';
import { DevError, reason } from './dev-error.ts';

export interface PollOptions {
  readonly timeoutMs: number;
  readonly everyMs?: number;
  readonly signal?: AbortSignal | undefined;
  /** What to say of the state at the deadline; by default the last error that the probe threw. */
  readonly describe?: () => string | undefined;
}

/**
 * Asks `probe` until it answers something else than undefined or false. A probe that throws has not answered yet: its
 * error is kept, and told when the deadline passes.
 */
export async function poll<T>(
  what: string,
  probe: () => Promise<T | undefined | false> | T | undefined | false,
  options: PollOptions,
): Promise<T> {
  const started = performance.now();
  let last: string | undefined;
  for (;;) {
    options.signal?.throwIfAborted();
    try {
      const answer = await probe();
      if (answer !== undefined && answer !== false) return answer;
      last = undefined;
    } catch (error) {
      if (error instanceof FatalProbeError) throw new DevError(error.message);
      last = reason(error);
    }
    if (performance.now() - started > options.timeoutMs) {
      const state = options.describe?.() ?? last;
      throw new DevError(
        `${what}: not within ${options.timeoutMs / 1000} s${state === undefined ? '' : ` (${state})`}`,
      );
    }
    await sleep(options.everyMs ?? 50, undefined, { signal: options.signal });
  }
}

/** Thrown by a probe that knows that its condition can't come true any more. */
export class FatalProbeError extends Error {}
