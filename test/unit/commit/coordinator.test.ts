import { expect, test } from 'vitest';
import { Coordinator, type CoordinatorEffect } from '../../../src/commit/core/coordinator.ts';
import { Guard } from '../../../src/commit/core/guard.ts';
import { formatGid } from '../../../src/commit/gid.ts';
import { epoch, logIndex, nodeId } from '../../../src/runtime/ids.ts';

const [one, two, three] = [1, 2, 3].map(nodeId);
const gid = formatGid({ cluster: 'test', node: one, epoch: epoch(1), sequence: 1, clock: 1 });
const error = { sqlstate: '40001', message: 'lost a conflict' };
const types = (effects: readonly CoordinatorEffect[]) => effects.map(({ type }) => type);

/** A transaction of node 1 that has been proposed to node 2, with the votes of both. */
function proposing(): Coordinator {
  const coordinator = new Coordinator({ self: one, resendAfter: 100, voteTimeout: 1000, decisionTimeout: 2000 });
  coordinator.step({
    type: 'members',
    members: new Map([
      [one, epoch(1)],
      [two, epoch(2)],
    ]),
  });
  coordinator.step({ type: 'leader', leader: { node: two, term: 1 } });
  coordinator.step({ type: 'begin', gid, database: 'app', everywhere: false, dependsOn: logIndex(0), now: 0 });
  coordinator.step({ type: 'prepared', gid, now: 0 });
  coordinator.step({ type: 'announced', gid, now: 0 });
  const effects = coordinator.step({ type: 'vote', gid, node: two, epoch: epoch(2) });
  expect(effects).toMatchObject([{ type: 'propose', attempt: 1 }]);
  return coordinator;
}

test('only the refusal of the last proposal is final', () => {
  const coordinator = proposing();
  expect(coordinator.step({ type: 'tick', now: 100 })).toMatchObject([{ type: 'propose', attempt: 2 }]);
  expect(coordinator.step({ type: 'abort', gid, error })).toEqual([]);
  const reason = { type: 'votes-missing', nodes: [three] } as const;
  expect(coordinator.step({ type: 'rejected', gid, term: 1, attempt: 1, reason })).toEqual([]);
  expect(types(coordinator.step({ type: 'rejected', gid, term: 1, attempt: 2, reason }))).toContain(
    'rollback-prepared',
  );
});

test('a proposal is repeated with the votes that there are, so that its refusal brings back what waits for a vote', () => {
  const coordinator = proposing();
  coordinator.step({
    type: 'members',
    members: new Map([
      [one, epoch(1)],
      [two, epoch(2)],
      [three, epoch(9)],
    ]),
  });
  const effects = coordinator.step({ type: 'tick', now: 100 });
  expect(effects).toMatchObject([
    {
      type: 'propose',
      votes: [
        [two, 2],
        [one, 1],
      ],
    },
  ]);
});

test('a member has its own time to vote, from its admission on', () => {
  const coordinator = proposing();
  coordinator.step({ type: 'tick', now: 900 });
  coordinator.step({
    type: 'members',
    members: new Map([
      [one, epoch(1)],
      [two, epoch(2)],
      [three, epoch(9)],
    ]),
  });
  const reason = { type: 'votes-missing', nodes: [three] } as const;
  coordinator.step({ type: 'rejected', gid, term: 1, attempt: 2, reason });
  coordinator.step({
    type: 'members',
    members: new Map([
      [one, epoch(1)],
      [two, epoch(2)],
      [three, epoch(10)],
    ]),
  });
  expect(types(coordinator.step({ type: 'tick', now: 1500 }))).not.toContain('suspect');
  expect(types(coordinator.step({ type: 'tick', now: 1900 }))).toContain('suspect');
});

test('a member whose vote does not come is suspected before its transaction is given up, however short that time is', () => {
  const coordinator = new Coordinator({ self: one, resendAfter: 100, voteTimeout: 5000, decisionTimeout: 2000 });
  const members = new Map([one, two, three].map((node) => [node, epoch(1)]));
  coordinator.step({ type: 'members', members });
  coordinator.step({ type: 'leader', leader: { node: two, term: 1 } });
  coordinator.step({ type: 'begin', gid, database: 'app', everywhere: false, dependsOn: logIndex(0), now: 0 });
  coordinator.step({ type: 'prepared', gid, now: 0 });
  coordinator.step({ type: 'announced', gid, now: 0 });
  coordinator.step({ type: 'vote', gid, node: two, epoch: epoch(1) });
  expect(types(coordinator.step({ type: 'tick', now: 1900 }))).not.toContain('suspect');
  const effects = coordinator.step({ type: 'tick', now: 2000 });
  expect(effects).toContainEqual({ type: 'suspect', node: three, epoch: epoch(1), gid });
  expect(types(effects)).toContain('rollback-prepared');
});

