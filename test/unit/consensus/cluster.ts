/**
 * A cluster of cores with a network that loses, repeats, reorders and delays, and disks that lag behind and forget what
 * wasn't synced. Everything follows from one seed.
 */
import {
  lead,
  REFEREE,
  requestOf,
  type DurableEntry,
  type RefereeRequest,
} from '../../../src/consensus/core/referee.ts';
import { Prng } from '../../../src/consensus/core/random.ts';
import { RaftCore } from '../../../src/consensus/core/raft-core.ts';
import {
  EMPTY,
  type Effects,
  type Outgoing,
  type PersistBatch,
  type RaftEvent,
  type Restored,
  type Snapshot,
} from '../../../src/consensus/core/types.ts';
import { logIndex, nodeId, type LogIndex, type NodeId } from '../../../src/runtime/ids.ts';
import { Checker, SafetyViolation } from './checker.ts';
import { RefereeVoter, type Asked } from './referee-voter.ts';

/** What storage does, in memory: requests wait in order; a crash keeps a prefix of them, cut at any record. */
class MemoryDisk {
  durable = EMPTY;
  /** What was on it before it was emptied, each time. */
  readonly former: Restored[] = [];
  waiting: (PersistBatch | { readonly seq: null; readonly compact: Snapshot })[] = [];

  /** Makes the oldest request durable. Returns its number, if it has one. */
  sync(): number | null {
    const request = this.waiting.shift()!;
    this.#apply(request, Infinity);
    return request.seq;
  }

  crash(prng: Prng): void {
    for (let keep = prng.below(this.waiting.length + 1); keep > 0; keep--) this.sync();
    const torn = this.waiting.at(0);
    if (torn !== undefined) this.#apply(torn, prng.below(6));
    this.waiting = [];
  }

  get last(): DurableEntry {
    return this.durable.entries.at(-1) ?? this.durable.snapshot ?? { term: 0, index: logIndex(0) };
  }

  empty(): void {
    this.former.push(this.durable);
    this.durable = EMPTY;
  }

  has(index: LogIndex, term: number, disk = this.durable): boolean {
    const { snapshot, entries } = disk;
    if (snapshot !== null && snapshot.index >= index) return true;
    return entries[index - (snapshot?.index ?? 0) - 1]?.term === term;
  }

  /** It was kept here once, so that an acknowledgement of it may be under way. */
  had(index: LogIndex, term: number): boolean {
    return [this.durable, ...this.former].some((disk) => this.has(index, term, disk));
  }

  /** Applies the first `records` parts of a request, in the order that types.ts promises. */
  #apply(request: MemoryDisk['waiting'][number], records: number): void {
    if (request.seq === null) {
      if (records > 0) this.#compact(request.compact);
      return;
    }
    const { hardState, truncateFrom, snapshot, entries } = request;
    if (hardState !== null && records-- > 0) this.durable = { ...this.durable, hardState };
    if (truncateFrom !== null && records-- > 0) {
      this.durable = { ...this.durable, entries: this.durable.entries.filter((one) => one.index < truncateFrom) };
    }
    if (snapshot !== null && records-- > 0) this.durable = { ...this.durable, snapshot, entries: [] };
    for (const entry of entries) {
      if (records-- > 0) this.durable = { ...this.durable, entries: [...this.durable.entries, entry] };
    }
  }

  #compact(snapshot: Snapshot): void {
    if (snapshot.index <= (this.durable.snapshot?.index ?? 0)) return;
    const entries = this.durable.entries.filter((one) => one.index > snapshot.index);
    this.durable = { ...this.durable, snapshot, entries };
  }
}

interface Node {
  readonly id: NodeId;
  readonly disk: MemoryDisk;
  core: RaftCore | null;
  incarnation: number;
  /** The name of what it remembers, and whether its voice counts: not after its disk was emptied, until an entry of the log names the new one. */
  memory: { readonly name: string; counts: boolean };
  /** The delivered index when each read was asked for may be lower than what was committed anywhere then. */
  readonly reads: Map<number, LogIndex>;
}

