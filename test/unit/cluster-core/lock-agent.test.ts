import { describe, expect, it } from 'vitest';
import { LockAgent, type LockEffect } from '../../../src/cluster/core/lock-agent.ts';
import { AdvisoryLocks, type LockCommand, type LockWaits } from '../../../src/commit/core/advisory-locks.ts';
import type { LogCommand } from '../../../src/commit/core/types.ts';
import { epoch, logIndex, nodeId } from '../../../src/runtime/ids.ts';

const LEASE = 800;

/** Node 1 under epoch 1, beside a log that takes what it is given when `deliver` is called. */
class Bench {
  readonly locks = new AdvisoryLocks();
  readonly proposed: LogCommand[] = [];
  readonly effects: LockEffect[] = [];
  epoch = epoch(1);
  committed = logIndex(1000);
  index = 10;
  readonly agent = new LockAgent(
    { self: nodeId(1), lease: LEASE, resendAfter: 100, patience: 500 },
    {
      epoch: () => this.epoch,
      committed: () => this.committed,
      propose: (command) => this.proposed.push(command),
      knows: (waits) => this.locks.knows(waits),
      emit: (effect) => this.effects.push(effect),
    },
  );

  acquire(session: number, lock: string, options: { wait?: boolean; shared?: boolean } = {}): void {
    const { wait = true, shared = false } = options;
    this.agent.onRequest({ type: 'acquire', session, lock, shared, wait });
  }

  /** The last proposal, or another command, becomes the next entry. */
  deliver(command = this.proposed.at(-1) as LockCommand): void {
    this.agent.onEntry(logIndex(++this.index), command, this.locks.apply(command));
  }

  other(type: 'lock' | 'unlock', lock: string): void {
    const head = { node: nodeId(2), epoch: epoch(2), session: 1, request: ++this.index };
    this.deliver(
      type === 'lock' ? { type, ...head, lock, shared: false, wait: true } : { type, ...head, locks: [[lock, false]] },
    );
  }

  /** What was told since the last question. */
  told(): string[] {
    return this.effects.splice(0).map((effect) => {
      if (effect.type === 'confirm-locks') return `confirm ${effect.sentAt}`;
      if (effect.type === 'locks-lost') return `${effect.session} lost`;
      const { session, answer } = effect;
      return `${session} ${answer.type}${answer.type === 'granted' ? ` until ${answer.until}` : answer.type === 'failed' ? ` ${answer.error.sqlstate}` : ''}`;
    });
  }
}

