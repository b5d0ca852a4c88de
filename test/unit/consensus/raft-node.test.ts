import { pack, unpack } from 'msgpackr';
import { afterEach, expect, test } from 'vitest';
import type { Message } from '../../../src/consensus/core/messages.ts';
import { DEFAULT_LIMITS, isNoop, type Leadership, type Snapshot } from '../../../src/consensus/core/types.ts';
import { LogStore, type Storage } from '../../../src/consensus/log-store.ts';
import { RaftNode, ReadRefused } from '../../../src/consensus/raft-node.ts';
import { nodeId, type NodeId } from '../../../src/runtime/ids.ts';
import { FakeDisk } from './fake-disk.ts';

const bytes = (text: string): Uint8Array => new Uint8Array(Buffer.from(text));

/** One process: a node with its store, and what it was told. */
class Process {
  readonly disk: FakeDisk;
  readonly id: NodeId;
  readonly #peers: Map<NodeId, Process>;
  readonly #voters: readonly NodeId[];
  node: RaftNode | null = null;
  applied: string[] = [];
  installed: Snapshot | null = null;
  leadership: Leadership | null = null;
  failure: Error | null = null;

  constructor(id: NodeId, voters: readonly NodeId[], peers: Map<NodeId, Process>) {
    this.id = id;
    this.disk = new FakeDisk(id);
    this.#voters = voters;
    this.#peers = peers;
  }

  async start(): Promise<void> {
    const { store, restored } = await LogStore.open('/raft', { disk: this.disk, segmentBytes: 4096 });
    this.applied = [];
    const { id } = this;
    const voters = this.#voters;
    this.node = new RaftNode({
      config: { ...DEFAULT_LIMITS, id, voters, electionTicks: 10, heartbeatTicks: 2, seed: 1, retainEntries: 0 },
      restored,
      storage: store,
      send: (to, message) => this.#send(to, message),
      handlers: {
        install: (snapshot) => {
          this.installed = snapshot;
          this.applied = Buffer.from(snapshot.state).toString().split(',');
        },
        committed: (entries) => {
          for (const one of entries) if (!isNoop(one)) this.applied.push(Buffer.from(one.payload).toString());
        },
        leadership: (leadership) => (this.leadership = leadership),
        failed: (error) => (this.failure = error),
      },
    });
    this.node.start();
  }

  /** Through the real encoder, which proves that messages survive it. */
  #send(to: NodeId, message: Message): void {
    const packed = pack(message);
    setImmediate(() => this.#peers.get(to)?.node?.receive(this.id, unpack(packed) as Message));
  }
}

const running: Process[] = [];
afterEach(async () => {
  for (const one of running.splice(0)) await one.node?.stop();
});

async function startCluster(size: number): Promise<Process[]> {
  const voters = Array.from({ length: size }, (_, i) => nodeId(i + 1));
  const peers = new Map<NodeId, Process>();
  for (const id of voters) peers.set(id, new Process(id, voters, peers));
  for (const one of peers.values()) await one.start();
  running.push(...peers.values());
  return [...peers.values()];
}

async function until(all: readonly Process[], condition: () => boolean): Promise<void> {
  for (let turn = 0; turn < 2000; turn++) {
    if (condition()) return;
    if (turn % 10 === 0) for (const one of all) one.node?.tick();
    await new Promise((resolve) => setImmediate(resolve));
  }
  throw new Error('it did not happen');
}

const leaderOf = (all: readonly Process[]): Process | undefined => all.find((one) => one.leadership?.ready === true);

async function ready(all: readonly Process[]): Promise<Process & { node: RaftNode }> {
  await until(all, () => leaderOf(all) !== undefined);
  return leaderOf(all) as Process & { node: RaftNode };
}