interface Packet extends Outgoing {
  readonly from: NodeId;
  /** To the referee: what the sender's adapter made of the message. */
  readonly asked?: Asked;
}

export interface Statistics {
  steps: number;
  crashes: number;
  leaders: number;
  committed: number;
  installs: number;
  reads: number;
  refused: number;
  emptied: number;
  letIn: number;
}

export class Cluster {
  readonly #prng: Prng;
  readonly #seed: number;
  readonly #checker = new Checker();
  readonly #nodes: Node[];
  readonly #voters: readonly NodeId[];
  /** The third voter of two nodes, if this run has one. */
  readonly referee: RefereeVoter | null;
  #network: Packet[] = [];
  /** Proposals under way: they too arrive late, twice, at the wrong node. */
  #proposals: { readonly payload: string; readonly expectedTerm: number }[] = [];
  /** Ordered pairs that can't talk now, as `from>to`. */
  #cut = new Set<string>();
  #next = 1;
  /** What this run has more of than others; and how small its appends are. */
  readonly #theme:
    'none' | 'elections' | 'lonely leaders' | 'compactions' | 'crashes' | 'losses' | 'emptied disks' | 'lost referees';
  readonly #batchBytes: number;
  readonly statistics: Statistics = {
    steps: 0,
    crashes: 0,
    leaders: 0,
    committed: 0,
    installs: 0,
    reads: 0,
    refused: 0,
    emptied: 0,
    letIn: 0,
  };
  /** Where the log lets a new memory in. */
  readonly #letIn = new Map<string, LogIndex>();