describe('a node’s agent for advisory locks', () => {
  it('proposes until the log has it, to whoever leads', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    bench.acquire(1, 'x');
    expect(bench.proposed).toMatchObject([{ type: 'lock', session: 1, request: 1, attempt: 1 }]);
    bench.agent.leaderChanged();
    bench.agent.tick(50);
    bench.agent.tick(100);
    expect(bench.proposed).toMatchObject([{ attempt: 1 }, { attempt: 2 }, { attempt: 3 }]);
    bench.deliver();
    bench.agent.tick(300);
    expect(bench.proposed).toHaveLength(3);
    expect(bench.told()).toEqual([`1 granted until ${LEASE}`, 'confirm 300']);
  });

  it('tells of a lock when what came before it is committed here', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    bench.committed = logIndex(10);
    bench.acquire(1, 'x');
    bench.deliver();
    expect(bench.told()).toEqual([]);
    bench.committed = logIndex(11);
    bench.agent.onCommitted();
    expect(bench.told()).toEqual([`1 granted until ${LEASE}`]);
  });

  it('renews the lease by what it knew when it asked, once the log is read up to the answer', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    bench.acquire(1, 'x');
    bench.deliver();
    bench.told();
    bench.agent.tick(600);
    expect(bench.told()).toEqual(['confirm 600']);
    bench.agent.onConfirmed(600, logIndex(bench.index + 1), logIndex(bench.index));
    expect(bench.agent.leaseEnd).toBe(LEASE);
    bench.other('lock', 'y');
    expect(bench.agent.leaseEnd).toBe(600 + LEASE);
  });

  it('ends sessions whose lease is over, and lets go of what they had', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    bench.acquire(1, 'x');
    bench.deliver();
    bench.acquire(2, 'x');
    bench.deliver();
    bench.told();
    bench.agent.tick(LEASE);
    expect(bench.told()).toEqual(['1 lost', `confirm ${LEASE}`]);
    expect(bench.proposed.at(-1)).toMatchObject({ type: 'unlock', session: 1, locks: undefined });
    // What waits goes on waiting, and is told when the lease is renewed.
    bench.deliver();
    expect(bench.told()).toEqual([`2 granted until ${LEASE * 2}`]);
  });

  it('tells again of a lock that was granted too late', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    bench.other('lock', 'x');
    bench.acquire(1, 'x');
    bench.deliver();
    bench.other('unlock', 'x');
    expect(bench.told()).toEqual([`1 granted until ${LEASE}`]);
    // The process was paused: the clock says so before the next tick.
    bench.agent.onLate(1);
    bench.agent.tick(2000);
    expect(bench.told()).toEqual(['confirm 2000']);
    bench.agent.onConfirmed(2000, logIndex(bench.index), logIndex(bench.index));
    expect(bench.told()).toEqual([`1 granted until ${2000 + LEASE}`]);
  });

  it('tells the log who waits in PostgreSQL for a session that waits, if it holds a lock and that is news', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    const blocks = (session: number, waiters: number[]) => {
      const before = bench.proposed.length;
      bench.agent.onRequest({ type: 'blocks', session, blocks: waiters });
      return bench.proposed.slice(before);
    };
    bench.acquire(1, 'x');
    bench.deliver();
    bench.other('lock', 'y');
    bench.acquire(2, 'y');
    expect(blocks(2, [1])).toEqual([]);
    bench.deliver();
    bench.acquire(3, 'y');
    bench.deliver();
    expect(blocks(2, [])).toEqual([]);
    expect(blocks(2, [3])).toEqual([]);
    const [waits] = blocks(2, [1, 3]);
    expect(waits).toEqual({ type: 'lock-waits', node: 1, epoch: 1, session: 2, request: 2, blocks: [1] });
    bench.agent.onEntry(logIndex(++bench.index), waits, bench.locks.blocked(waits as LockWaits));
    expect(blocks(2, [1])).toEqual([]);
    bench.acquire(4, 'x');
    bench.deliver();
    bench.told();
    const [circle] = blocks(4, [1]);
    bench.agent.onEntry(logIndex(++bench.index), circle, bench.locks.blocked(circle as LockWaits));
    expect(bench.told()).toEqual(['4 failed 40P01']);
  });

  it('takes back what is withdrawn, in the log or not', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    bench.acquire(1, 'x');
    const lost = bench.proposed.at(-1) as LockCommand;
    bench.agent.onRequest({ type: 'withdraw', session: 1 });
    bench.deliver();
    bench.deliver(lost);
    expect(bench.locks.isEmpty).toBe(true);
    expect(bench.told()).toEqual([]);
  });

  it('lets go of what was granted when it had been withdrawn', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    bench.acquire(1, 'x');
    const asked = bench.proposed.at(-1) as LockCommand;
    bench.agent.onRequest({ type: 'withdraw', session: 1 });
    bench.deliver(asked);
    expect(bench.locks.isEmpty).toBe(false);
    bench.deliver();
    expect(bench.locks.isEmpty).toBe(true);
    expect(bench.told()).toEqual([]);
  });

  it('fails what the log does not take, and everything when the node is out', () => {
    const bench = new Bench();
    bench.agent.tick(0);
    bench.acquire(1, 'x');
    bench.agent.tick(500);
    expect(bench.told()).toEqual(['1 failed 57P03']);
    bench.acquire(2, 'y');
    bench.deliver();
    bench.acquire(3, 'y');
    bench.told();
    bench.epoch = epoch(0);
    bench.agent.left('out');
    expect(bench.told()).toEqual(['2 lost', '3 failed 57P03']);
    bench.acquire(4, 'z');
    expect(bench.told()).toEqual(['4 failed 57P03']);
    expect(bench.agent.leaseEnd).toBe(-Infinity);
  });
});
