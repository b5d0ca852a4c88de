import { describe, expect, it } from 'vitest';
import type { NodeEvent } from '../../../src/cluster/core/types.ts';
import { AdvisoryLocks } from '../../../src/cluster/session-locks.ts';
import { waitFor } from '../../support/wait-for.ts';
import { logIndex } from '../../../src/runtime/ids.ts';
import type { PgError } from '../../../src/runtime/errors.ts';

function setUp() {
  const events: NodeEvent[] = [];
  const lease = { end: Infinity };
  const waits = new Map<number, number[]>();
  const locks = new AdvisoryLocks({
    step: (event) => events.push(event),
    leaseEnd: () => lease.end,
    readIndex: () => Promise.resolve(logIndex(7)),
    lockWaits: () => Promise.resolve(waits),
  });
  return { events, lease, locks, waits };
}

const NO_TIMEOUTS = { wait: true, lockTimeout: 0, statementTimeout: 0, deadlockTimeout: 60_000, backend: 100 };

describe('advisory locks of the sessions of a node', () => {
  it('belong to a database', () => {
    const { events, locks } = setUp();
    for (const database of ['a', 'b'])
      locks.open(database, () => undefined).acquire('1,2', false, NO_TIMEOUTS, () => undefined);
    expect(events).toMatchObject([
      { type: 'lock-request', request: { session: 1, lock: 'a:1,2' } },
      { type: 'lock-request', request: { session: 2, lock: 'b:1,2' } },
    ]);
  });

  it('are not told of when the lease is over', () => {
    const { events, locks } = setUp();
    const wait = locks.open('a', () => undefined).acquire('1', false, NO_TIMEOUTS, () => undefined);
    locks.perform({ type: 'lock-answer', session: 1, answer: { type: 'granted', until: 0 } });
    expect(wait.result).toBeUndefined();
    expect(events.at(-1)).toEqual({ type: 'lock-late', session: 1 });
    locks.perform({ type: 'lock-answer', session: 1, answer: { type: 'granted', until: Infinity } });
    expect(wait.result).toBe('granted');
  });

  it('are withdrawn when the wait ends otherwise', async () => {
    const { events, locks } = setUp();
    const session = locks.open('a', () => undefined);
    await new Promise<void>((resolve) => {
      const wait = session.acquire('1', true, { ...NO_TIMEOUTS, lockTimeout: 1 }, () => {
        expect(wait.result).toMatchObject({ sqlstate: '55P03' });
        resolve();
      });
    });
    expect(events.at(-1)).toEqual({ type: 'lock-request', request: { type: 'withdraw', session: 1 } });
    session.close();
    expect(events.at(-1)).toEqual({ type: 'lock-request', request: { type: 'close', session: 1 } });
  });

  it('have PostgreSQL asked who waits for a session that waits, itself or through others', async () => {
    const { events, locks, waits } = setUp();
    const answer = { type: 'granted', until: Infinity } as const;
    const open = (backend: number, deadlockTimeout = 60_000) =>
      locks
        .open('a', () => undefined)
        .acquire('1', false, { ...NO_TIMEOUTS, backend, deadlockTimeout }, () => undefined);
    for (const session of [1, 2, 3]) {
      open(100 + session);
      locks.perform({ type: 'lock-answer', session, answer });
    }
    waits.set(101, [900]).set(900, [104, 0]).set(102, [103]).set(103, [102]);
    const wait = open(104, 1);
    const told = () => events.filter((one) => one.type === 'lock-request' && one.request.type === 'blocks');
    await waitFor('it is overdue', () => told().length > 1);
    expect(told()[0]).toEqual({ type: 'lock-request', request: { type: 'blocks', session: 4, blocks: [1] } });
    locks.perform({ type: 'lock-answer', session: 4, answer });
    expect(wait.result).toBe('granted');
  });

  it('end their session, which is not sure of them after its lease', () => {
    const { lease, locks } = setUp();
    const lost: PgError[] = [];
    const session = locks.open('a', (error) => lost.push(error));
    expect(session.isSure).toBe(true);
    lease.end = 0;
    expect(session.isSure).toBe(false);
    locks.perform({ type: 'locks-lost', session: 1, reason: 'it is gone' });
    expect(lost).toMatchObject([{ sqlstate: '57P01', severity: 'FATAL', detail: 'This node: it is gone.' }]);
  });

  it('ask for the read index, and tell when that was', async () => {
    const { events, locks } = setUp();
    locks.perform({ type: 'confirm-locks', sentAt: 5 });
    await Promise.resolve().then(() => Promise.resolve());
    expect(events).toEqual([{ type: 'locks-confirmed', sentAt: 5, index: 7 }]);
  });
});
