/** What the simulator found, each as a short story. */
import { CommitProgress } from '../../../src/commit/core/commit-progress.ts';
import { expect, test } from 'vitest';
import { NodeCore } from '../../../src/cluster/core/node-core.ts';
import type { NodeEffect, NodeEvent } from '../../../src/cluster/core/types.ts';
import type { LogCommand } from '../../../src/commit/core/types.ts';
import { formatGid } from '../../../src/commit/gid.ts';
import { STEPS } from '../../../src/runtime/hybrid-clock.ts';
import { epoch, logIndex, nodeId, type Gid } from '../../../src/runtime/ids.ts';

const [one, two, three] = [1, 2, 3].map(nodeId);

function settings(self: number) {
  return {
    self: nodeId(self),
    nodes: [one, two, three],
    voters: [one, two, three],
    resendAfter: 100,
    voteTimeout: 1000,
    decisionTimeout: 2000,
    heartbeatTimeout: 1000,
    minimumMembers: 1,
  };
}

class Story {
  readonly core: NodeCore;
  #index = 0;
  #now = 0;

  constructor(lastIndex = 0, self = 1) {
    this.core = new NodeCore(settings(self), undefined, logIndex(lastIndex));
  }

  step(event: NodeEvent): readonly NodeEffect[] {
    return this.core.step(event);
  }

