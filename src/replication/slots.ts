import type { Logger } from '../runtime/log.ts';
import { parseLsn, ZERO_LSN, type Lsn } from '../runtime/ids.ts';
import { literal } from '../runtime/sql-text.ts';
import type { ServerConnection } from '../wire/connection.ts';
import type { ControlClient } from './control-client.ts';
import { takeOver } from './origins.ts';

/** A logical slot as pg_replication_slots shows it. */
export interface FoundSlot {
  /** PostgreSQL has given it up for good, with what it kept: max_slot_wal_keep_size, idle_replication_slot_timeout, or a lower wal_level. */
  readonly isLost: boolean;
  /** Its reader has what lies before; zero while the slot is still being made. */
  readonly confirmed: Lsn;
}

export async function findSlot(control: ControlClient, name: string): Promise<FoundSlot | undefined> {
  const { rows } = await control.ask<{ confirmed: string | null; lost: boolean }>(
    `SELECT confirmed_flush_lsn::pg_catalog.text AS confirmed, wal_status IS NOT DISTINCT FROM 'lost' AS lost
     FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`,
    [name],
  );
  const row = rows.at(0);
  return row && { isLost: row.lost, confirmed: parseLsn(row.confirmed ?? '0/0') };
}

/** Whether there is something to read: not lost, and not half made by a run that was interrupted. */
export const isUsable = (slot: FoundSlot | undefined): slot is FoundSlot & { readonly isLost: false } =>
  slot !== undefined && !slot.isLost && slot.confirmed !== ZERO_LSN;

/** WAL that nobody looked at for writes past the proxy, and nobody can any more. */
export interface UnseenWal {
  /** Where it begins; undefined when that is not known. */
  readonly from: Lsn | undefined;
}

/**
 * What is to be done about the slot that this node's own WAL is read through: undefined when it is as it should be; otherwise it begins anew, and
 * `unseen` is what is missed by that, unless it is the first one. `wasHere`: this database has been read before.
 */
export function judgeLiveSlot(
  found: FoundSlot | undefined,
  wasHere: boolean,
): { readonly unseen: UnseenWal | undefined } | undefined {
  if (isUsable(found)) return undefined;
  if (found?.isLost === true) return { unseen: { from: found.confirmed === ZERO_LSN ? undefined : found.confirmed } };
  return { unseen: wasHere ? { from: undefined } : undefined };
}

/** What a new slot waits for: backends that have a transaction under way, and prepared transactions, by name, that are not this program's. */
export interface SlotWaits {
  readonly pids: readonly number[];
  readonly prepared: readonly string[];
}

/** Milliseconds between looks at what a new slot waits for. */
const LOOK_EVERY = 500;

/**
 * Makes slots. PostgreSQL waits for every transaction that is under way in the whole server then, for prepared ones too: this node's own have to be
 * settled meanwhile, so nothing that settles them may wait for the slot.
 */
export class SlotMaker {
  readonly #connect: () => Promise<ServerConnection>;
  readonly #watch: ControlClient;
  readonly #log: Logger;

  /** `connect`: a connection of its own to the database, without timeouts. */
  constructor(connect: () => Promise<ServerConnection>, watch: ControlClient, log: Logger) {
    this.#connect = connect;
    this.#watch = watch;
    this.#log = log;
  }

  /** In the place of what there is under this name. Resolves when it can be read; `waits` is told what it waits for, again and again. */
  async replace(name: string, twoPhase: boolean, waits: (found: SlotWaits) => void): Promise<void> {
    const connection = await this.#connect();
    try {
      await takeOver(this.#watch, () =>
        connection.query(
          `SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = ${literal(name)}`,
        ),
      );
      const making = connection.query(
        `SELECT pg_catalog.pg_create_logical_replication_slot(${literal(name)}, 'pgoutput', false, ${twoPhase})`,
      );
      const timer = setInterval(() => void this.#look(connection, waits), LOOK_EVERY);
      try {
        await making;
      } finally {
        clearInterval(timer);
      }
    } finally {
      connection.end();
    }
  }

  async #look({ pid }: ServerConnection, waits: (found: SlotWaits) => void): Promise<void> {
    try {
      const { rows } = await this.#watch.ask<{ pid: number; prepared: string[] }>(
        `SELECT DISTINCT pid, CASE WHEN pid = 0 THEN ARRAY(
           SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE gid NOT LIKE 'pgmm:%' ORDER BY gid) ELSE '{}' END AS prepared
         FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids($1)) pid`,
        [pid],
      );
      if (rows.length === 0) return;
      waits({
        pids: rows.map((row) => row.pid).filter((one) => one !== 0),
        prepared: rows.flatMap((row) => row.prepared),
      });
    } catch (error) {
      this.#log.warn({ err: error }, 'what a new slot waits for could not be looked up');
    }
  }
}
