import type { ClientBase } from 'pg';
import { FIRING_ON_REPLAY } from './sql/firing.ts';

/** A trigger or rule that fires where another node's transaction is replayed. */
export interface FiringOnReplay {
  /** Such as `trigger audit of table public.orders`. */
  readonly what: string;
  /** Makes it fire where the client's own statement runs, and there only. */
  readonly cure: string;
}

/** What there is of that in a database that is to be, or is, one of a cluster. */
export async function findFiringOnReplay(client: ClientBase): Promise<FiringOnReplay[]> {
  const { rows } = await client.query<FiringOnReplay>(FIRING_ON_REPLAY);
  // The event triggers that refuse schema statements past the proxy don't fire in such a session.
  return rows.map(({ what, cure }) => ({ what, cure: `SET session_replication_role = replica;  ${cure};` }));
}
