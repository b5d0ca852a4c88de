import { readFileSync } from 'node:fs';
import type { ControlClient } from '../control-client.ts';
import { removeDurably, replaceDurably } from '../../runtime/durable-file.ts';
import { formatLsn, logIndex, parseLsn, ZERO_LSN, type LogIndex, type Lsn } from '../../runtime/ids.ts';
import { findSlot, isUsable } from '../slots.ts';

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
  /** `server`: PostgreSQL has thrown away WAL that the slot kept, as max_slot_wal_keep_size lets it, or somebody has dropped the slot. */
  readonly reason: 'retention' | 'server';
  readonly needed: LogIndex;
  readonly from: LogIndex;
}

export interface HistorySlotOptions {
  readonly control: ControlClient;
  /** Makes the slot of that name anew, in the place of what there is, and waits for what is under way in the server. */
  readonly make: (name: string) => Promise<void>;
  readonly name: string;
  /** Where it is noted from where on the slot has everything. */
  readonly file: string;
  /** The highest index that is committed, or whose COMMIT PREPARED may have been sent. */
  readonly committed: () => Promise<LogIndex>;
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
  /** Makes the slot of that name anew. */
  readonly #make: (name: string) => Promise<void>;
  readonly #file: string;
  #from: LogIndex;
  #confirmed: Lsn;
  #samples: Sample[] = [];
  /** One look at a time: a new slot waits for what is in progress in the server. */
  #busy = false;

  private constructor(
    { control, make }: Pick<HistorySlotOptions, 'control' | 'make'>,
    name: string,
    file: string,
    from: LogIndex,
    confirmed: Lsn,
  ) {
    this.#control = control;
    this.#make = make;
    this.name = name;
    this.#file = file;
    this.#from = from;
    this.#confirmed = confirmed;
  }

  /** Creates the slot if it's missing, or of no use as its WAL is gone. */
  static async open(options: HistorySlotOptions): Promise<HistorySlot> {
    const { control, name, file, committed } = options;
    const found = await findSlot(control, name);
    if (isUsable(found))
      return new HistorySlot(options, name, file, readNote(file) ?? (await committed()), found.confirmed);
    const slot = new HistorySlot(options, name, file, 0 as LogIndex, ZERO_LSN);
    await slot.#beginAnew(committed);
    return slot;
  }

  /** The slot is created in the place of what there is. It gives what is committed from then on, and no more is promised at any moment. */
  async #beginAnew(committed: () => Promise<LogIndex>): Promise<void> {
    // For good: after a crash the note of the former slot would promise what the new one does not have.
    await removeDurably(this.#file);
    await this.#make(this.name);
    const from = await committed();
    const created = await findSlot(this.#control, this.name);
    if (created === undefined) throw new Error(`slot ${this.name} was dropped by somebody`);
    await replaceDurably(this.#file, noteOf(from));
    this.#from = from;
    this.#confirmed = created.confirmed;
    this.#samples = [];
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
   * that node, which is answered; as well as that the server has thrown away what the slot kept.
   */
  async advance(
    handedOut: () => LogIndex,
    committed: () => Promise<LogIndex>,
    needed: LogIndex,
    retention: Retention,
  ): Promise<Surrender | undefined> {
    if (this.#busy) return undefined;
    this.#busy = true;
    try {
      const found = await findSlot(this.#control, this.name);
      if (isUsable(found)) return await this.#moveOn(handedOut, needed, retention);
      await this.#beginAnew(committed);
      return { reason: 'server', needed, from: this.#from };
    } finally {
      this.#busy = false;
    }
  }

  async #moveOn(handedOut: () => LogIndex, needed: LogIndex, retention: Retention): Promise<Surrender | undefined> {
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
    // First the note: after a crash between the two it promises too little, never too much.
    await replaceDurably(this.#file, noteOf(passed.index));
    this.#from = passed.index;
    await this.#control.ask('SELECT pg_catalog.pg_replication_slot_advance($1, $2)', [
      this.name,
      formatLsn(passed.position),
    ]);
    this.#confirmed = passed.position;
    this.#samples = this.#samples.filter(({ position }) => position > passed.position);
    return isSurrender ? { reason: 'retention', needed, from: passed.index } : undefined;
  }

  /** The newest sample up to which nothing is kept any more. */
  #overdue(newest: Sample, { wal, time }: Retention): Sample | undefined {
    const limit = newest.position - BigInt(wal);
    const old = this.#samples.filter(({ at, position }) => position <= limit || at <= newest.at - time).at(-1);
    // Of what was written before this program began no sample tells: the first one stands for all of it.
    return old ?? (this.#confirmed < limit ? this.#samples.at(0) : undefined);
  }
}

const noteOf = (from: LogIndex): string => JSON.stringify({ from });

/** Undefined when there is no note: then only what is committed from now on can be promised. */
function readNote(file: string): LogIndex | undefined {
  try {
    return logIndex((JSON.parse(readFileSync(file, 'utf8')) as { from: number }).from);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT' || error instanceof SyntaxError) return undefined;
    throw error;
  }
}
