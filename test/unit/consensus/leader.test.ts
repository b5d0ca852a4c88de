import { expect, test } from 'vitest';
import { Leader } from '../../../src/consensus/core/leader.ts';
import { RaftLog } from '../../../src/consensus/core/log.ts';
import type { Message } from '../../../src/consensus/core/messages.ts';
import { DEFAULT_LIMITS, type RaftConfig } from '../../../src/consensus/core/types.ts';
import { logIndex, nodeId, type NodeId } from '../../../src/runtime/ids.ts';

const [one, two, three] = [1, 2, 3].map(nodeId);
const config: RaftConfig = {
  ...DEFAULT_LIMITS,
  id: one,
  voters: [one, two, three],
  electionTicks: 10,
  heartbeatTicks: 2,
  seed: 1,
};

test('what a voter acknowledged before its vote counted is asked for again once it does, though nothing new is to be sent', () => {
  const sent: { to: NodeId; message: Message }[] = [];
  const leader = new Leader(config, 1, new RaftLog(null, []), (to, message) => sent.push({ to, message }));
  leader.replicate();
  const accepted = { type: 'appendAccepted', term: 1, match: leader.noop } as const;
  leader.learned(two, { type: 'learner', term: 1, memory: 'new', reply: accepted });
  expect(leader.committable(leader.noop)).toBe(0);

  sent.length = 0;
  leader.heartbeatAnswered(two, { type: 'heartbeatReply', term: 1, round: 0 });
  leader.replicate();
  expect(sent.filter(({ to }) => to === two)).toMatchObject([
    { message: { type: 'append', prevIndex: leader.noop, entries: [] } },
  ]);
  leader.accepted(two, accepted);
  expect(leader.committable(leader.noop)).toBe(logIndex(1));

  sent.length = 0;
  leader.heartbeatAnswered(two, { type: 'heartbeatReply', term: 1, round: 0 });
  leader.replicate();
  expect(sent.filter(({ to, message }) => to === two && message.type === 'append')).toEqual([]);
});