  read(command: LogCommand | undefined): readonly NodeEffect[] {
    return this.step({ type: 'entry', entry: { index: logIndex(++this.#index), command } });
  }

  admit(node: number): readonly NodeEffect[] {
    return this.read({ type: 'admit', node: nodeId(node), previous: epoch(0), time: 0 });
  }

  commit(gid: Gid): readonly NodeEffect[] {
    return this.read({ type: 'commit', gid, database: 'app', time: 0, dependsOn: logIndex(0), notify: false });
  }

  tick(milliseconds = 100): readonly NodeEffect[] {
    this.#now += milliseconds;
    return this.step({ type: 'tick', now: this.#now, wall: 0 });
  }

  postgresUp(committed = 0, prepared: readonly Gid[] = []): readonly NodeEffect[] {
    return this.step({
      type: 'postgres-up',
      committed: logIndex(committed),
      progress: new CommitProgress([[logIndex(committed)]]),
      prepared: new Map(prepared.map((gid) => [gid, 'app'])),
    });
  }

  /** Up to membership: node 2 leads, and the log says ADMIT(1). */
  join(): this {
    this.postgresUp();
    this.step({ type: 'leadership', leader: two, term: 1, ready: false });
    this.tick();
    this.admit(1);
    return this;
  }
}

const gid = (node: number, at: number, sequence = 1): Gid =>
  formatGid({ cluster: 'test', node: nodeId(node), epoch: epoch(at), sequence, clock: 1 });
const types = (effects: readonly NodeEffect[]) => effects.map(({ type }) => type);

test('an admission that was in the log before the run began is not taken for its own', () => {
  expect(new Story().join().core.state).toBe('member');
  const restarted = new Story(1).join();
  expect(restarted.core.state).toBe('joining');
  expect(restarted.core.epoch).toBe(0);
});

test('a decision that comes while PostgreSQL is down outlives the end of the epoch', () => {
  const story = new Story().join();
  const own = gid(1, 1);
  story.step({ type: 'begin', gid: own, database: 'app', everywhere: false });
  story.step({ type: 'prepared', gid: own });
  story.step({ type: 'postgres-down' });
  story.commit(own);
  story.read({ type: 'exclude', node: one, epoch: epoch(1), reason: '', time: 0 });
  const effects = story.postgresUp(0, [own]);
  expect(types(effects)).toContain('commit');
  expect(types(effects)).not.toContain('rollback-prepared');
  expect(story.step({ type: 'committed', index: logIndex(2) })).toContainEqual({
    type: 'answer',
    gid: own,
    outcome: { type: 'committed', index: 2 },
  });
});

test('what the log has committed is not dropped because its origin has finished with it', () => {
  const story = new Story().join();
  story.admit(2);
  const theirs = gid(2, 2);
  story.step({
    type: 'message',
    from: two,
    message: { t: 'announce', gid: theirs, database: 'app', dependsOn: logIndex(0) },
  });
  story.step({ type: 'applied', gid: theirs });
  story.step({ type: 'postgres-down' });
  story.commit(theirs);
  story.step({ type: 'message', from: two, message: { t: 'not-active', gid: theirs, asOf: logIndex(3) } });
  expect(types(story.postgresUp(0, [theirs]))).toContain('commit');
});

test('what other nodes committed before an admission is caught up first, and only then are writes taken', () => {
  const story = new Story();
  story.postgresUp();
  story.admit(2);
  const missing = { type: 'missing', gid: gid(2, 1), index: 2, database: 'app', member: false };
  expect(story.commit(gid(2, 1))).toContainEqual(missing);
  story.commit(gid(2, 1, 2));
  story.step({ type: 'leadership', leader: two, term: 1, ready: false });
  story.tick();
  expect(story.core.state).toBe('catching-up');
  // Only when what is missing turns out to be to be had.
  story.step({ type: 'caught-up', gid: gid(2, 1), index: logIndex(2), database: 'app' });
  story.step({ type: 'committed', index: logIndex(2) });
  story.tick();
  story.admit(1);
  expect(story.core.state).toBe('member');
  expect(story.core.refusal).toMatch('catching up');
  const effects = story.step({ type: 'caught-up', gid: gid(2, 1, 2), index: logIndex(3), database: 'app' });
  expect(types(effects)).toContain('commit');
  story.step({ type: 'committed', index: logIndex(3) });
  expect(story.core.refusal).toBeUndefined();
});

test('a snapshot that hides commits keeps the node out until a donor has told of them', () => {
  const story = new Story().join();
  const snapshot = { index: logIndex(9), members: [], lastEpochs: [], lastCommit: logIndex(8) };
  expect(types(story.step({ type: 'install', snapshot }))).toContain('recover');
  expect(story.postgresUp(0)).toContainEqual({ type: 'gap', from: 0, to: 8 });
  expect(story.core.state).toBe('recovering');
  expect(story.core.committed).toBe(0);
  const entries = [5, 8].map((index) => ({
    index: logIndex(index),
    gid: gid(2, index),
    database: 'app',
    time: 0,
    dependsOn: logIndex(0),
    notify: false,
  }));
  const effects = story.step({ type: 'gap-filled', from: logIndex(0), to: logIndex(8), entries });
  expect(types(effects).filter((type) => type === 'missing')).toHaveLength(2);
  expect(story.core.state).toBe('catching-up');
  expect(story.core.committed).toBe(4);
});

test('a leader whose entry Raft refused takes proposals again', () => {
  const story = new Story().join();
  story.step({ type: 'leadership', leader: one, term: 2, ready: true });
  const propose = (): readonly NodeEffect[] => {
    const command: LogCommand = { type: 'admit', node: three, previous: epoch(0), time: 0 };
    return story.step({
      type: 'message',
      from: three,
      message: { t: 'propose', term: 2, command, votes: [], asOf: logIndex(1) },
    });
  };
  expect(propose()).toMatchObject([{ type: 'append', index: 2 }]);
  story.step({ type: 'append-refused', index: logIndex(2) });
  expect(propose()).toMatchObject([{ type: 'append', index: 2 }]);
});

test('what an origin says of a transaction waits until it is known what a snapshot hides', () => {
  const story = new Story().join();
  story.admit(2);
  const theirs = gid(2, 2);
  const announce = { t: 'announce', gid: theirs, database: 'app', dependsOn: logIndex(0) } as const;
  story.step({ type: 'message', from: two, message: announce });
  story.step({ type: 'applied', gid: theirs });
  story.step({ type: 'postgres-down' });
  story.commit(theirs);
  const snapshot = { index: logIndex(9), members: [], lastEpochs: [], lastCommit: logIndex(3) };
  story.step({ type: 'install', snapshot });
  const over = { t: 'not-active', gid: theirs, asOf: logIndex(3) } as const;
  expect(types(story.step({ type: 'message', from: two, message: over }))).not.toContain('rollback-prepared');
  story.postgresUp(0, [theirs]);
  const entry = { index: logIndex(3), gid: theirs, database: 'app', time: 0, dependsOn: logIndex(0), notify: false };
  const filled = { type: 'gap-filled', from: logIndex(0), to: logIndex(3), entries: [entry] } as const;
  expect(types(story.step(filled))).toContain('commit');
});

test('a PREPARE that is carried out when its epoch has ended is nobody’s', () => {
  const story = new Story().join();
  const named = (node: number, number: number, run: number) =>
    formatGid({ cluster: 'c', node: nodeId(node), epoch: epoch(run), sequence: number, clock: 1 });
  const [own, foreign, future] = [named(1, 1, 1), named(2, 1, 1), named(1, 1, 3)];
  expect(story.core.epoch).toBe(1);
  expect(story.core.isAbandoned(own)).toBe(true);
  story.step({ type: 'begin', gid: own, database: 'app', everywhere: false });
  expect(story.core.isAbandoned(own)).toBe(false);
  story.read({ type: 'exclude', node: one, epoch: epoch(1), reason: 'silent', time: 0 });
  expect(story.core.isAbandoned(named(1, 2, 1))).toBe(true);
  expect(story.core.isAbandoned(foreign)).toBe(false);
  expect(story.core.isAbandoned(future)).toBe(false);
});

test('what the log commits is not abandoned, although nothing but the queue knows of it any more', () => {
  const story = new Story(1);
  const gid = formatGid({ cluster: 'c', node: one, epoch: epoch(1), sequence: 1, clock: 1 });
  story.postgresUp();
  story.admit(1);
  story.commit(gid);
  story.read({ type: 'exclude', node: one, epoch: epoch(1), reason: 'silent', time: 0 });
  story.step({ type: 'postgres-down' });
  expect(story.core.knows(gid)).toBe(false);
  expect(story.core.isAbandoned(gid)).toBe(false);
});

test('a backend that locks whole tables gives way to older transactions only, and to what is decided', () => {
  const named = (node: number, at: number, sequence: number, clock: number): Gid =>
    formatGid({ cluster: 'test', node: nodeId(node), epoch: epoch(at), sequence, clock: clock * STEPS });
  const standing = named(1, 1, 1, 5);
  const [older, younger] = [named(2, 2, 1, 4), named(2, 2, 2, 6)];
  const blocked = (story: Story, theirs: Gid) =>
    story.step({ type: 'blocked', gid: theirs, holder: { type: 'backend', pid: 7, standing }, table: 't' });
  const overruled = { type: 'overrule-backend', pid: 7, error: { sqlstate: '40001' } };

  const story = new Story().join();
  story.admit(2);
  for (const theirs of [older, younger]) {
    const message = { t: 'announce', gid: theirs, database: 'app', dependsOn: logIndex(0) } as const;
    story.step({ type: 'message', from: two, message });
  }
  expect(blocked(story, older)).toMatchObject([overruled]);
  expect(blocked(story, younger)).toEqual([{ type: 'cancel-apply', gid: younger }]);
  const cancelled = { sqlstate: '57014', message: 'cancelled' };
  expect(story.step({ type: 'applied', gid: younger, error: cancelled })).toMatchObject([
    { type: 'send', to: two, message: { t: 'vote', gid: younger, error: { sqlstate: '40001' } } },
  ]);

  const behind = new Story();
  behind.postgresUp();
  behind.admit(2);
  const decided = named(2, 1, 3, 7);
  behind.commit(decided);
  expect(blocked(behind, decided)).toMatchObject([overruled]);
});

test('what all members have committed is not told before the members are known that a snapshot brought', () => {
  const story = new Story().join();
  story.admit(2);
  const own = gid(1, 1);
  story.step({ type: 'begin', gid: own, database: 'app', everywhere: true });
  story.step({ type: 'prepared', gid: own });
  story.commit(own);
  story.step({ type: 'committed', index: logIndex(3) });
  const { members, ...rest } = story.core.guard.snapshot();
  story.step({ type: 'install', snapshot: { ...rest, index: logIndex(4), members: [...members, [three, epoch(4)]] } });
  const reports = (from: typeof two) =>
    types(story.step({ type: 'message', from, message: { t: 'committed', index: logIndex(4) } }));
  expect(reports(two)).not.toContain('answer');
  story.postgresUp(3);
  expect(reports(two)).not.toContain('answer');
  expect(reports(three)).toContain('answer');
});

test('a node whose missing entries nobody has any more does not ask to be let in, however few they are', () => {
  const story = new Story();
  story.postgresUp();
  story.admit(2);
  story.commit(gid(2, 1));
  story.commit(gid(2, 1, 2));
  story.step({ type: 'leadership', leader: two, term: 1, ready: false });
  story.step({ type: 'caught-up', gid: gid(2, 1), index: logIndex(2), database: 'app' });
  story.step({ type: 'committed', index: logIndex(2) });
  story.step({ type: 'history-gone', isSo: true });
  expect(types(story.tick())).not.toContain('send');
  expect(story.core.state).toBe('catching-up');
  expect(story.core.refusal).toMatch('it needs a copy');
  story.step({ type: 'history-gone', isSo: false });
  expect(story.tick()).toMatchObject([
    { type: 'send', to: two, message: { t: 'propose', command: { type: 'admit', node: 1 } } },
  ]);
});

test('a node whose writes would reach nobody takes none, and is a member that votes', () => {
  const story = new Story();
  const problem = 'its slots are being made anew';
  story.step({ type: 'readiness', problem });
  story.join();
  expect(story.core.state).toBe('member');
  expect(story.step({ type: 'committed', index: logIndex(1) })).toEqual([]);
  expect(story.core.refusal).toBe(problem);
  story.step({ type: 'readiness', problem: undefined });
  expect(story.core.refusal).toBeUndefined();
});

test('a leader that is no working member of its own cluster is excluded as any other node is', () => {
  const excluded = (story: Story) =>
    [story.tick(), story.tick(2000)]
      .flat()
      .filter((effect) => effect.type === 'append' && effect.command.type === 'exclude');
  const leads: NodeEvent = { type: 'leadership', leader: one, term: 2, ready: true };
  // Its log holds the admission of an earlier run, and what it lacks is to be had nowhere.
  const story = new Story(2);
  story.admit(1);
  story.admit(2);
  story.step(leads);
  expect(excluded(story)).toMatchObject([{ command: { node: one, epoch: 1 } }]);

  const member = new Story().join();
  member.admit(2);
  member.step(leads);
  expect(excluded(member)).toMatchObject([{ command: { node: two, epoch: 2 } }]);
});
