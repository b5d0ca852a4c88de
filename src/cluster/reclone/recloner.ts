import { rm } from 'node:fs/promises';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { LogIndex, NodeId } from '../../runtime/ids.ts';
import type { Logger } from '../../runtime/log.ts';
import type { Hopeless } from '../catch-up-troubles.ts';
import { UnlikeDonor, type CloneClient } from './clone-client.ts';
import { chooseCopy, type Choice, type CopyMethod, type CopyReceiver, type CopyTarget } from './copy-target.ts';

/** Written by `pgmm reclone` into `data_dir`. */
export const REQUEST_FILE = 'reclone-request';

export interface RecloneStatus {
  /**
   * `held`: a copy is needed and is not made, for the reason in `problem`. `finishing`: all has come, and is verified; of a logical copy indexes and
   * constraints are made.
   */
  readonly state: 'held' | 'copying' | 'finishing' | 'complete' | 'failed';
  readonly method: CopyMethod | null;
  readonly donor: number | null;
  /** Bytes that have come, and that are to come as the donor estimates. */
  readonly bytes: number;
  readonly total: number;
  readonly problem: string | null;
}

export interface Donor {
  readonly node: NodeId;
  /** What it has committed at least. */
  readonly committed: LogIndex;
  /** Its data have writes that no other node has: a copy of them would have them, too. */
  readonly bypassed: boolean;
}

interface Need {
  readonly asked: boolean;
  readonly reason: string;
}

export interface RecloneOptions {
  readonly automatic: boolean;
  /** The ways in which a copy can be had, the best one first. */
  readonly targets: readonly CopyTarget[];
  /** Why there are none. */
  readonly unusable: string;
  readonly wait: number;
  /** `data_dir` of the proxy. */
  readonly directory: string;
  /** The other nodes with data. */
  readonly others: readonly NodeId[];
  readonly client: CloneClient;
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
  #standsAt: LogIndex | undefined;
  #running: Promise<void> | undefined;
  #timer: NodeJS.Timeout | undefined;
  #again: NodeJS.Timeout | undefined;
  #notBefore = 0;
  readonly #failed = new Set<NodeId>();
  /** Which donors are too different for which kind of copy, and what the last of them has said. */
  readonly #unlike = new Set<string>();
  #difference = '';
  #receiver: CopyReceiver | undefined;
  #stopped = false;

  constructor(options: RecloneOptions) {
    this.#options = options;
  }

  get status(): RecloneStatus | null {
    return this.#status;
  }

  /**
   * A copy has at least all up to this log entry. Until it is in place, what comes after must stay in the others' histories, though this node may have
   * committed it already. Undefined while none is taken.
   */
  get standsAt(): LogIndex | undefined {
    return this.#standsAt;
  }

  start(): void {
    this.#running = this.#resume().finally(() => (this.#running = undefined));
    this.#timer = setInterval(() => this.#look(), INTERVAL);
  }