test('nobody is suspected of a vote that was never asked for, nor is a transaction given up while its decoder gets on', () => {
  const coordinator = new Coordinator({ self: one, resendAfter: 100, voteTimeout: 1000, decisionTimeout: 2000 });
  coordinator.step({ type: 'members', members: new Map([one, two].map((node) => [node, epoch(1)])) });
  coordinator.step({ type: 'leader', leader: { node: two, term: 1 } });
  coordinator.step({ type: 'begin', gid, database: 'app', everywhere: false, dependsOn: logIndex(0), now: 0 });
  coordinator.step({ type: 'prepared', gid, now: 0 });
  coordinator.step({ type: 'decoding', database: 'other', now: 500 });
  coordinator.step({ type: 'decoding', database: 'app', now: 1500 });
  expect(coordinator.list()).toMatchObject([{ waitsFor: 'its changes out of the WAL of this node' }]);
  expect(coordinator.step({ type: 'tick', now: 3000 })).not.toContainEqual(
    expect.objectContaining({ type: 'suspect' }),
  );
  coordinator.step({ type: 'announced', gid, now: 3100 });
  expect(types(coordinator.step({ type: 'tick', now: 4000 }))).not.toContain('suspect');
  // Decoded once more, as after a lost connection.
  coordinator.step({ type: 'announced', gid, now: 4050 });
  expect(types(coordinator.step({ type: 'tick', now: 4100 }))).toContain('suspect');
});

test('a transaction whose changes do not come out of the WAL is given up, and nobody else is to blame', () => {
  const coordinator = new Coordinator({ self: one, resendAfter: 100, voteTimeout: 1000, decisionTimeout: 2000 });
  coordinator.step({ type: 'members', members: new Map([one, two].map((node) => [node, epoch(1)])) });
  coordinator.step({ type: 'begin', gid, database: 'app', everywhere: false, dependsOn: logIndex(0), now: 0 });
  coordinator.step({ type: 'prepared', gid, now: 0 });
  const effects = types(coordinator.step({ type: 'tick', now: 2000 }));
  expect(effects).toContain('rollback-prepared');
  expect(effects).not.toContain('suspect');
  expect(coordinator.step({ type: 'rolled-back', gid })).toMatchObject([
    {
      type: 'answer',
      outcome: { type: 'aborted', error: { sqlstate: '57P03', message: expect.stringContaining('WAL') as string } },
    },
    { type: 'release' },
  ]);
});

test('a vote counts under the epoch that it was given in, and no other', () => {
  const guard = new Guard();
  guard.apply(logIndex(1), { type: 'admit', node: one, previous: epoch(0), time: 0 });
  guard.apply(logIndex(2), { type: 'admit', node: two, previous: epoch(0), time: 0 });
  guard.apply(logIndex(3), { type: 'admit', node: two, previous: epoch(2), time: 0 });
  const command = { type: 'commit', gid, database: 'app', time: 0, dependsOn: logIndex(0), notify: false } as const;
  const check = (second: number) =>
    guard.check(
      command,
      new Map([
        [one, epoch(1)],
        [two, epoch(second)],
      ]),
      logIndex(3),
      1,
    );
  expect(check(2)).toEqual({ type: 'votes-missing', nodes: [two] });
  expect(check(3)).toBeUndefined();
});

test('a client is told of an abort though PostgreSQL cannot roll back, and once', () => {
  const coordinator = new Coordinator({ self: one, resendAfter: 100, voteTimeout: 1000, decisionTimeout: 2000 });
  coordinator.step({ type: 'members', members: new Map([one, two].map((node) => [node, epoch(node)])) });
  coordinator.step({ type: 'begin', gid, database: 'app', everywhere: false, dependsOn: logIndex(0), now: 0 });
  coordinator.step({ type: 'prepared', gid, now: 0 });
  coordinator.step({ type: 'announced', gid, now: 0 });
  expect(types(coordinator.step({ type: 'vote', gid, node: two, epoch: epoch(2), error }))).toContain(
    'rollback-prepared',
  );
  expect(types(coordinator.step({ type: 'tick', now: 10 }))).not.toContain('answer');
  expect(types(coordinator.step({ type: 'tick', now: 1000 }))).toContain('answer');
  expect(types(coordinator.step({ type: 'rolled-back', gid }))).not.toContain('answer');
});
