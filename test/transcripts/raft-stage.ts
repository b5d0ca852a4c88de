/**
 * Plays transcripts of Raft. Nodes are numbers; entries read index/term "payload".
 *
 *     add-nodes 3 [retain=2] [inflight=1] [batch=1]   start nodes 1 to 3
 *     campaign 1 · tick 1 [count] · propose 1 x [term=2] · read 1 · compact 1 4 · transfer 1 2
 *     sync 1           the disk finishes all it was asked
 *     deliver          what is on the network now arrives; nothing is synced
 *     elect 1          campaign and stabilize, without the details; `elect-only 1` stops when it leads
 *     stabilize        sync and deliver until nothing is left to do
 *     drop 1->2        messages on this way vanish, until `heal`; also `drop 1` for all to and from a node
 *     crash 1 [synced=1] · restart 1        unfinished requests to the disk are lost, but for the first ones
 *     status · log 1
 */
import type { Message } from '../../src/consensus/core/messages.ts';
import { RaftCore } from '../../src/consensus/core/raft-core.ts';
import {
  DEFAULT_LIMITS,
  EMPTY,
  type Effects,
  type Entry,
  type PersistBatch,
  type RaftEvent,
  type Snapshot,
} from '../../src/consensus/core/types.ts';
import { logIndex, nodeId, type NodeId } from '../../src/runtime/ids.ts';

type Request = PersistBatch | { readonly seq: null; readonly compact: Snapshot };

interface Actor {
  readonly id: NodeId;
  core: RaftCore | null;
  disk: typeof EMPTY;
  waiting: Request[];
}

interface Packet {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly message: Message;
}

const text = (bytes: Uint8Array): string => Buffer.from(bytes).toString();
const position = (index: number, term: number): string => `${index}/${term}`;

function showEntry({ index, term, payload }: Entry): string {
  return payload.length === 0 ? position(index, term) : `${position(index, term)} "${text(payload)}"`;
}

function showMessage(message: Message): string {
  const { type, term } = message;
  const what = showBody(message);
  return `${type} term ${term}${what === '' ? '' : `: ${what}`}`;
}

function showBody(message: Message): string {
  switch (message.type) {
    case 'preVote':
      return `log ends at ${position(message.lastIndex, message.lastTerm)}`;
    case 'vote': {
      const end = position(message.lastIndex, message.lastTerm);
      return `log ends at ${end}${message.transfer ? ', handed over' : ''}`;
    }
    case 'preVoteReply':
      return `${message.granted ? 'yes' : 'no'} for term ${message.forTerm}`;
    case 'voteReply':
      return message.granted ? 'yes' : 'no';
    case 'append': {
      const entries = message.entries.map(showEntry).join(', ');
      return `after ${position(message.prevIndex, message.prevTerm)} [${entries}] commit ${message.commit}`;
    }
    case 'commit':
      return `${message.commit} if log has ${position(message.prevIndex, message.prevTerm)}`;
    case 'appendAccepted':
      return `has ${message.match}`;
    case 'appendRejected':
      return `lacks ${message.prevIndex}, try ${position(message.hintIndex, message.hintTerm)}`;
    case 'heartbeat':
      return `commit ${message.commit} round ${message.round}`;
    case 'heartbeatReply':
      return `round ${message.round}`;
    case 'snapshot':
      return `${position(message.snapshot.index, message.snapshot.term)} "${text(message.snapshot.state)}"`;
    case 'learner':
      return `${message.memory} ${showMessage(message.reply)}`;
    case 'timeoutNow':
    case 'stale':
      return '';
  }
}

function showRequest(request: Request): string {
  if (request.seq === null) return `snapshot ${position(request.compact.index, request.compact.term)} of its own`;
  const { hardState, truncateFrom, snapshot, entries } = request;
  const parts: string[] = [];
  if (hardState !== null) parts.push(`term ${hardState.term} vote ${hardState.votedFor ?? 'none'}`);
  if (truncateFrom !== null) parts.push(`forget from ${truncateFrom}`);
  if (snapshot !== null) parts.push(`snapshot ${position(snapshot.index, snapshot.term)}`);
  if (entries.length > 0) parts.push(entries.map(showEntry).join(', '));
  return parts.join('; ');
}

export class RaftStage {
  #actors: Actor[] = [];
  #network: Packet[] = [];
  #dropped = new Set<string>();
  #retain = 0;
  #inflight = 8;
  #batch = 1000;
  #lines: string[] = [];
  #reads = 0;

