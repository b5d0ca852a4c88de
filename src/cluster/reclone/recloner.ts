import { rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { NodeId } from '../../runtime/ids.ts';
import type { Logger } from '../../runtime/log.ts';
import { BackupReceiver } from '../../replication/base-backup/backup-receiver.ts';
import type { Tablespace } from '../../replication/base-backup/tablespaces.ts';
import type { CloneClient } from './clone-client.ts';
import type { DataDirectory } from './data-directory.ts';

/** Written by `pgmm reclone` into `data_dir`. */
export const REQUEST_FILE = 'reclone-request';

/** Why no donor can bring this node up to date. */
export interface Hopeless {
  /** Nodes whose history begins after what this node has. */
  readonly gone: ReadonlySet<NodeId>;
  /** Monotonic milliseconds at which the first of them said so. */
  readonly since: number;
}

export interface RecloneStatus {
  /** `held`: a copy is needed and is not made, for the reason in `problem`. */
  readonly state: 'held' | 'copying' | 'complete' | 'failed';
  readonly donor: number | null;
  /** Bytes that have come, and that are to come as the donor estimates. */
  readonly bytes: number;
  readonly total: number;
  readonly problem: string | null;
}

export interface Donor {
  readonly node: NodeId;
  /** Its data have writes that no other node has: a copy of them would have them, too. */
  readonly bypassed: boolean;
}

interface Need {
  readonly asked: boolean;
  readonly reason: string;
}

export interface RecloneOptions {
  readonly automatic: boolean;
  /** Undefined where nobody has said where PostgreSQL's data are. */
  readonly data: DataDirectory | undefined;
  readonly wait: number;
  /** `data_dir` of the proxy. */
  readonly directory: string;
  /** The other nodes with data. */
  readonly others: readonly NodeId[];
  readonly client: CloneClient;
  /** Where the donor's tablespaces go on this node. Rejects if that is not known. */
  readonly place: (donors: readonly Tablespace[]) => Promise<readonly Tablespace[]>;
  readonly hopeless: () => Hopeless | undefined;
  /** Members that can be reached, the best donor first. */
  readonly donors: () => readonly Donor[];
  /** Why this node's data must not be thrown away before somebody has said so; undefined when nothing would be lost. */
  readonly worthKeeping: () => string | undefined;
  readonly isMember: () => boolean;
  /** A copy is complete: the proxy is to stop, so that it can be put in place. */
  readonly complete: () => void;
  readonly log: Logger;
}

const ASKED = 'a copy of the data was asked for';
const HOPELESS = "no other node has the history any more that this node's data lack";
const BY_HAND = 'take a copy of the data of another one with "pgmm reclone" (docs/reclone.md)';
/** Milliseconds between looks, and after a failure. */
const INTERVAL = 1000;
const RETRY_DELAY = 5000;

/**
 * Fetches a copy of another node's data when this node's can't be brought up to date any more, or when an operator asks for it. The copy
 * lies beside the data until it is complete and on disk. Putting it in place is for the time in which no proxy runs (cli/run/install-copy.ts).
 */
export class Recloner {
  readonly #options: RecloneOptions;
  #status: RecloneStatus | null = null;
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #again: NodeJS.Timeout | undefined;
  #notBefore = 0;
  readonly #failed = new Set<NodeId>();
  #stopped = false;

  constructor(options: RecloneOptions) {
    this.#options = options;
  }

  get status(): RecloneStatus | null {
    return this.#status;
  }

  start(): void {
    this.#running = this.#resume().finally(() => (this.#running = undefined));
    this.#timer = setInterval(() => this.#look(), INTERVAL);
  }

  /** A complete copy that could not be put in place is tried again. */
  async #resume(): Promise<void> {
    const { data, complete, log } = this.#options;
    if (data === undefined) return;
    try {
      if (!(await data.isDue())) return;
    } catch (error) {
      log.error({ err: error }, `reclone.data_directory can't be looked at: ${(error as Error).message}`);
      return;
    }
    this.#status = { ...NOTHING, state: 'complete' };
    this.#again = setTimeout(complete, RETRY_DELAY);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    clearTimeout(this.#again);
    this.#options.client.stop();
    await this.#running;
  }

  #look(): void {
    const now = performance.now();
    if (this.#running !== undefined || this.#status?.state === 'complete' || now < this.#notBefore) return;
    const need = this.#need(now);
    if (need === undefined) {
      if (this.#status?.state === 'held') this.#status = null;
      return;
    }
    const { data } = this.#options;
    if (data === undefined) return this.#hold(`${need.reason}, but reclone.data_directory, stop and start are not set`);
    const objection = this.#objection(need);
    if (objection !== undefined) return this.#hold(objection);
    const donor = this.#donor(need);
    if (donor === undefined) return;
    this.#running = this.#copy(data, donor, need).finally(() => (this.#running = undefined));
  }

  /** Why a copy is needed; undefined when it is not. */
  #need(now: number): Need | undefined {
    const { hopeless, others, wait, isMember, directory } = this.#options;
    if (existsSync(join(directory, REQUEST_FILE))) return { asked: true, reason: ASKED };
    const lost = hopeless();
    if (lost === undefined || isMember()) return undefined;
    const nobodyLeft = others.every((node) => lost.gone.has(node));
    return nobodyLeft || now - lost.since >= wait ? { asked: false, reason: HOPELESS } : undefined;
  }

  /** Why a copy that nobody has asked for is not made by itself; undefined when it is. */
  #objection({ asked, reason }: Need): string | undefined {
    const { automatic, worthKeeping } = this.#options;
    if (asked) return undefined;
    if (!automatic) return `${reason}: ${BY_HAND}`;
    const worth = worthKeeping();
    return worth === undefined ? undefined : `${reason}, but ${worth}`;
  }

  /**
   * Those that have failed come last; those whose data have writes that no other node has, only where somebody has asked for a copy and there is
   * no other.
   */
  #donor({ asked, reason }: Need): NodeId | undefined {
    const donors = this.#options.donors();
    const clean = donors.filter(({ bypassed }) => !bypassed);
    const usable = clean.length > 0 || !asked ? clean : donors;
    if (usable.every(({ node }) => this.#failed.has(node))) this.#failed.clear();
    const donor = usable.find(({ node }) => !this.#failed.has(node));
    if (donor === undefined) {
      const bypassed = donors.map(({ node }) => node).join(' and ');
      this.#hold(
        donors.length === 0
          ? `${reason}, but no member of the cluster can be reached`
          : `${reason}, but writes went past the proxy of node ${bypassed}, and a copy would have them: ${BY_HAND}`,
      );
      return undefined;
    }
    if (donor.bypassed)
      this.#options.log.warn(`the copy will have the writes that went past the proxy of node ${donor.node}`);
    return donor.node;
  }

  /** A copy is needed, and something stands in the way: told once. */
  #hold(problem: string): void {
    if (this.#status?.problem !== problem) this.#options.log.error(problem);
    this.#status = { ...NOTHING, state: 'held', problem };
  }

  async #copy(data: DataDirectory, donor: NodeId, need: Need): Promise<void> {
    const { log, directory, complete } = this.#options;
    log.warn({ donor }, `${need.reason}: copying the data of node ${donor}`);
    try {
      const bytes = await this.#receive(data, donor, need);
      await rm(join(directory, REQUEST_FILE), { force: true });
      log.warn({ donor, bytes }, `the copy of node ${donor} is complete`);
      this.#status = { ...this.#status!, state: 'complete' };
      complete();
    } catch (error) {
      const problem = (error as Error).message;
      if (!this.#stopped) log.error({ donor, err: error }, `the data of node ${donor} could not be copied: ${problem}`);
      this.#status = { ...(this.#status ?? NOTHING), state: 'failed', donor, problem };
      this.#notBefore = performance.now() + RETRY_DELAY;
      this.#failed.add(donor);
      await data.discardCopy().catch((failure: unknown) => {
        log.error({ err: failure }, `what has come of the copy could not be removed from ${data.copy}`);
      });
    }
  }

  async #receive(data: DataDirectory, donor: NodeId, need: Need): Promise<number> {
    await data.beginCopy();
    const { place } = this.#options;
    const receiver = new BackupReceiver(data.copy, async (found) => data.beginTablespaces(await place(found)));
    let bytes = 0;
    try {
      for (let end = false; !end;) {
        const piece = await this.#options.client.read(donor, bytes);
        bytes += piece.bytes.length;
        end = piece.end;
        this.#status = { state: 'copying', donor, bytes, total: Math.max(piece.total, bytes), problem: null };
        await receiver.push(piece.bytes);
      }
      const manifest = await receiver.finish();
      const objection = this.#objection(need);
      if (objection !== undefined) throw new Error(objection);
      await data.completeCopy(manifest);
      return bytes;
    } catch (error) {
      receiver.abandon();
      throw error;
    }
  }
}

const NOTHING: RecloneStatus = { state: 'failed', donor: null, bytes: 0, total: 0, problem: null };
