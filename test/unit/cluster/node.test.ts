import pino from 'pino';
import { describe, expect, it } from 'vitest';
import { ClusterNode } from '../../../src/cluster/node.ts';
import type { BulkMessage, PeerMessage } from '../../../src/cluster/messages.ts';
import { formatGid } from '../../../src/commit/gid.ts';
import { CommitProgress } from '../../../src/commit/core/commit-progress.ts';
import { logIndex, nodeId, type Epoch, type NodeId } from '../../../src/runtime/ids.ts';

const [self, peer] = [nodeId(1), nodeId(2)];

/** A node of two between stand-ins, which note down what it asks of them. */
function setUp({ isBulkUp = true } = {}) {
  const done: unknown[][] = [];
  const note =
    (what: string) =>
    (...details: unknown[]) =>
      void done.push([what, ...details]);
  const node = new ClusterNode({
    settings: {
      ...{ self, nodes: [self, peer], voters: [self, peer] },
      ...{ heartbeatTimeout: 1000, voteTimeout: 10_000, decisionTimeout: 15_000, resendAfter: 500, minimumMembers: 1 },
    },
    ...{ cluster: 'test', lastIndex: logIndex(0), heartbeatInterval: 1000, refuseReads: false },
    ...{ readLevel: 'local', readTimeout: 0, fetchTimeout: 1000, retryPatience: 0, clusterLocks: false },
    bypassed: () => false,
    needed: () => undefined,
    keepVoice: () => Promise.resolve(),
    log: pino({ level: 'silent' }),
    observer: { finished: () => undefined, conflict: () => undefined },
  });
  const unused = {} as never;
  node.connect({
    replica: {
      ...{ problem: undefined, commit: unused, cancelApply: unused, rollbackPrepared: unused, recover: unused },
      ...{ overruleBackend: unused, lockWaits: unused, readChanges: unused },
      release: () => undefined,
      apply: note('apply'),
      readHistory: () => Promise.resolve({ pieces: [], end: true }),
      forgetHistory: note('forget'),
    },
    raft: { propose: () => undefined, receive: unused, decided: logIndex(0), counts: unused },
    links: {
      send: () => true,
      broadcast: () => undefined,
      sendBulk: (to: NodeId, message: BulkMessage) => {
        note('bulk')(to, message);
        return Promise.resolve(isBulkUp);
      },
    },
    ...{ history: unused, cloneClient: unused, cloneServer: unused, catchUp: unused },
    outcomes: { onApplied: () => undefined } as never,
  });
  return { node, done };
}

/** Lets promises that are settled already have their effect. */
const settle = () => new Promise<void>((resolve) => setImmediate(resolve));

describe('a node to which a transaction is announced', () => {
  const gid = formatGid({ cluster: 'test', node: peer, epoch: 1 as Epoch, sequence: 1, clock: 1 });
  const announce = (text: string): PeerMessage => {
    return { t: 'announce', gid, database: 'app', dependsOn: logIndex(0), data: Buffer.from(text) };
  };

  it('keeps no changes that it has no use for: those that it replays come with a later announcement', () => {
    const { node, done } = setUp();
    node.onMessage(peer, announce('while it is no member'));
    node.onPostgres({
      ...{ type: 'postgres-up', committed: logIndex(0), progress: new CommitProgress([]), prepared: new Map() },
    });
    node.onLeadership({ role: 'follower', leader: peer, term: 1, ready: true });
    node.start();
    node.stop();
    expect(node.core.state).toBe('joining');
    node.onMessage(peer, announce('while it joins'));
    expect(done).toEqual([['apply', gid, 'app', { type: 'inline', data: Buffer.from('while it joins') }]]);
  });
});

describe('a node as a donor', () => {
  const request: PeerMessage = {
    ...{ t: 'history', id: 7, database: 'app', after: logIndex(3), limit: 1000, headersOnly: false },
  };

  it('reads on for a node that has got the answer', async () => {
    const { node, done } = setUp();
    node.onMessage(peer, request);
    await settle();
    expect(done).toEqual([['bulk', peer, { id: 7, pieces: [], end: true }]]);
  });

  it('reads anew what a node can not have got', async () => {
    const { node, done } = setUp({ isBulkUp: false });
    node.onMessage(peer, request);
    await settle();
    expect(done.at(-1)).toEqual(['forget', peer, 'app']);
  });
});
