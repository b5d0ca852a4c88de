import { readFileSync } from 'node:fs';
import { open, rename } from 'node:fs/promises';
import type { ControlClient } from '../control-client.ts';
import { formatLsn, logIndex, parseLsn, type LogIndex, type Lsn } from '../../runtime/ids.ts';

interface Sample {
  /** Monotonic milliseconds. */
  readonly at: number;
  /** Every COMMIT PREPARED of a higher index was sent after `position` was read. */
  readonly index: LogIndex;
  readonly position: Lsn;
}

/** How much is kept for nodes that are away. */
export interface Retention {
  /** Bytes of WAL. */
  readonly wal: number;
  /** Milliseconds. */
  readonly time: number;
}

/** What `advance` gave up: the slot passed what some node still needs. */
export interface Surrender {
  readonly needed: LogIndex;
  readonly from: LogIndex;
  readonly bytes: bigint;
}

/** Samples that are kept; older ones are thinned out, which only makes the slot advance in larger steps. */
const MAX_SAMPLES = 1000;
/** Bytes of WAL for which advancing the slot, which decodes them once more, is worth it. */
const STEP = 16n * 1024n * 1024n;

/**
 * The slot that keeps this database's WAL for nodes that are away: not two-phase, so that whole transactions come in commit
 * order, which is log order. It is never read itself. A reader works on a copy; the slot moves on when every node has
 * committed what lies before.
 */
export class HistorySlot {
  readonly name: string;
  readonly #control: ControlClient;
  readonly #file: string;
  #from: LogIndex;
  #confirmed: Lsn;
  #samples: Sample[] = [];

  private constructor(control: ControlClient, name: string, file: string, from: LogIndex, confirmed: Lsn) {
    this.#control = control;
    this.name = name;
    this.#file = file;
    this.#from = from;
    this.#confirmed = confirmed;
  }

  /** Creates the slot if it's missing. `handedOut`: the highest index whose COMMIT PREPARED may have been sent. */
  static async open(
    control: ControlClient,
    name: string,
    file: string,
    handedOut: () => LogIndex,
  ): Promise<HistorySlot> {
    const find = async () =>
      (
        await control.ask<{ confirmed: string }>(
          `SELECT confirmed_flush_lsn::pg_catalog.text AS confirmed FROM pg_catalog.pg_replication_slots
           WHERE slot_name = $1 AND wal_status IS DISTINCT FROM 'lost'`,
          [name],
        )
      ).rows[0] as { confirmed: string } | undefined;
    const found = await find();
    const noted = found === undefined ? undefined : readNote(file);
    if (found !== undefined) {
      return new HistorySlot(control, name, file, noted ?? handedOut(), parseLsn(found.confirmed));
    }
    // A slot whose WAL is gone is of no use to anyone.
    await control.ask(
      'SELECT pg_catalog.pg_drop_replication_slot(slot_name) FROM pg_catalog.pg_replication_slots WHERE slot_name = $1',
      [name],
    );
    await control.ask(`SELECT pg_catalog.pg_create_logical_replication_slot($1, 'pgoutput', false, false)`, [name]);
    const slot = new HistorySlot(control, name, file, handedOut(), parseLsn((await find())?.confirmed ?? '0/0'));
    await slot.#note(slot.#from);
    return slot;
  }

  /** WAL that was durable when this was last looked at. */
  get flushed(): Lsn | undefined {
    return this.#samples.at(-1)?.position;
  }

  /** Bytes of WAL since about what was committed up to this index; samples are some seconds apart. */
  walSince(index: LogIndex): number {
    const newest = this.#samples.at(-1);
    if (newest === undefined) return 0;
    const passed = this.#samples.filter((sample) => sample.index <= index).at(-1);
    return Number(newest.position - (passed?.position ?? this.#confirmed));
  }

  /** A copy of the slot gives every commit with a higher index than this. */
  get from(): LogIndex {
    return this.#from;
  }

  /**
   * To be called every few seconds. `needed`: the lowest index that some node may ask to go on from. Beyond the retention the slot moves on without
   * that node, which is answered.
   */
  async advance(handedOut: () => LogIndex, needed: LogIndex, retention: Retention): Promise<Surrender | undefined> {
    const { rows } = await this.#control.ask<{ position: string }>(
      'SELECT pg_catalog.pg_current_wal_flush_lsn()::pg_catalog.text AS position',
    );
    const newest = { at: performance.now(), index: handedOut(), position: parseLsn(rows[0].position) };
    this.#samples.push(newest);
    if (this.#samples.length > MAX_SAMPLES) this.#samples = this.#samples.filter((_, i) => i % 2 === 1);
    const wanted = this.#samples.filter(({ index }) => index <= needed).at(-1);
    const overdue = this.#overdue(newest, retention);
    const isSurrender = overdue !== undefined && overdue.index > (wanted?.index ?? needed);
    const passed = isSurrender ? overdue : wanted;
    if (passed === undefined || passed.position - this.#confirmed < STEP) return undefined;
    const bytes = newest.position - this.#confirmed;
    // First the note: after a crash between the two it promises too little, never too much.
    await this.#note(passed.index);
    this.#from = passed.index;
    await this.#control.ask('SELECT pg_catalog.pg_replication_slot_advance($1, $2)', [
      this.name,
      formatLsn(passed.position),
    ]);
    this.#confirmed = passed.position;
    this.#samples = this.#samples.filter(({ position }) => position > passed.position);
    return isSurrender ? { needed, from: passed.index, bytes } : undefined;
  }

  /** The newest sample up to which nothing is kept any more. */
  #overdue(newest: Sample, { wal, time }: Retention): Sample | undefined {
    const limit = newest.position - BigInt(wal);
    const old = this.#samples.filter(({ at, position }) => position <= limit || at <= newest.at - time).at(-1);
    // Of what was written before this program began no sample tells: the first one stands for all of it.
    return old ?? (this.#confirmed < limit ? this.#samples.at(0) : undefined);
  }

  async #note(from: LogIndex): Promise<void> {
    const file = await open(`${this.#file}.new`, 'w', 0o600);
    try {
      await file.writeFile(JSON.stringify({ from }));
      await file.datasync();
    } finally {
      await file.close();
    }
    await rename(`${this.#file}.new`, this.#file);
  }
}

/** Undefined when there is no note: then only what is committed from now on can be promised. */
function readNote(file: string): LogIndex | undefined {
  try {
    return logIndex((JSON.parse(readFileSync(file, 'utf8')) as { from: number }).from);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}
