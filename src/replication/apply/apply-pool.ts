import type { Gid } from '../../runtime/ids.ts';
import { PgError } from '../../runtime/errors.ts';
import { ApplySession, type ApplyResult, type ApplySessionOptions, type RecordSource } from './apply-session.ts';

export interface ApplyPoolOptions extends Omit<ApplySessionOptions, 'origin'> {
  /** Sessions; the n-th uses the origin `originPrefix` + n. */
  readonly sessions: number;
  readonly originPrefix: string;
  /** Cancels the statement that this backend runs; resolves once the signal was sent. */
  readonly cancelBackend: (pid: number) => Promise<void>;
  readonly applied: (gid: Gid, result: ApplyResult) => void;
  readonly closed: (error: PgError) => void;
}

interface Running {
  readonly gid: Gid;
  readonly since: number;
  /** Resolves when the session is done with it. */
  readonly finished: Promise<ApplyResult>;
  done: boolean;
  /** Cancellations under way: the session must not get other work before they have landed. */
  cancelling: Promise<void> | undefined;
}

/** Milliseconds until a cancellation is sent again; doubled every time. */
const FIRST_PAUSE = 5;
const LAST_PAUSE = 1000;

/** Replays transactions in parallel, in the order in which they became ready, on as many sessions as there are. */
export class ApplyPool {
  readonly #options: ApplyPoolOptions;
  #sessions: ApplySession[] = [];
  readonly #running = new Map<ApplySession, Running>();
  #queue: { gid: Gid; source: RecordSource }[] = [];
  #stopping = false;
  #idle: (() => void)[] = [];

  private constructor(options: ApplyPoolOptions) {
    this.#options = options;
  }

  static async connect(options: ApplyPoolOptions): Promise<ApplyPool> {
    const pool = new ApplyPool(options);
    const sessions = Array.from({ length: options.sessions }, (_, i) =>
      ApplySession.connect({ ...options, origin: `${options.originPrefix}${i}` }),
    );
    try {
      pool.#sessions = await Promise.all(sessions);
    } catch (error) {
      for (const result of await Promise.allSettled(sessions)) if (result.status === 'fulfilled') result.value.end();
      throw error;
    }
    for (const session of pool.#sessions) session.onClose(options.closed);
    return pool;
  }

  get queued(): number {
    return this.#queue.length;
  }

  get busy(): number {
    return this.#running.size;
  }

  /** Replays that have been running since before `before` (monotonic milliseconds), by the backend that runs them. */
  runningSince(before: number): Map<number, Gid> {
    const pids = new Map<number, Gid>();
    for (const [session, { gid, since }] of this.#running) if (since <= before) pids.set(session.pid, gid);
    return pids;
  }

  /** The transaction that this backend replays now. */
  gidOf(pid: number): Gid | undefined {
    for (const [session, { gid }] of this.#running) if (session.pid === pid) return gid;
    return undefined;
  }

  apply(gid: Gid, source: RecordSource): void {
    this.#queue.push({ gid, source });
    this.#next();
  }

  /** Ends the replay, if it's not finished already; `applied` is called in any case. */
  cancel(gid: Gid): void {
    const at = this.#queue.findIndex((waiting) => waiting.gid === gid);
    if (at >= 0) {
      this.#queue.splice(at, 1);
      queueMicrotask(() => this.#options.applied(gid, cancelledResult()));
      return;
    }
    for (const [session, running] of this.#running) {
      if (running.gid !== gid) continue;
      session.cancel();
      running.cancelling ??= this.#cancelBackend(session.pid, running);
    }
  }

  /** A backend that is between two statements, or has not begun, ignores a cancellation: it is sent until it took effect. */
  async #cancelBackend(pid: number, running: Running): Promise<void> {
    for (let pause = FIRST_PAUSE; !running.done; pause = Math.min(pause * 2, LAST_PAUSE)) {
      await this.#options.cancelBackend(pid).catch(() => undefined);
      let timer: NodeJS.Timeout | undefined;
      const later = new Promise((resolve) => (timer = setTimeout(resolve, pause)));
      await Promise.race([running.finished, later]);
      clearTimeout(timer);
    }
  }

  /** See ApplySession.schemaChanged. */
  schemaChanged(pending = false): void {
    for (const session of this.#sessions) session.schemaChanged(pending);
  }

  /** Gives up what waits, and waits until nothing is being replayed. */
  async quiesce(): Promise<void> {
    this.#stopping = true;
    for (const { gid } of this.#queue.splice(0)) this.#options.applied(gid, cancelledResult());
    if (this.#running.size > 0) await new Promise<void>((resolve) => this.#idle.push(resolve));
    this.#stopping = false;
  }

  #next(): void {
    if (this.#stopping) return;
    for (const session of this.#sessions) {
      if (this.#queue.length === 0) return;
      if (!this.#running.has(session)) void this.#run(session, this.#queue.shift()!);
    }
  }

  async #run(session: ApplySession, { gid, source }: { gid: Gid; source: RecordSource }): Promise<void> {
    const finished = session.apply(gid, source);
    const running: Running = { gid, since: performance.now(), finished, done: false, cancelling: undefined };
    this.#running.set(session, running);
    const result = await finished;
    running.done = true;
    await running.cancelling;
    this.#running.delete(session);
    this.#options.applied(gid, result);
    if (this.#running.size === 0) for (const resolve of this.#idle.splice(0)) resolve();
    this.#next();
  }

  end(): void {
    this.#stopping = true;
    for (const session of this.#sessions) session.end();
  }
}

function cancelledResult(): ApplyResult {
  return { type: 'failed', error: new PgError('57014', 'replay was cancelled') };
}
