import { rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { NodeId } from '../../runtime/ids.ts';
import type { Logger } from '../../runtime/log.ts';
import { BackupReceiver } from '../../replication/base-backup/backup-receiver.ts';
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
  readonly state: 'copying' | 'complete' | 'failed';
  readonly donor: number | null;
  /** Bytes that have come, and that are to come as the donor estimates. */
  readonly bytes: number;
  readonly total: number;
  readonly problem: string | null;
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
  readonly hopeless: () => Hopeless | undefined;
  /** Members that can be reached, the best donor first. */
  readonly donors: () => readonly NodeId[];
  readonly isMember: () => boolean;
  /** A copy is complete: the proxy is to stop, so that it can be put in place. */
  readonly complete: () => void;
  readonly log: Logger;
}

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
  #told = '';
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
    const reason = this.#reason(now);
    if (reason === undefined) return;
    const { data, donors } = this.#options;
    if (data === undefined) {
      this.#tell(`${reason}, but reclone.data_directory, stop and start are not set`);
      return;
    }
    const donor = donors().at(0);
    if (donor === undefined) {
      this.#tell(`${reason}, but no member of the cluster can be reached`);
      return;
    }
    this.#running = this.#copy(data, donor, reason).finally(() => (this.#running = undefined));
  }

  /** Why a copy is needed; undefined when it is not. */
  #reason(now: number): string | undefined {
    const { automatic, hopeless, others, wait, isMember, directory } = this.#options;
    if (existsSync(join(directory, REQUEST_FILE))) return 'a copy of the data was asked for';
    const lost = hopeless();
    if (lost === undefined || isMember()) return undefined;
    const nobodyLeft = others.every((node) => lost.gone.has(node));
    if (!nobodyLeft && now - lost.since < wait) return undefined;
    const reason = "no other node has the history any more that this node's data lack";
    if (automatic) return reason;
    this.#tell(`${reason}: take a copy of the data of another one with "pgmm reclone" (docs/reclone.md)`);
    return undefined;
  }

  #tell(what: string): void {
    if (what !== this.#told) this.#options.log.error(what);
    this.#told = what;
  }

  async #copy(data: DataDirectory, donor: NodeId, reason: string): Promise<void> {
    const { log, directory, complete } = this.#options;
    log.warn({ donor }, `${reason}: copying the data of node ${donor}`);
    try {
      const bytes = await this.#receive(data, donor);
      await rm(join(directory, REQUEST_FILE), { force: true });
      log.warn({ donor, bytes }, `the copy of node ${donor} is complete`);
      this.#status = { ...this.#status!, state: 'complete' };
      complete();
    } catch (error) {
      const problem = (error as Error).message;
      if (!this.#stopped) log.error({ donor, err: error }, `the data of node ${donor} could not be copied: ${problem}`);
      this.#status = { ...(this.#status ?? NOTHING), state: 'failed', donor, problem };
      this.#notBefore = performance.now() + RETRY_DELAY;
      await data.discardCopy().catch((failure: unknown) => {
        log.error({ err: failure }, `what has come of the copy could not be removed from ${data.copy}`);
      });
    }
  }

  async #receive(data: DataDirectory, donor: NodeId): Promise<number> {
    await data.beginCopy();
    const receiver = new BackupReceiver(data.copy);
    let bytes = 0;
    try {
      for (let end = false; !end;) {
        const piece = await this.#options.client.read(donor, bytes);
        bytes += piece.bytes.length;
        end = piece.end;
        this.#status = { state: 'copying', donor, bytes, total: Math.max(piece.total, bytes), problem: null };
        await receiver.push(piece.bytes);
      }
      await data.completeCopy(await receiver.finish());
      return bytes;
    } catch (error) {
      receiver.abandon();
      throw error;
    }
  }
}

const NOTHING: RecloneStatus = { state: 'failed', donor: null, bytes: 0, total: 0, problem: null };