  /** A complete copy that could not be put in place is tried again. */
  async #resume(): Promise<void> {
    const { targets, log } = this.#options;
    for (const target of targets) {
      try {
        if (!(await target.isDue())) continue;
      } catch (error) {
        log.error(
          { err: error },
          `whether a ${target.method} copy is complete can't be seen: ${(error as Error).message}`,
        );
        continue;
      }
      this.#status = { ...NOTHING, state: 'complete', method: target.method };
      this.#completeLater(target);
      return;
    }
  }

  #completeLater(target: CopyTarget): void {
    this.#again = setTimeout(() => {
      void target.isReady().then((isReady) => {
        if (this.#stopped) return;
        if (isReady) this.#options.complete();
        else this.#completeLater(target);
      });
    }, RETRY_DELAY);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearInterval(this.#timer);
    clearTimeout(this.#again);
    this.#options.client.stop();
    this.#receiver?.abandon();
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
    const { targets, unusable } = this.#options;
    if (targets.length === 0) return this.#hold(`${need.reason}, but ${unusable}`);
    const objection = this.#objection(need);
    if (objection !== undefined) return this.#hold(objection);
    const choice = this.#choice(need);
    if (choice === undefined) return;
    const target = targets.find(({ method }) => method === choice.method)!;
    this.#running = this.#copy(target, choice.donor, need).finally(() => (this.#running = undefined));
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
   * no other. Then a kind of copy for which it is not too different.
   */
  #choice({ asked, reason }: Need): Choice | undefined {
    const donors = this.#options.donors();
    const clean = donors.filter(({ bypassed }) => !bypassed);
    const usable = clean.length > 0 || !asked ? clean : donors;
    if (usable.length === 0) {
      const bypassed = donors.map(({ node }) => node).join(' and ');
      this.#hold(
        donors.length === 0
          ? `${reason}, but no member of the cluster that takes part can be reached`
          : `${reason}, but writes went past the proxy of node ${bypassed}, and a copy would have them: ${BY_HAND}`,
      );
      return undefined;
    }
    const methods = this.#options.targets.map(({ method }) => method);
    const nodes = usable.map(({ node }) => node);
    const choice = chooseCopy(methods, nodes, this.#failed, (one) => this.#unlike.has(nameOf(one)));
    if (choice === undefined) {
      this.#hold(`${reason}, but no member has data that can be copied here: ${this.#difference}`);
      // It may have been replaced by one that can.
      this.#unlike.clear();
      this.#notBefore = performance.now() + RETRY_DELAY;
    } else if (usable.some(({ node, bypassed }) => node === choice.donor && bypassed))
      this.#options.log.warn(`the copy will have the writes that went past the proxy of node ${choice.donor}`);
    return choice;
  }

  /** A copy is needed, and something stands in the way: told once. */
  #hold(problem: string): void {
    if (this.#status?.problem !== problem) this.#options.log.error(problem);
    this.#status = { ...NOTHING, state: 'held', problem };
  }

  async #copy(target: CopyTarget, donor: NodeId, need: Need): Promise<void> {
    const { log, directory, complete } = this.#options;
    const { method } = target;
    log.warn({ donor, method }, `${need.reason}: taking a ${method} copy of the data of node ${donor}`);
    try {
      this.#standsAt = this.#options.donors().find(({ node }) => node === donor)?.committed;
      const bytes = await this.#receive(target, donor, need);
      await rm(join(directory, REQUEST_FILE), { force: true });
      log.warn({ donor, bytes }, `the copy of node ${donor} is complete`);
      this.#status = { ...this.#status!, state: 'complete' };
      complete();
    } catch (error) {
      this.#standsAt = undefined;
      const problem = (error as Error).message;
      if (!this.#stopped) log.error({ donor, err: error }, `the data of node ${donor} could not be copied: ${problem}`);
      this.#status = { ...(this.#status ?? NOTHING), state: 'failed', method, donor, problem };
      if (error instanceof UnlikeDonor) {
        this.#unlike.add(nameOf({ method, donor }));
        this.#difference = problem;
      } else {
        this.#notBefore = performance.now() + RETRY_DELAY;
        this.#failed.add(donor);
      }
      await target.discard().catch((failure: unknown) => {
        log.error({ err: failure }, `what has come of the copy could not be removed: ${target.place}`);
      });
    }
  }

  async #receive(target: CopyTarget, donor: NodeId, need: Need): Promise<number> {
    const request = await target.request();
    const { method } = target;
    let bytes = 0;
    // Asked before room is made: the donor may not be of any use.
    let piece = await this.#options.client.read(donor, bytes, request);
    const receiver = await target.begin(piece.total);
    this.#receiver = receiver;
    try {
      for (;;) {
        bytes += piece.bytes.length;
        this.#status = { state: 'copying', method, donor, bytes, total: Math.max(piece.total, bytes), problem: null };
        await receiver.push(piece.bytes);
        if (piece.end) break;
        piece = await this.#options.client.read(donor, bytes, request);
      }
      this.#status = { ...this.#status, state: 'finishing' };
      await receiver.finish();
      const objection = this.#objection(need);
      if (objection !== undefined) throw new Error(objection);
      await receiver.complete();
      return bytes;
    } catch (error) {
      receiver.abandon();
      throw error;
    } finally {
      this.#receiver = undefined;
    }
  }
}

const nameOf = ({ method, donor }: Choice): string => `${method} ${donor}`;

const NOTHING: RecloneStatus = { state: 'failed', method: null, donor: null, bytes: 0, total: 0, problem: null };