  /** Returns what happens, line by line. */
  perform(command: string): string[] {
    this.#lines = [];
    const words = command.split(' ').filter((word) => word !== '');
    const options = new Map(
      words.filter((word) => word.includes('=')).map((word) => word.split('=') as [string, string]),
    );
    const [verb = '', ...rest] = words.filter((word) => !word.includes('='));
    this.#perform(verb, rest, (name) => (options.has(name) ? Number(options.get(name)) : undefined));
    return this.#lines;
  }

  #perform(verb: string, rest: readonly string[], option: (name: string) => number | undefined): void {
    const [first = '', second = ''] = rest;
    switch (verb) {
      case 'add-nodes':
        this.#retain = option('retain') ?? 0;
        this.#inflight = option('inflight') ?? 8;
        this.#batch = option('batch') ?? 1000;
        this.#addNodes(Number(first));
        return;
      case 'campaign':
        this.#step(this.#actor(first), { type: 'campaign' });
        return;
      case 'tick':
        for (let n = Number(second === '' ? 1 : second); n > 0; n--) this.#step(this.#actor(first), { type: 'tick' });
        return;
      case 'propose':
        this.#propose(this.#actor(first), second, option('term'));
        return;
      case 'read':
        this.#step(this.#actor(first), { type: 'readIndex', context: ++this.#reads });
        return;
      case 'compact': {
        const index = logIndex(Number(second));
        this.#step(this.#actor(first), { type: 'compact', index, state: Buffer.from(`state at ${second}`) });
        return;
      }
      case 'transfer':
        this.#step(this.#actor(first), { type: 'transferLeadership', to: nodeId(Number(second)) });
        return;
      default:
        this.#performAround(verb, first, option);
    }
  }

  #performAround(verb: string, first: string, option: (name: string) => number | undefined): void {
    switch (verb) {
      case 'sync':
        this.#sync(this.#actor(first));
        return;
      case 'deliver':
        this.#deliver();
        return;
      case 'stabilize':
        this.#stabilize();
        return;
      case 'elect':
      case 'elect-only':
        this.#elect(this.#actor(first), verb === 'elect-only');
        return;
      case 'drop':
        this.#drop(first);
        return;
      case 'heal':
        this.#dropped.clear();
        return;
      case 'crash':
        this.#crash(this.#actor(first), option('synced') ?? 0);
        return;
      case 'restart':
        this.#start(this.#actor(first));
        return;
      case 'status':
        for (const actor of this.#actors) this.#status(actor);
        return;
      case 'log':
        this.#log(this.#actor(first));
        return;
      default:
        throw new Error(`unknown command: ${verb}`);
    }
  }

  #addNodes(count: number): void {
    for (let n = 1; n <= count; n++) this.#actors.push({ id: nodeId(n), core: null, disk: EMPTY, waiting: [] });
    for (const actor of this.#actors) this.#start(actor);
  }

  #start(actor: Actor): void {
    actor.core = new RaftCore(
      {
        ...DEFAULT_LIMITS,
        id: actor.id,
        voters: this.#actors.map((one) => one.id),
        electionTicks: 10,
        heartbeatTicks: 3,
        seed: 1,
        maxInflightBatches: this.#inflight,
        maxBatchBytes: this.#batch,
        retainEntries: this.#retain,
      },
      actor.disk,
    );
  }

  #actor(name: string): Actor {
    const actor = this.#actors[Number(name) - 1] as Actor | undefined;
    if (actor === undefined) throw new Error(`there is no node ${name}`);
    return actor;
  }

  #propose(actor: Actor, payload: string, term: number | undefined): void {
    const expectedTerm = term ?? actor.core?.term ?? 0;
    this.#step(actor, { type: 'propose', payload: Buffer.from(payload), expectedTerm });
  }

  #step(actor: Actor, event: RaftEvent): void {
    if (actor.core === null) return;
    this.#carryOut(actor, actor.core.step(event));
  }

  #carryOut(actor: Actor, effects: Effects): void {
    const say = (what: string): void => void this.#lines.push(`  ${actor.id} ${what}`);
    const { proposal, leadership } = effects;
    if (proposal?.accepted === true) say(`accepts as ${position(proposal.index, proposal.term)}`);
    if (proposal?.accepted === false) say(`refuses: ${proposal.reason}${proposal.definitive ? ', for good' : ''}`);
    for (const request of [effects.persist, effects.compact && { seq: null, compact: effects.compact }]) {
      if (request === null) continue;
      say(`asks the disk: ${showRequest(request)}`);
      actor.waiting.push(request);
    }
    for (const { to, message } of effects.messages) {
      const lost = this.#dropped.has(`${actor.id}->${to}`);
      say(`-> ${to} ${showMessage(message)}${lost ? ' (lost)' : ''}`);
      if (!lost) this.#network.push({ from: actor.id, to, message });
    }
    if (effects.install !== null) say(`installs ${position(effects.install.index, effects.install.term)}`);
    if (effects.committed.length > 0) say(`applies ${effects.committed.map(showEntry).join(', ')}`);
    if (leadership !== null) {
      const { role, term, leader, ready } = leadership;
      say(
        `is ${role} in term ${term}${role === 'follower' ? ` of ${leader ?? 'nobody'}` : ''}${ready ? ', ready' : ''}`,
      );
    }
    for (const read of effects.reads) {
      say(`answers read ${read.context}: ${read.ok ? `wait for ${read.index}` : read.reason}`);
    }
  }

  #sync(actor: Actor): void {
    const requests = actor.waiting.splice(0);
    for (const request of requests) this.#keep(actor, request);
    const last = requests.findLast((request) => request.seq !== null);
    if (requests.length > 0) this.#lines.push(`${actor.id} disk is done`);
    if (typeof last?.seq === 'number') this.#step(actor, { type: 'persisted', seq: last.seq });
  }

  #keep(actor: Actor, request: Request): void {
    const { disk } = actor;
    if (request.seq === null) {
      const snapshot = request.compact;
      actor.disk = { ...disk, snapshot, entries: disk.entries.filter((one) => one.index > snapshot.index) };
      return;
    }
    const { hardState, truncateFrom, snapshot, entries } = request;
    const kept = snapshot === null ? disk.entries.filter((one) => one.index < (truncateFrom ?? Infinity)) : [];
    actor.disk = {
      hardState: hardState ?? disk.hardState,
      snapshot: snapshot ?? disk.snapshot,
      entries: [...kept, ...entries],
    };
  }

  #deliver(): void {
    for (const { from, to, message } of this.#network.splice(0)) {
      if (this.#dropped.has(`${from}->${to}`)) continue;
      this.#lines.push(`${from} -> ${to} ${showMessage(message)}`);
      this.#step(this.#actor(String(to)), { type: 'message', from, message });
    }
  }

  #stabilize(): void {
    for (let round = 0; round < 100; round++) {
      if (this.#network.length === 0 && this.#actors.every((actor) => actor.waiting.length === 0)) return;
      for (const actor of this.#actors) this.#sync(actor);
      this.#deliver();
    }
    throw new Error('the nodes never fall silent');
  }

  #elect(actor: Actor, only: boolean): void {
    this.#step(actor, { type: 'campaign' });
    for (let round = 0; only && round < 10 && actor.core?.role !== 'leader'; round++) {
      for (const one of this.#actors) this.#sync(one);
      this.#deliver();
    }
    if (!only) this.#stabilize();
    this.#lines = [`  ${actor.id} is ${actor.core?.role ?? 'down'} in term ${actor.core?.term ?? 0}`];
  }

  #drop(way: string): void {
    if (way.includes('->')) {
      this.#dropped.add(way);
      return;
    }
    for (const { id } of this.#actors) {
      this.#dropped.add(`${way}->${id}`);
      this.#dropped.add(`${id}->${way}`);
    }
  }

  #crash(actor: Actor, synced: number): void {
    for (const request of actor.waiting.splice(0).slice(0, synced)) this.#keep(actor, request);
    actor.core = null;
  }

  #status({ id, core }: Actor): void {
    if (core === null) {
      this.#lines.push(`  ${id} is down`);
      return;
    }
    const { role, term, commitIndex, durableIndex } = core;
    const end = position(core.lastIndex, core.lastTerm);
    this.#lines.push(
      `  ${id} ${role} in term ${term}, log ends at ${end}, durable ${durableIndex}, commit ${commitIndex}`,
    );
    if (role !== 'leader') return;
    for (const peer of this.#actors) {
      const progress = core.progress(peer.id);
      if (progress === null) continue;
      const { state, match, next, inflight } = progress;
      this.#lines.push(`    of ${peer.id}: ${state}, match ${match}, next ${next}, ${inflight} under way`);
    }
  }

  #log({ id, core }: Actor): void {
    if (core === null) return;
    const { snapshot } = core;
    if (snapshot !== null) this.#lines.push(`  ${id} snapshot ${position(snapshot.index, snapshot.term)}`);
    if (core.lastIndex < core.firstIndex) return;
    this.#lines.push(`  ${id} ${core.entries(core.firstIndex, core.lastIndex).map(showEntry).join(', ')}`);
  }
}
