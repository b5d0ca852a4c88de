import type { HeldLock } from './session-locks.ts';

/** This backend's advisory locks in one text, NULL for none. */
export const HELD_SQL = `SELECT ${heldExpression()}`;

/** The same as an expression. */
export function heldExpression(): string {
  return `(SELECT pg_catalog.string_agg(pg_catalog.concat_ws(' ', l.classid, l.objid, l.objsubid, l.mode), ',') FROM pg_catalog.pg_locks l WHERE l.locktype = 'advisory' AND l.granted AND l.pid = pg_catalog.pg_backend_pid())`;
}

/** Reads what `heldExpression` answers ("pg_locks": the halves of a bigint key, or two keys). */
export function heldLocks(text: string | null): HeldLock[] {
  return (text ?? '')
    .split(',')
    .filter((one) => one !== '')
    .map((one) => {
      const [high, low, kind, mode] = one.split(' ');
      const [first, second] = [BigInt(high), BigInt(low)];
      const key =
        kind === '1'
          ? String(BigInt.asIntN(64, (first << 32n) | second))
          : [first, second].map((half) => BigInt.asIntN(32, half)).join();
      return { key, shared: mode === 'ShareLock' };
    });
}