  constructor(seed: number, withReferee = false) {
    this.#seed = seed;
    this.#prng = new Prng(seed);
    this.#theme = this.#pick([
      'none',
      'elections',
      'lonely leaders',
      'lonely leaders',
      'compactions',
      'crashes',
      'losses',
      'emptied disks',
      'emptied disks',
      'emptied disks',
      ...(withReferee ? (['lost referees', 'lost referees', 'lost referees'] as const) : []),
    ]);
    // One entry per append lets logs differ in more ways; a no-op weighs nothing, so the limit is below any proposal.
    this.#batchBytes = this.#pick([1, 24]);
    const size = withReferee ? 2 : [1, 2, 3, 3, 3, 4, 5, 5][this.#prng.below(8)];
    this.#nodes = Array.from({ length: size }, (_, i) => ({
      id: nodeId(i + 1),
      disk: new MemoryDisk(),
      core: null,
      incarnation: 0,
      memory: { name: `m${i + 1}`, counts: true },
      reads: new Map(),
    }));
    this.referee = withReferee ? new RefereeVoter(nodeId(1), this.#pick([0, 0, 100])) : null;
    this.#voters = [...this.#nodes.map((one) => one.id), ...(withReferee ? [REFEREE] : [])];
    for (const node of this.#nodes) this.#start(node);
  }

  run(steps: number): void {
    for (let i = 0; i < steps; i++) this.#act();
    this.#heal();
    this.statistics.committed = this.#checker.lastCommitted;
  }

  #act(): void {
    const node = this.#pick(this.#nodes);
    if (this.#theme !== 'none' && this.#prng.below(40) === 0) {
      this.#actOnTheme(node);
      return;
    }
    const dice = this.#prng.below(1000);
    if (dice < 180) this.#step(node, { type: 'tick' });
    else if (dice < 560) this.#deliver();
    else if (dice < 760) this.#sync(node);
    else if (dice < 860) this.#propose();
    else if (dice < 890) this.#read(node);
    else if (dice < 910) this.#compact(node);
    else if (dice < 914) this.#crash(node);
    else if (dice < 934) this.#restart(node);
    else if (dice < 938) this.#partition();
    else if (dice < 942) this.#cut.clear();
    else if (dice < 945) this.#step(node, { type: 'campaign' });
    else if (dice < 950) this.#step(node, { type: 'transferLeadership', to: this.#pick(this.#nodes).id });
    else if (dice < 980) this.#maintain(node);
    else if (dice < 995) this.#letSomeIn();
    else if (dice === 995 && this.#prng.below(4) === 0) this.referee?.lose();
  }

  #actOnTheme(node: Node): void {
    switch (this.#theme) {
      case 'elections':
        this.#elect(node);
        return;
      case 'lonely leaders':
        // Leaders reach a few nodes or none, then another is elected: logs part in every way (figure 8 of the paper).
        this.#cut.clear();
        this.#isolate(this.#nodes.filter((one) => one.core?.role === 'leader' && this.#prng.below(4) > 0));
        this.#elect(node);
        return;
      case 'compactions':
        this.#compact(node);
        return;
      case 'crashes':
        if (node.core === null) this.#start(node);
        else this.#crash(node);
        return;
      case 'losses':
        this.#network.splice(0, this.#prng.below(this.#network.length + 1));
        return;
      case 'lost referees':
        this.#replaceReferee(node);
        return;
      case 'emptied disks':
        this.#emptyDisk(node);
        return;
      case 'none':
        return;
    }
  }

  /** Has a node elected by the referee alone; then the referee forgets that, is set up again, and is asked by the other node. */
  #replaceReferee(node: Node): void {
    this.#cut = new Set(['1>2', '2>1']);
    for (const one of this.#nodes) {
      this.#elect(one === node ? one : this.#pick(this.#nodes));
      for (let n = this.#prng.below(12); n > 0; n--) {
        this.#deliver();
        this.#sync(this.#pick(this.#nodes));
      }
      if (one !== node) continue;
      this.referee?.lose();
      for (let n = 0; n < 6; n++) this.#maintain(this.#nodes[n % 2]);
    }
  }

  /** Makes the others forget their leader, so that they don't ignore the candidate. */
  #elect(candidate: Node): void {
    for (const other of this.#nodes) {
      for (let n = 0; n < 6 && other !== candidate && this.#prng.below(12) > 0; n++)
        this.#step(other, { type: 'tick' });
    }
    this.#step(candidate, { type: 'campaign' });
  }

  /**
   * Its voter forgets what it promised, mostly just after it voted or acknowledged, with answers under way. Those that are left must be a majority: if
   * more forget, nothing can help.
   */
  #emptyDisk(node: Node): void {
    // One that waits to be let in forgets again now and then only.
    if (this.referee !== null || (!node.memory.counts && this.#prng.below(6) > 0)) return;
    const forgetful = this.#nodes.filter((one) => one === node || !one.memory.counts);
    if (forgetful.length > this.#nodes.length - (Math.floor(this.#nodes.length / 2) + 1)) return;
    const others = this.#shuffled(this.#nodes.filter((one) => one !== node));
    const [leader] = others;
    // One that led before does not know yet that it does not any more.
    const former = this.#prng.below(2) === 0 ? others[others.length - 1] : undefined;
    if (former !== undefined) {
      this.#cut.clear();
      this.#elect(former);
      this.#busy(former, 40);
    }
    // A bare majority decides something, or votes for somebody, with it.
    const few = others.slice(0, Math.floor(this.#nodes.length / 2));
    this.#cut = this.#between([node, ...few]);
    if (this.#prng.below(3) > 0) this.#elect(leader);
    this.#busy(leader, this.#prng.below(60));
    this.#crash(node);
    node.disk.empty();
    node.memory = { name: `m${node.id}.${node.disk.former.length}`, counts: false };
    this.statistics.emptied++;
    this.#start(node);
    // Now and then it gets a part of that again, or is let in. Then the one that led is gone, and another one would like to lead.
    if (this.#prng.below(2) === 0) this.#busy(leader, this.#prng.below(60));
    if (this.#prng.below(3) === 0) this.#letSomeIn();
    this.#cut = this.#between(this.#prng.below(4) > 0 ? [leader] : [...few, node].slice(1));
    if (former?.core?.role === 'leader') {
      this.#cut = this.#between(this.#prng.below(2) === 0 ? [former, node] : others.slice(0, -1));
      this.#busy(former, this.#prng.below(80));
    }
    const candidate = this.#prng.below(4) > 0 ? others[others.length - 1] : node;
    this.#elect(candidate);
    this.#busy(candidate, this.#prng.below(60));
  }

  /** All pairs of which one is in `side` and the other is not. */
  #between(side: readonly Node[]): Set<string> {
    const isIn = (node: Node): boolean => side.includes(node);
    const pairs = this.#nodes.flatMap((a) =>
      this.#nodes.filter((b) => isIn(a) !== isIn(b)).map((b) => `${a.id}>${b.id}`),
    );
    return new Set(pairs);
  }

  /** Nothing else goes wrong for a moment. */
  #busy(leader: Node, steps: number): void {
    for (let n = steps; n > 0; n--) {
      const dice = this.#prng.below(10);
      if (dice < 5) this.#deliver();
      else if (dice < 9) this.#sync(this.#pick(this.#nodes));
      else if (this.#prng.below(3) === 0) this.#step(leader, { type: 'tick' });
      else {
        const term = leader.core?.term ?? 0;
        this.#offer(leader, `p${this.#next++}@${term}`, term);
      }
    }
  }

  /** Those that lead, or think so, let in who asks for it. */
  #letSomeIn(): void {
    for (const { core, memory } of this.#nodes) {
      if (memory.counts || core === null) continue;
      for (const leader of this.#nodes) {
        const term = leader.core?.term ?? 0;
        if (leader.core?.role === 'leader') this.#offer(leader, `let in ${memory.name}:${this.#next++}@${term}`, term);
      }
    }
  }

  /** What it has read lets its own memory in; acted upon when that is durable, which a crash may forestall. */
  #readOwn(node: Node, upTo: LogIndex): void {
    const { memory } = node;
    const index = this.#letIn.get(memory.name);
    if (memory.counts || index === undefined || index > upTo || this.#prng.below(4) === 0) return;
    memory.counts = true;
    this.statistics.letIn++;
    if (this.#prng.below(4) > 0) this.#step(node, { type: 'counts' });
    else {
      this.#crash(node);
      this.#start(node);
    }
  }

  #isolate(some: readonly Node[]): void {
    for (const from of some) {
      for (const to of this.#voters) if (this.#prng.below(3) > 0) this.#cut.add(`${from.id}>${to}`);
    }
  }

  /** After all faults end, a leader must appear and a new proposal must be delivered on every node. */
  #heal(): void {
    this.#cut.clear();
    for (const node of this.#nodes) this.#restart(node);
    let payload: string | null = null;
    for (let round = 0; round < 400; round++) {
      for (const node of this.#nodes) this.#step(node, { type: 'tick' });
      for (const node of this.#nodes) this.#maintain(node);
      this.#letSomeIn();
      this.#quiesce();
      for (const node of this.#nodes) this.#readOwn(node, node.core?.deliveredIndex ?? logIndex(0));
      const leader = this.#nodes.find((node) => node.core?.ready);
      if (leader !== undefined && (payload === null || !this.#checker.isDelivered(payload))) {
        payload = `last${round}@${leader.core!.term}`;
        const answer = this.#offer(leader, payload, leader.core!.term)?.proposal;
        if (answer?.accepted !== true) payload = null;
        this.#quiesce();
      }
      const last = this.#checker.lastCommitted;
      const done = this.#nodes.every((node) => node.core?.deliveredIndex === last);
      const allCount = this.#nodes.every(({ memory }) => memory.counts);
      if (payload !== null && this.#checker.isDelivered(payload) && done && allCount) return;
    }
    throw new SafetyViolation('no progress after all faults ended');
  }

  #quiesce(): void {
    for (let guard = 0; guard < 100_000; guard++) {
      const busy = this.#nodes.find((node) => node.disk.waiting.length > 0);
      if (busy !== undefined) this.#sync(busy);
      else if (this.#network.length > 0) this.#arrive(this.#network.shift()!);
      else return;
    }
    throw new SafetyViolation('the cluster never falls silent');
  }

  #deliver(): void {
    if (this.#network.length === 0) return;
    // Mostly the oldest, as on one TCP connection; sometimes any.
    const position = this.#prng.below(10) < 7 ? 0 : this.#prng.below(this.#network.length);
    const packet = this.#network[position];
    const fate = this.#prng.below(100);
    if (fate >= 4) this.#network.splice(position, 1);
    if (fate < 90 && !this.#cut.has(`${packet.from}>${packet.to}`)) this.#arrive(packet);
    if (this.#network.length > 400) this.#network.splice(0, 200);
  }

  #arrive(packet: Packet): void {
    if (packet.asked !== undefined) {
      const replies = this.referee!.arrive(packet.from, packet.asked, this.statistics.steps);
      for (const message of replies) this.#network.push({ from: REFEREE, to: packet.from, message });
      return;
    }
    const to = this.#nodes[packet.to - 1];
    this.#step(to, { type: 'message', from: packet.from, message: packet.message });
  }

  #sync(node: Node): void {
    if (node.disk.waiting.length === 0) return;
    let last: number | null = null;
    // Group commit: one confirmation may cover several requests.
    for (let i = this.#prng.below(node.disk.waiting.length); i >= 0; i--) last = node.disk.sync() ?? last;
    if (last !== null) this.#step(node, { type: 'persisted', seq: last });
    if (node.core?.role === 'leader') this.#ask(node, lead(node.core.term, node.disk.last, 0));
  }

  /** As the adapter does; what it may not ask gets lost. */
  #ask(node: Node, request: RefereeRequest | null): void {
    if (request === null) return;
    const asked = this.referee?.ask(node.id, request, request.op === 'lead' ? this.#logOf(node, request.index) : []);
    if (asked === undefined || asked === null) return;
    const message = { type: 'stale', term: 0 } as const;
    this.#network.push({ from: node.id, to: REFEREE, message, asked });
  }

  /** The terms of a node's entries up to `index`. */
  #logOf({ core }: Node, index: number): number[] {
    return Array.from({ length: index }, (_, i) => {
      const at = logIndex(i + 1);
      return core?.termAt(at) ?? this.#checker.committedTerm(at);
    });
  }

  #maintain(node: Node): void {
    if (node.core === null) return;
    const { term, lastTerm, lastIndex } = node.core;
    this.referee?.maintain(node.id, { term, lastTerm, lastIndex }, this.#logOf(node, lastIndex));
  }

  #propose(): void {
    if (this.#proposals.length === 0 || this.#prng.below(3) > 0) {
      const expectedTerm = this.#pick(this.#nodes).core?.term ?? 0;
      const size = this.#prng.below(20) === 0 ? 60 : 0;
      this.#proposals.push({ payload: `p${this.#next++}@${expectedTerm}${'.'.repeat(size)}`, expectedTerm });
    }
    const chosen = this.#prng.below(this.#proposals.length);
    const { payload, expectedTerm } = this.#proposals[chosen];
    if (this.#prng.below(2) === 0) this.#proposals.splice(chosen, 1);
    const leaders = this.#nodes.filter((node) => node.core?.role === 'leader');
    const node = leaders.length > 0 && this.#prng.below(5) > 0 ? this.#pick(leaders) : this.#pick(this.#nodes);
    this.#offer(node, payload, expectedTerm);
  }

  #offer(node: Node, payload: string, expectedTerm: number): Effects | null {
    const effects = this.#step(node, { type: 'propose', payload: Buffer.from(payload, 'latin1'), expectedTerm });
    if (effects?.proposal?.accepted === false && effects.proposal.definitive) {
      this.statistics.refused++;
      this.#checker.refused(node.core!, payload);
    }
    return effects;
  }

  #read(any: Node): void {
    const leaders = this.#nodes.filter((one) => one.core?.role === 'leader');
    const node = leaders.length > 0 && this.#prng.below(4) > 0 ? this.#pick(leaders) : any;
    const context = this.#next++;
    node.reads.set(context, this.#checker.lastCommitted);
    this.#step(node, { type: 'readIndex', context });
  }

  #compact(node: Node): void {
    if (node.core === null) return;
    const low = node.core.snapshot?.index ?? 0;
    const span = node.core.deliveredIndex - low;
    if (span < 1) return;
    const index = logIndex(low + 1 + this.#prng.below(span));
    this.#step(node, { type: 'compact', index, state: this.#checker.stateAt(index) });
  }

  #crash(node: Node): void {
    if (node.core === null) return;
    this.statistics.crashes++;
    node.core = null;
    node.reads.clear();
    this.referee?.crash(node.id);
    node.disk.crash(this.#prng);
  }

  #restart(node: Node): void {
    if (node.core === null) this.#start(node);
  }

  #start(node: Node): void {
    node.incarnation++;
    node.core = new RaftCore(
      {
        id: node.id,
        voters: this.#voters,
        electionTicks: 6,
        heartbeatTicks: 2,
        seed: this.#seed + node.incarnation,
        maxBatchBytes: this.#batchBytes,
        maxInflightBatches: 3,
        maxUncommittedBytes: 400,
        maxPendingReads: 4,
        retainEntries: this.#prng.below(3) * 3,
        learner: node.memory.counts ? undefined : node.memory.name,
      },
      node.disk.durable,
    );
  }

  #partition(): void {
    const side = new Set(this.#voters.filter(() => this.#prng.below(2) === 0));
    const oneWay = this.#prng.below(4) === 0;
    this.#cut.clear();
    for (const a of this.#voters) {
      for (const b of this.#voters) {
        if (side.has(a) && !side.has(b)) {
          this.#cut.add(`${a}>${b}`);
          if (!oneWay) this.#cut.add(`${b}>${a}`);
        }
      }
    }
  }

  #step(node: Node, event: RaftEvent): Effects | null {
    const core = node.core;
    if (core === null) return null;
    const before = core.role;
    const effects = core.step(event);
    this.statistics.steps++;
    if (core.role === 'leader' && before !== 'leader') this.statistics.leaders++;
    if (effects.persist !== null) node.disk.waiting.push(effects.persist);
    if (effects.compact !== null) node.disk.waiting.push({ seq: null, compact: effects.compact });
    for (const outgoing of effects.messages) {
      if (outgoing.to === REFEREE) this.#ask(node, requestOf(outgoing.message, node.disk.last));
      else this.#network.push({ ...outgoing, from: node.id });
    }
    if (effects.install !== null) {
      this.statistics.installs++;
      this.#checker.snapshotInstalled(effects.install);
    }
    const durably = (index: LogIndex, term: number): number =>
      this.#nodes.filter((one) => one.disk.had(index, term)).length + Number(this.referee?.has(index, term) ?? false);
    this.#checker.afterStep(core, node.incarnation, effects, durably, Math.floor(this.#voters.length / 2) + 1);
    const delivered = core.deliveredIndex;
    if (delivered > 0 && !node.disk.has(delivered, this.#checker.committedTerm(delivered))) {
      throw new SafetyViolation(`node ${node.id} delivered ${delivered} without having it on its disk`);
    }
    this.#checkReads(node, effects);
    for (const { index, payload } of effects.committed) {
      const name = /^let in ([^:]+):/.exec(Buffer.from(payload).toString('latin1'))?.[1];
      if (name !== undefined && !this.#letIn.has(name)) this.#letIn.set(name, index);
    }
    if (core === node.core && !node.memory.counts) this.#readOwn(node, delivered);
    return effects;
  }

  #checkReads(node: Node, effects: Effects): void {
    for (const read of effects.reads) {
      const least = node.reads.get(read.context);
      node.reads.delete(read.context);
      if (!read.ok || least === undefined) continue;
      this.statistics.reads++;
      if (read.index < least) throw new SafetyViolation(`read of ${read.index} although ${least} was committed before`);
    }
  }

  #shuffled<T>(of: readonly T[]): T[] {
    return of
      .map((one) => ({ one, lot: this.#prng.below(2 ** 30) }))
      .sort((a, b) => a.lot - b.lot)
      .map(({ one }) => one);
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#prng.below(from.length)];
  }
}
