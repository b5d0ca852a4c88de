/** Questions in a row before the first pause: as a rule one or two are enough, and a timer would take longer than they do. */
const ASK_AT_ONCE = 10;
/** Milliseconds of the first pause, which doubles up to the longest. */
const FIRST_PAUSE = 1;
const LONGEST_PAUSE = 100;

/** Milliseconds to wait before the question after so many that were answered with "not yet". */
export function pauseAfter(asked: number): number {
  return asked < ASK_AT_ONCE ? 0 : Math.min(FIRST_PAUSE * 2 ** (asked - ASK_AT_ONCE), LONGEST_PAUSE);
}

/**
 * PREPARE is in the WAL before the transaction's locks have gone over from its backend to what pg_locks shows of it: all of them have when the
 * backend has let go of the transaction id (PrepareTransaction in xact.c). A matter of microseconds, except where PREPARE waits for a
 * standby (synchronous_standby_names): for as long as that takes.
 */
export async function handedOver(isPreparing: () => Promise<boolean>): Promise<void> {
  for (let asked = 1; await isPreparing(); asked++) {
    const milliseconds = pauseAfter(asked);
    if (milliseconds > 0) await new Promise((resolve) => setTimeout(resolve, milliseconds));
  }
}
