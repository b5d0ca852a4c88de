import { existsSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { formatLsn, type LogIndex } from '../runtime/ids.ts';
import type { Logger } from '../runtime/log.ts';
import type { ServerConnection } from '../wire/connection.ts';
import type { ControlClient } from './control-client.ts';
import { HistorySlot } from './history/history-slot.ts';
import { findSlot, isUsable, judgeLiveSlot, SlotMaker, type SlotWaits, type UnseenWal } from './slots.ts';

export interface SlotEvents {
  /** WAL was lost before it was read. Throws if that can't be noted down: it must not be forgotten. */
  unseen(wal: UnseenWal): void;
  /**
   * A backend has a transaction under way that slots wait for which are needed at once. False: it does not serve a client of this proxy, whose
   * transaction would have been rolled back.
   */
  inTheWay(pid: number): boolean;
  /** `unready` has changed. */
  readiness(): void;
}

export interface DatabaseSlotsOptions {
  /** OID of the database, and its name. */
  readonly oid: string;
  readonly database: string;
  /** `data_dir` */
  readonly directory: string;
  readonly control: ControlClient;
  readonly keeper: ControlClient;
  readonly watch: ControlClient;
  /** One more connection to the database, without timeouts. */
  readonly connect: () => Promise<ServerConnection>;
  /** The highest index that is committed, or whose COMMIT PREPARED may have been sent. */
  readonly committed: () => Promise<LogIndex>;
  /** Begins to read the live slot. */
  readonly read: (slot: string) => Promise<void>;
  readonly events: SlotEvents;
  readonly log: Logger;
}

/** Milliseconds after an attempt to make the slots that failed. */
const RETRY = 1000;
const MAKING = 'its replication slots are being made anew';
const LIVE_ANEW =
  'the slot that this node reads its own WAL through was dropped, or its WAL is gone, and begins anew: whether writes went past the proxy in between is not known';

/**
 * One database's slots: the live one, which its decoder reads at once, and the history slot. Either may be missing: at the first start, when somebody
 * has dropped it, or when PostgreSQL has given it up. What the live slot had not handed over yet is owed to nobody: what was prepared under an
 * earlier epoch is committed only if it is prepared on every member already (docs/failure.md). But writes past the proxy are found in it alone.
 */
export class DatabaseSlots {
  readonly live: string;
  readonly #options: DatabaseSlotsOptions;
  readonly #maker: SlotMaker;
  #history: HistorySlot | undefined;
  #unready: string | undefined;
  #closed = false;

  constructor(options: DatabaseSlotsOptions) {
    this.#options = options;
    this.live = `pgmm_live_${options.oid}`;
    this.#maker = new SlotMaker(options.connect, options.watch, options.log);
  }

  /** Undefined until it is there. */
  get history(): HistorySlot | undefined {
    return this.#history;
  }

  /** Why what is written here would reach no other node; undefined when the live slot is read, and history is kept. */
  get unready(): string | undefined {
    return this.#unready;
  }

  /**
   * Begins to read. Where a slot has to be made this resolves before, as that waits for all that is prepared, whose fate is found out only when this
   * database is in use.
   */
  async open(): Promise<void> {
    const { control, events, log, database } = this.#options;
    const history = await findSlot(control, this.#historyName);
    const wasHere = history !== undefined || existsSync(this.#historyNote);
    const live = judgeLiveSlot(await findSlot(control, this.live), wasHere);
    if (live === undefined && isUsable(history)) return this.#read();
    if (live?.unseen !== undefined) {
      events.unseen(live.unseen);
      const { from } = live.unseen;
      log.error({ database, slot: this.live, from: from === undefined ? null : formatLsn(from) }, LIVE_ANEW);
    }
    this.#unready = MAKING;
    void this.#make(live !== undefined);
  }

  /** Tries until it succeeds, or everything is closed. */
  async #make(isLiveMissing: boolean): Promise<void> {
    const { database, log } = this.#options;
    let isMissing = isLiveMissing;
    while (!this.#closed) {
      try {
        if (isMissing) await this.#maker.replace(this.live, true, (waits) => this.#onWaits(waits));
        isMissing = false;
        await this.#read();
        log.info({ database }, 'the replication slots of this database are there');
        this.#setUnready(undefined);
        return;
      } catch (error) {
        this.#onFailure(error as Error);
        await new Promise((resolve) => setTimeout(resolve, RETRY));
      }
    }
  }

  #onFailure(error: Error): void {
    if (this.#closed) return;
    const { database, log } = this.#options;
    const reason = `its replication slots can't be made: ${error.message}`;
    if (this.#unready !== reason) log.error({ database, err: error }, reason);
    this.#setUnready(reason);
  }

  async #read(): Promise<void> {
    const { keeper, committed, read } = this.#options;
    this.#history ??= await HistorySlot.open({
      control: keeper,
      make: (name) => this.#maker.replace(name, false, (waits) => this.#onWaits(waits)),
      name: this.#historyName,
      file: this.#historyNote,
      committed,
    });
    await read(this.live);
  }

  get #historyName(): string {
    return `pgmm_history_${this.#options.oid}`;
  }

  get #historyNote(): string {
    return join(this.#options.directory, `history-${this.#options.oid}.json`);
  }

  /**
   * A client's transaction that began before the slot would reach the others incompletely. So it could not be committed any more; while the slots are
   * all that this node waits for it is rolled back.
   */
  #onWaits({ pids, prepared }: SlotWaits): void {
    if (this.#unready === undefined) return;
    const strangers = pids.filter((pid) => !this.#options.events.inTheWay(pid)).map((pid) => `of process ${pid}`);
    const waits = [...strangers, ...prepared.map((gid) => `prepared as "${gid}"`)].join(' and the one ');
    const reason = waits === '' ? MAKING : `${MAKING}, which waits for the end of the transaction ${waits}`;
    if (reason !== this.#unready && waits !== '') this.#options.log.warn(reason);
    this.#setUnready(reason);
  }

  #setUnready(reason: string | undefined): void {
    if (this.#unready === reason) return;
    this.#unready = reason;
    this.#options.events.readiness();
  }

  close(): void {
    this.#closed = true;
  }
}

/** The data are another node's copy now, and have none of the slots that notes in `data_dir` tell of. */
export function forgetSlots(directory: string): void {
  for (const name of readdirSync(directory)) if (/^history-\d+\.json$/.test(name)) rmSync(join(directory, name));
}
