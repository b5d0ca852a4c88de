import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { AdvisoryLocks } from '../../../src/commit/core/advisory-locks.ts';
import type { LockCommand, LockOutcome, LockWaits } from '../../../src/commit/core/advisory-locks.ts';
import { Guard } from '../../../src/commit/core/guard.ts';
import { decodeCommand, decodeSnapshot, encodeCommand, encodeSnapshot } from '../../../src/commit/log-codec.ts';
import type { LogCommand } from '../../../src/commit/core/types.ts';
import { epoch, logIndex, nodeId } from '../../../src/runtime/ids.ts';

/** Sessions are named by a letter for the node and a number: `a1`. */
class Story {
  locks = new AdvisoryLocks();
  #request = 0;

  lock(who: string, lock: string, options: { shared?: boolean; wait?: boolean; request?: number } = {}): string[] {
    const { shared = false, wait = true } = options;
    return this.#apply({ type: 'lock', ...this.#head(who, options.request), lock, shared, wait });
  }

  /** `undefined` ends the session. */
  unlock(who: string, locks?: readonly (readonly [string, boolean])[], request?: number): string[] {
    return this.#apply({ type: 'unlock', ...this.#head(who, request), locks });
  }

  /** In PostgreSQL, `waiters` wait for `who`, who waits for a lock by its last request or by that one. */
  blocks(who: string, waiters: readonly string[], request = this.#request): string[] {
    const blocks = waiters.map((one) => this.#head(one, 0).session);
    return told(this.locks.blocked({ type: 'lock-waits', ...this.#head(who, request), blocks } satisfies LockWaits));
  }

  ends(node: string): string[] {
    return told(this.locks.epochEnded(nodeId(node.charCodeAt(0) - 96), epoch(1)));
  }

  free(node: string): string[] {
    return told(this.locks.free(nodeId(node.charCodeAt(0) - 96), epoch(1)));
  }

  get state(): string[] {
    const lines = this.locks.list(100).map(({ lock, holders, waiters }) => {
      const names = (all: typeof holders) =>
        all.map((one) => `${nameOf(one)}${one.mode === 'ShareLock' ? ' shared' : ''}`);
      return `${lock}: ${names(holders).sort().join(', ')} | ${names(waiters).join(', ')}`.trim();
    });
    return lines.sort();
  }

  #head(who: string, request = ++this.#request) {
    return { node: nodeId(who.charCodeAt(0) - 96), epoch: epoch(1), session: Number(who.slice(1)), request };
  }

  #apply(command: LockCommand): string[] {
    return told(this.locks.apply(command));
  }
}

const nameOf = ({ node, session }: { node: number; session: number }) => `${String.fromCharCode(96 + node)}${session}`;
const told = (outcomes: readonly LockOutcome[]) => outcomes.map((one) => `${nameOf(one)} ${one.result}`);

describe('advisory locks in the log', () => {
  it('are granted in the order of the queue', () => {
    const story = new Story();
    expect(story.lock('a1', 'x')).toEqual(['a1 granted']);
    expect(story.lock('b1', 'x')).toEqual([]);
    expect(story.lock('c1', 'x', { shared: true })).toEqual([]);
    expect(story.lock('c2', 'x', { wait: false })).toEqual(['c2 denied']);
    expect(story.state).toEqual(['x: a1 | b1, c1 shared']);
    expect(story.unlock('a1', [['x', false]])).toEqual(['b1 granted']);
    expect(story.unlock('b1', [['x', false]])).toEqual(['c1 granted']);
    expect(story.unlock('c1')).toEqual([]);
    expect(story.locks.isEmpty).toBe(true);
  });

  it('are shared, and nobody overtakes who waits', () => {
    const story = new Story();
    story.lock('a1', 'x', { shared: true });
    expect(story.lock('b1', 'x', { shared: true })).toEqual(['b1 granted']);
    story.lock('c1', 'x');
    expect(story.lock('c2', 'x', { shared: true })).toEqual([]);
    expect(story.lock('c3', 'x', { shared: true, wait: false })).toEqual(['c3 denied']);
    // Whoever holds it already would wait for those that wait for it.
    expect(story.lock('a1', 'x', { shared: true })).toEqual(['a1 granted']);
    story.unlock('a1');
    expect(story.unlock('b1')).toEqual(['c1 granted']);
    expect(story.unlock('c1')).toEqual(['c2 granted']);
  });

  it('may be held in both modes, and let go of one by one', () => {
    const story = new Story();
    story.lock('a1', 'x', { shared: true });
    expect(story.lock('a1', 'x')).toEqual(['a1 granted']);
    story.lock('b1', 'x', { shared: true });
    expect(story.unlock('a1', [['x', true]])).toEqual([]);
    expect(story.unlock('a1', [['x', false]])).toEqual(['b1 granted']);
  });

  it('put a holder before those who wait for it', () => {
    const story = new Story();
    story.lock('a1', 'x', { shared: true });
    story.lock('b1', 'x', { shared: true });
    story.lock('c1', 'x');
    expect(story.lock('a1', 'x')).toEqual([]);
    expect(story.state).toEqual(['x: a1 shared, b1 shared | a1, c1']);
    expect(story.unlock('b1')).toEqual(['a1 granted']);
  });

  it('find circles of any length, and only those', () => {
    const story = new Story();
    for (const [who, lock] of [
      ['a1', 'x'],
      ['b1', 'y'],
      ['c1', 'z'],
    ] as const)
      story.lock(who, lock);
    expect(story.lock('a1', 'y')).toEqual([]);
    expect(story.lock('b1', 'z')).toEqual([]);
    expect(story.lock('c1', 'x', { wait: false })).toEqual(['c1 denied']);
    expect(story.lock('c1', 'x')).toEqual(['c1 deadlock']);
    // Its other locks stay, as the session decides what becomes of them.
    expect(story.unlock('c1')).toEqual(['b1 granted']);
    expect(story.unlock('b1')).toEqual(['a1 granted']);
  });

  it('find the circle of two that share a lock and both want it alone', () => {
    const story = new Story();
    story.lock('a1', 'x', { shared: true });
    story.lock('b1', 'x', { shared: true });
    expect(story.lock('a1', 'x')).toEqual([]);
    expect(story.lock('b1', 'x')).toEqual(['b1 deadlock']);
  });

  it('find circles that go through PostgreSQL, on one node or on two', () => {
    const story = new Story();
    story.lock('a1', 'x');
    story.lock('a2', 'x');
    expect(story.blocks('a2', ['a3'])).toEqual([]);
    expect(story.blocks('a2', ['a3', 'a1'])).toEqual(['a2 deadlock']);
    expect(story.state).toEqual(['x: a1 |']);

    story.lock('b1', 'y');
    story.lock('a2', 'y');
    expect(story.blocks('a2', ['a1'])).toEqual([]);
    story.lock('b2', 'x');
    story.lock('c1', 'x');
    const copy = AdvisoryLocks.restore(story.locks.snapshot());
    for (const locks of [story.locks, copy]) {
      story.locks = locks;
      const request = 5;
      const [outcome] = locks.blocked({
        ...{ type: 'lock-waits', node: nodeId(2), epoch: epoch(1), session: 2, request, blocks: [1] },
      });
      expect(outcome).toMatchObject({
        result: 'deadlock',
        detail:
          'Session 2 of node 2 waits for ExclusiveLock on advisory lock x. Session 1 of node 1 waits in PostgreSQL for session 2 of that node. ' +
          'Session 2 of node 1 waits for ExclusiveLock on advisory lock y. Session 1 of node 2 waits in PostgreSQL for session 2 of that node.',
      });
      expect(story.state).toEqual(['x: a1 | c1', 'y: b1 | a2']);
    }
  });

  it('find a circle through PostgreSQL when its last request comes', () => {
    const story = new Story();
    story.lock('a1', 'x');
    story.lock('b1', 'y');
    story.lock('a2', 'y');
    story.blocks('a2', ['a1']);
    expect(story.lock('b1', 'x')).toEqual(['b1 deadlock']);
  });

  it('believe that someone waits in PostgreSQL until one of the two asks for something else', () => {
    const story = new Story();
    story.lock('a1', 'x');
    story.lock('b1', 'y');
    story.lock('a2', 'y', { request: 50 });
    expect(story.blocks('a2', ['a1'], 49)).toEqual([]);
    story.blocks('a2', ['a1'], 50);
    // Another node is told something else of it first.
    story.blocks('a2', [], 50);
    expect(story.lock('b1', 'x')).toEqual([]);
    story.unlock('b1', []);
    story.blocks('a2', ['a1'], 50);
    story.lock('a1', 'z');
    expect(story.lock('b1', 'x')).toEqual([]);
    story.unlock('b1', []);
    story.blocks('a2', ['a1'], 50);
    story.unlock('a2', [], 51);
    story.lock('a2', 'y', { request: 52 });
    expect(story.lock('b1', 'x')).toEqual([]);
    expect(story.state).toEqual(['x: a1 | b1', 'y: b1 | a2', 'z: a1 |']);
  });

  it('are told of waits in PostgreSQL once', () => {
    const story = new Story();
    const waits = { type: 'lock-waits', node: nodeId(1), epoch: epoch(1), session: 2 } as const;
    story.lock('a1', 'x');
    story.lock('b1', 'y');
    story.lock('a2', 'y', { request: 50 });
    expect(story.locks.knows({ ...waits, request: 50, blocks: [] })).toBe(true);
    expect(story.locks.knows({ ...waits, request: 50, blocks: [1] })).toBe(false);
    story.blocks('a2', ['a1'], 50);
    expect(story.locks.knows({ ...waits, request: 50, blocks: [1] })).toBe(true);
    expect(story.locks.knows({ ...waits, request: 50, blocks: [] })).toBe(false);
    // Of a request that is over nothing need be said.
    expect(story.locks.knows({ ...waits, request: 49, blocks: [1] })).toBe(true);
  });

  it('take no notice of what comes twice or too late', () => {
    const story = new Story();
    expect(story.lock('a1', 'x', { request: 5 })).toEqual(['a1 granted']);
    expect(story.lock('a1', 'x', { request: 5 })).toEqual([]);
    story.unlock('a1', [['x', false]], 7);
    // Its number says that it was withdrawn, and it holds nothing now: remembered all the same.
    expect(story.lock('a1', 'y', { request: 6 })).toEqual([]);
    expect(story.lock('a1', 'x', { request: 5 })).toEqual([]);
    expect(story.locks.isEmpty).toBe(true);
  });

  it('let a withdrawn request go, and whoever waited behind it on', () => {
    const story = new Story();
    story.lock('a1', 'x', { shared: true });
    story.lock('b1', 'x');
    story.lock('c1', 'x', { shared: true });
    expect(story.unlock('b1', [['x', false]])).toEqual(['c1 granted']);
  });

  it('of an ended epoch wait no more, and stay until they are freed', () => {
    const story = new Story();
    story.lock('a1', 'x');
    story.lock('b1', 'y');
    story.lock('a2', 'y');
    story.lock('c1', 'y');
    story.lock('b2', 'x');
    expect(story.ends('a')).toEqual([]);
    expect(story.state).toEqual(['x: a1 | b2', 'y: b1 | c1']);
    expect(story.free('a')).toEqual(['b2 granted']);
  });

  it('are freed by the admission of their node, and not by its exclusion', () => {
    const guard = new Guard();
    const one = nodeId(1);
    const lock = {
      type: 'lock',
      node: one,
      epoch: epoch(1),
      session: 1,
      request: 1,
      lock: 'x',
      shared: false,
    } as const;
    guard.apply(logIndex(1), { type: 'admit', node: one, previous: epoch(0), time: 0 });
    guard.apply(logIndex(2), { ...lock, wait: true });
    expect(guard.orphans()).toEqual([]);
    guard.apply(logIndex(3), { type: 'exclude', node: one, epoch: epoch(1), reason: '', time: 0 });
    expect(guard.orphans()).toEqual([{ node: one, epoch: 1 }]);
    expect(guard.check({ ...lock, wait: true, request: 2 }, new Map(), logIndex(3), 1)).toEqual({
      type: 'epoch-ended',
    });
    const restored = Guard.restore(decodeSnapshot(encodeSnapshot(guard.snapshot())));
    expect(restored.orphans()).toEqual(guard.orphans());
    restored.apply(logIndex(4), { type: 'free-locks', node: one, epoch: epoch(1) });
    expect(restored.locks.isEmpty).toBe(true);
    guard.apply(logIndex(4), { type: 'admit', node: one, previous: epoch(1), time: 0 });
    expect(guard.locks.isEmpty).toBe(true);
  });

  it('are remembered by a snapshot when nothing is held: a copy of a request has no effect on any node', () => {
    const guard = new Guard();
    const head = { node: nodeId(1), epoch: epoch(1), session: 1 };
    const lock = { type: 'lock', ...head, request: 1, lock: 'x', shared: false, wait: false } as const;
    guard.apply(logIndex(1), { type: 'admit', node: nodeId(1), previous: epoch(0), time: 0 });
    guard.apply(logIndex(2), lock);
    guard.apply(logIndex(3), { type: 'unlock', ...head, request: 2, locks: [['x', false]] });
    const restored = Guard.restore(decodeSnapshot(encodeSnapshot(guard.snapshot())));
    for (const one of [guard, restored, guard.clone()]) {
      expect(one.check(lock, new Map(), logIndex(3), 1)).toEqual({ type: 'no-change' });
      expect(one.apply(logIndex(4), lock)).toEqual([]);
      expect(one.locks.isEmpty).toBe(true);
    }
  });

  it('stand in the log, and are read back', () => {
    const head = { node: nodeId(3), epoch: epoch(70), session: 4, request: 9 };
    const commands: LogCommand[] = [
      { type: 'lock', ...head, lock: 'app:-5', shared: true, wait: false },
      { type: 'unlock', ...head, locks: [['app:1,2', false]] },
      { type: 'unlock', ...head, locks: undefined },
      { type: 'lock-waits', ...head, blocks: [1, 7] },
      { type: 'free-locks', node: nodeId(3), epoch: epoch(70) },
    ];
    for (const command of commands) expect(decodeCommand(encodeCommand(command))).toEqual(command);
  });

  /** After any commands: no two holders exclude each other, who could have a lock has it, a snapshot goes on like the original. */
  it('keep their rules whatever comes', () => {
    const step = fc.record({
      who: fc.constantFrom('a1', 'a2', 'b1', 'c1'),
      lock: fc.constantFrom('x', 'y'),
      what: fc.constantFrom('lock', 'lock', 'unlock', 'blocks', 'end', 'epoch'),
      shared: fc.boolean(),
      wait: fc.boolean(),
    });
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const [story, copy] = [new Story(), new Story()];
        const waiting = new Set<string>();
        const perform = (on: Story, { who, lock, what, shared, wait }: (typeof steps)[number]): string[] => {
          if (what === 'lock') return on.lock(who, lock, { shared, wait });
          if (what === 'unlock') return on.unlock(who, [[lock, shared]]);
          if (what === 'blocks') return on.blocks(who, wait ? ['a1'] : []);
          return what === 'end' ? on.unlock(who) : [...on.ends(who[0]), ...on.free(who[0])];
        };
        for (const one of steps) {
          if (one.what === 'lock' && waiting.has(one.who)) continue;
          expect(perform(copy, one)).toEqual(perform(story, one));
          copy.locks = AdvisoryLocks.restore(copy.locks.snapshot());
          waiting.clear();
          for (const { holders, waiters } of story.locks.list(100)) {
            for (const who of waiters) waiting.add(nameOf(who));
            const alone = holders.filter(({ mode }) => mode === 'ExclusiveLock');
            expect(alone.length === 0 || holders.length === 1).toBe(true);
            const first = waiters.at(0);
            if (first === undefined) continue;
            const others = holders.filter((who) => nameOf(who) !== nameOf(first));
            expect(others.some(({ mode }) => mode === 'ExclusiveLock' || first.mode === 'ExclusiveLock')).toBe(true);
          }
          expect(copy.state).toEqual(story.state);
        }
      }),
      { numRuns: 500 },
    );
  });
});
