import pg from 'pg';
import { waitFor } from '../../support/wait-for.ts';
import type { Level, SessionSteps, Step } from './scenario.ts';

/** Nobody may wait for longer than this, whatever happens: it would be a hang. */
const HANG_MS = 60_000;
/** Polls in a row that must find a statement waiting, so that a lock that goes by itself is not taken for an obstacle. */
const PATIENCE = 3;

export const COMMITTED = 'committed';

/** One client, and a look at the server it works on. */
export interface Seat {
  readonly client: pg.Client;
  readonly pid: number;
  /** Of the same server, past any proxy. */
  readonly observer: pg.Client;
}

/** How one session ended. */
export interface SessionEnd {
  /** `committed`, or an SQLSTATE. */
  readonly end: string;
  /** What its statements returned. */
  readonly reads: readonly string[];
}

/** How many steps there are to be ordered: the first statement of a block comes with its BEGIN. */
export function stepsOf(session: SessionSteps): number {
  return typeof session === 'string' ? 1 : session.length + 1;
}

class Runner {
  readonly #seat: Seat;
  readonly #steps: readonly (() => Promise<unknown>)[];
  readonly #reads: string[] = [];
  #allowed = 0;
  #taken = 0;
  #running: Promise<void> | undefined;
  #end: string | undefined;
  #broken: unknown;
  waited = false;

  constructor(seat: Seat, session: SessionSteps, level: Level) {
    this.#seat = seat;
    if (typeof session === 'string') {
      this.#steps = [() => this.#query(session)];
    } else {
      const begin = () => seat.client.query(`BEGIN ISOLATION LEVEL ${level}`);
      this.#steps = [
        ...session.map((step, i) => () => (i === 0 ? begin().then(() => this.#query(step)) : this.#query(step))),
        () => seat.client.query('COMMIT'),
      ];
    }
  }

  /** Lets it take one step more, as soon as it has done those before. */
  allow(): void {
    this.#allowed += 1;
    this.#running ??= this.#run().finally(() => (this.#running = undefined));
  }

  async #run(): Promise<void> {
    while (this.#taken < this.#allowed) {
      const step = this.#steps[this.#taken++];
      if (this.#end !== undefined) continue;
      try {
        await step();
        if (this.#taken === this.#steps.length) this.#end = COMMITTED;
      } catch (error) {
        await this.#failed(error);
      }
    }
  }

  async #failed(error: unknown): Promise<void> {
    if (error instanceof pg.DatabaseError && error.code !== undefined) this.#end = error.code;
    else this.#broken = error;
    await this.#seat.client.query('ROLLBACK');
  }

  async #query(step: Step): Promise<void> {
    const { rows } = await this.#seat.client.query<Record<string, unknown>>(step);
    if (rows.length > 0) this.#reads.push(JSON.stringify(rows.map((row) => Object.values(row))));
  }

  get isIdle(): boolean {
    return this.#running === undefined;
  }

  /** Whether its statement waits for a lock. */
  async waits(): Promise<boolean> {
    if (this.isIdle) return false;
    const { rows } = await this.#seat.observer.query<{ waits: boolean }>(
      `SELECT wait_event_type = 'Lock' AS waits FROM pg_stat_activity WHERE pid = $1`,
      [this.#seat.pid],
    );
    return rows.at(0)?.waits === true;
  }

  result(): SessionEnd {
    if (this.#broken !== undefined) throw this.#broken as Error;
    return { end: this.#end ?? 'nothing', reads: this.#end === COMMITTED ? this.#reads : [] };
  }
}

/** Every session has done what it may do, or waits for a lock. */
async function atRest(runners: readonly Runner[]): Promise<void> {
  let seen = 0;
  await waitFor(
    'every session has taken its step or waits',
    async () => {
      if (runners.every(({ isIdle }) => isIdle)) return true;
      const stuck = await Promise.all(runners.map(async (one) => one.isIdle || (await one.waits())));
      seen = stuck.every(Boolean) ? seen + 1 : 0;
      if (seen < PATIENCE) return false;
      for (const one of runners) if (!one.isIdle) one.waited = true;
      return true;
    },
    { timeoutMs: HANG_MS, everyMs: 2 },
  );
}

/** Runs the sessions in this order of their steps. A session whose step waits takes its next ones when it goes on. */
export async function runOrder(
  seats: readonly Seat[],
  sessions: readonly SessionSteps[],
  level: Level,
  order: readonly number[],
): Promise<{ ends: SessionEnd[]; waited: boolean }> {
  const runners = sessions.map((session, i) => new Runner(seats[i], session, level));
  for (const who of order) {
    runners[who].allow();
    await atRest(runners);
  }
  await waitFor('every session ends', () => runners.every(({ isIdle }) => isIdle), {
    timeoutMs: HANG_MS,
    everyMs: 2,
  });
  return { ends: runners.map((one) => one.result()), waited: runners.some(({ waited }) => waited) };
}