test('three nodes agree, one comes back from its disk, one from a snapshot', async () => {
  const all = await startCluster(3);
  const leader = await ready(all);
  const { term } = leader.node.status;
  for (let i = 0; i < 20; i++) expect(leader.node.propose(bytes(`a${i}`), term)).toMatchObject({ accepted: true });
  await until(all, () => all.every((one) => one.applied.length === 20));

  const [lost, other] = all.filter((one) => one !== leader) as [Process, Process];
  await lost.node!.stop();
  lost.node = null;
  expect(leader.node.propose(bytes('while away'), term).accepted).toBe(true);
  await until([leader, other], () => leader.applied.length === 21 && other.applied.length === 21);
  await lost.start();
  await until(all, () => lost.applied.length === 21);
  expect(lost.installed).toBeNull();

  await lost.node!.stop();
  lost.node = null;
  for (let i = 0; i < 5; i++) leader.node.propose(bytes(`b${i}`), term);
  await until([leader, other], () => leader.applied.length === 26);
  leader.node.compact(leader.node.status.deliveredIndex, bytes(leader.applied.join(',')));
  await lost.start();
  await until(all, () => lost.applied.length === 26);
  expect(lost.installed).not.toBeNull();
  expect(lost.applied).toEqual(leader.applied);
  expect(all.map((one) => one.failure)).toEqual([null, null, null]);
});

test('a leader confirms a read, a follower refuses it', async () => {
  const all = await startCluster(3);
  const leader = await ready(all);
  const read = leader.node.readIndex();
  expect(await read).toBe(leader.node.status.commitIndex);
  const follower = all.find((one) => one !== leader)!;
  await expect(follower.node!.readIndex()).rejects.toThrow(ReadRefused);
  await leader.node.stop();
  await expect(leader.node.readIndex()).rejects.toThrow('not-leader');
});

test('proposals made in one turn, and from inside a handler, share syncs and keep their order', async () => {
  const all = await startCluster(1);
  const leader = await ready(all);
  const before = leader.disk.syncs;
  const { term } = leader.node.status;
  for (let i = 0; i < 50; i++) leader.node.propose(bytes(`${i}`), term);
  await until(all, () => leader.applied.length === 50);
  expect(leader.applied).toEqual(Array.from({ length: 50 }, (_, i) => `${i}`));
  expect(leader.disk.syncs - before).toBeLessThan(5);
});

test('a failed sync stops the node; nothing it could not keep was delivered', async () => {
  const all = await startCluster(1);
  const leader = await ready(all);
  leader.disk.failNextSync = true;
  expect(leader.node.propose(bytes('x'), leader.node.status.term).accepted).toBe(true);
  await until(all, () => leader.failure !== null);
  expect(leader.failure?.message).toContain('EIO');
  expect(leader.applied).toEqual([]);
  expect(leader.node.propose(bytes('y'), leader.node.status.term).accepted).toBe(false);
});

test('the order of carrying out: storage and peers first, then the layer above', async () => {
  const order: string[] = [];
  let confirm = (): void => undefined;
  const storage: Storage = {
    append: (request) => {
      order.push(`append ${request.entries.length}`);
      return new Promise((resolve) => (confirm = resolve));
    },
    compact: () => Promise.resolve(),
    close: () => Promise.resolve(),
  };
  const node = new RaftNode({
    config: { ...DEFAULT_LIMITS, id: nodeId(1), voters: [nodeId(1)], electionTicks: 10, heartbeatTicks: 1, seed: 1 },
    restored: { hardState: { term: 0, votedFor: null }, snapshot: null, entries: [] },
    storage,
    send: () => order.push('send'),
    handlers: {
      install: () => order.push('install'),
      committed: (entries) => {
        order.push(`committed ${entries.map((one) => one.index).join()}`);
        if (entries[0].index === 1) order.push(`proposed ${JSON.stringify(node.propose(bytes('x'), 1).accepted)}`);
      },
      leadership: ({ role, ready: isReady }) => order.push(`${role}${isReady ? ' ready' : ''}`),
      failed: (error) => order.push(error.message),
    },
  });
  node.start();
  node.campaign();
  expect(order).toEqual(['append 0', 'candidate']);
  const turn = async (): Promise<void> => {
    confirm();
    await new Promise((resolve) => setImmediate(resolve));
  };
  await turn();
  expect(order.slice(2)).toEqual(['append 1', 'leader']);
  await turn();
  expect(order.slice(4)).toEqual(['committed 1', 'proposed true', 'leader ready', 'append 1']);
  await turn();
  expect(order.slice(8)).toEqual(['committed 2']);
});
