import { describe, expect, it } from 'vitest';
import type { Beat } from '../../../src/cluster/messages.ts';
import { donorsAmong, type Cluster } from '../../../src/cluster/reclone/donors.ts';
import { nodeId, type Epoch, type LogIndex, type NodeId } from '../../../src/runtime/ids.ts';

const [TWO, THREE, FOUR] = [2, 3, 4].map(nodeId);
const AT_WORK: Beat = { clock: 0, committed: 9 as LogIndex, epoch: 7 as Epoch, postgres: true, bypassed: false };

function cluster(more: Partial<Cluster> = {}): Cluster {
  return { leader: TWO, isMember: () => true, isUp: () => true, heardOf: () => AT_WORK, ...more };
}

const donors = (more?: Partial<Cluster>): NodeId[] =>
  donorsAmong([TWO, THREE, FOUR], cluster(more)).map(({ node }) => node);
const says = (beat: Partial<Beat>) => (node: NodeId) => (node === THREE ? { ...AT_WORK, ...beat } : AT_WORK);

describe('the nodes that a copy can be taken of', () => {
  it('has the leader last', () => expect(donors()).toEqual([THREE, FOUR, TWO]));

  it('has none without a leader', () => expect(donors({ leader: null })).toEqual([]));

  it.each<[string, Partial<Cluster>]>([
    ['that the log has excluded', { isMember: (node) => node !== THREE }],
    ['that can not be reached', { isUp: (node) => node !== THREE }],
    ['that was not heard of yet', { heardOf: (node) => (node === THREE ? undefined : AT_WORK) }],
    ['whose PostgreSQL is down', { heardOf: says({ postgres: false }) }],
    ['that is named as a member, and does not take part', { heardOf: says({ epoch: 0 as Epoch }) }],
  ])('has no node %s', (_what, more) => expect(donors(more)).toEqual([FOUR, TWO]));

  it('tells whose data have writes that no other node has', () => {
    const found = donorsAmong([THREE, FOUR], cluster({ heardOf: says({ bypassed: true }) }));
    expect(found).toEqual([
      { node: THREE, committed: 9, bypassed: true },
      { node: FOUR, committed: 9, bypassed: false },
    ]);
  });
});
