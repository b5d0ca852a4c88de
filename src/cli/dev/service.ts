import { fileSize, tail } from './child.ts';
import type { Child } from './child.ts';
import { DevError } from './dev-error.ts';
import { FatalProbeError, poll } from './poll.ts';
import { descendants, isAlive, isStopped, sendSignal } from './processes.ts';
import type { ProcessRef } from './processes.ts';

export type ServiceState = 'running' | 'paused' | 'stopped';

/** One step of stopping: a signal, and how long it may take before the next one is sent. */
export interface StopStep {
  readonly signal: NodeJS.Signals;
  readonly waitMs: number;
}

const SIGNAL_TIMEOUT_MS = 10_000;

/**
 * A server process that can be started, stopped in good order, killed as in a crash, and frozen. Every operation returns
 * when its effect is there. One operation at a time; the caller sees to that.
 */
export abstract class Service {
  /** As messages name it, such as `node 2's proxy`. */
  readonly name: string;
  readonly logFile: string;
  /** Called when it ends without having been asked to. */
  onUnexpectedEnd: (how: string, logTail: string) => void = () => undefined;
  #child: Child | undefined;
  #paused = false;
  #ending = false;

  constructor(name: string, logFile: string) {
    this.name = name;
    this.logFile = logFile;
  }

  protected abstract launch(): Promise<Child>;
  /** Whether it serves; a throw says why not yet. */
  protected abstract ready(): Promise<boolean>;
  protected abstract readonly stopSteps: readonly StopStep[];

  get state(): ServiceState {
    if (this.#child?.running !== true) return 'stopped';
    return this.#paused ? 'paused' : 'running';
  }

  get pid(): number | null {
    return this.#child?.running === true ? this.#child.ref.pid : null;
  }

  /** Starts it and waits until it serves. One that doesn't in time is left running, for its log to be looked at. */
  async start(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    signal?.throwIfAborted();
    if (this.state !== 'stopped') throw new DevError(`${this.name} is ${this.state} already`);
    const logStart = fileSize(this.logFile);
    const child = await this.launch();
    this.#child = child;
    this.#paused = false;
    this.#ending = false;
    const logTail = (): string => tail(this.logFile, logStart);
    const probe = async (): Promise<boolean> => {
      if (child.running) return await this.ready();
      const how = await child.ended;
      throw new FatalProbeError(`${this.name} ended at once (${how}); its log ${this.logFile} ends:\n${logTail()}`);
    };
    try {
      await poll(`${this.name} serves`, probe, { timeoutMs, signal });
    } finally {
      // From here on nobody waits for it any more, so its end has to be told.
      if (child.running) {
        void child.ended.then((how) => {
          if (!this.#ending) this.onUnexpectedEnd(how, logTail());
        });
      }
    }
  }

  /** Stops it in good order; each step that takes too long is followed by a harder one. */
  async stop(hurry?: AbortSignal): Promise<void> {
    const child = this.#child;
    if (child?.running !== true) return;
    this.#ending = true;
    if (this.#paused) await this.resume();
    const family = descendants(child.ref.pid);
    for (const { signal, waitMs } of this.stopSteps) {
      sendSignal(child.ref, signal);
      if (await endsWithin(child, hurry?.aborted === true ? 500 : waitMs, hurry)) break;
    }
    sendSignal(child.ref, 'SIGKILL'); // nothing, if it has ended
    await child.ended;
    await this.#buryFamily(family);
  }

  /** Ends it as a crash would: without a chance to write or to say anything more. */
  async kill(): Promise<void> {
    const child = this.#assertUp();
    this.#ending = true;
    const family = descendants(child.ref.pid);
    sendSignal(child.ref, 'SIGKILL');
    await child.ended;
    await this.#buryFamily(family);
  }

  /** Freezes it and its children. The parent goes first, so that it makes no more of them. */
  async pause(): Promise<void> {
    const child = this.#assertUp();
    if (this.#paused) throw new DevError(`${this.name} is paused already`);
    this.#paused = true;
    sendSignal(child.ref, 'SIGSTOP');
    await poll(
      `${this.name} is stopped`,
      () => {
        const family = descendants(child.ref.pid).filter((member) => isStopped(member) === false);
        for (const member of family) sendSignal(member, 'SIGSTOP');
        return family.length === 0 && isStopped(child.ref) !== false;
      },
      { timeoutMs: SIGNAL_TIMEOUT_MS, everyMs: 5 },
    );
  }

  async resume(): Promise<void> {
    const child = this.#assertUp();
    if (!this.#paused) throw new DevError(`${this.name} is not paused`);
    for (const member of [...descendants(child.ref.pid), child.ref]) sendSignal(member, 'SIGCONT');
    await poll(`${this.name} runs again`, () => isStopped(child.ref) !== true, {
      timeoutMs: SIGNAL_TIMEOUT_MS,
      everyMs: 5,
    });
    this.#paused = false;
  }

  #assertUp(): Child {
    if (this.#child?.running !== true) throw new DevError(`${this.name} is not running`);
    return this.#child;
  }

  /**
   * Children end by themselves when their parent is gone, unless they are frozen. PostgreSQL can't be started again
   * before the last of them has let go of its shared memory.
   */
  async #buryFamily(family: readonly ProcessRef[]): Promise<void> {
    for (const member of family) sendSignal(member, 'SIGCONT');
    const gone = (): boolean => !family.some(isAlive);
    const started = performance.now();
    await poll(
      `the children of ${this.name} end`,
      () => {
        if (performance.now() - started > SIGNAL_TIMEOUT_MS / 2) {
          for (const member of family) sendSignal(member, 'SIGKILL');
        }
        return gone();
      },
      { timeoutMs: SIGNAL_TIMEOUT_MS, everyMs: 10 },
    );
  }
}

async function endsWithin(child: Child, waitMs: number, hurry: AbortSignal | undefined): Promise<boolean> {
  let timer: NodeJS.Timeout | undefined;
  let give: (() => void) | undefined;
  const deadline = new Promise<void>((resolve) => {
    give = resolve;
    timer = setTimeout(resolve, waitMs);
    if (hurry?.aborted === false) hurry.addEventListener('abort', give, { once: true });
  });
  await Promise.race([child.ended, deadline]);
  clearTimeout(timer);
  if (give !== undefined) hurry?.removeEventListener('abort', give);
  return !child.running;
}
