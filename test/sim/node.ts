import { NodeCore } from '../../src/cluster/core/node-core.ts';
import type { NodeEffect, NodeEvent } from '../../src/cluster/core/types.ts';
import type { PeerMessage } from '../../src/cluster/messages.ts';
import type { GuardSnapshot } from '../../src/commit/core/guard.ts';
import type { LogCommand } from '../../src/commit/core/types.ts';
import { formatGid, parseGid } from '../../src/commit/gid.ts';
import type { Message } from '../../src/consensus/core/messages.ts';
import type { Founders, Memory } from '../../src/consensus/core/standing.ts';
import { RaftCore } from '../../src/consensus/core/raft-core.ts';
import { DEFAULT_LIMITS, type Effects, type RaftEvent } from '../../src/consensus/core/types.ts';
import { HybridClock } from '../../src/runtime/hybrid-clock.ts';
import { nodeId, type Gid, type NodeId } from '../../src/runtime/ids.ts';
import { Clients } from './clients.ts';
import { LockClients } from './lock-clients.ts';
import type { Tx } from './locks.ts';
import { Process } from './loop.ts';
import type { Endpoint } from './network.ts';
import { DATABASE, PostgresModel } from './postgres.ts';
import { Replica } from './replica.ts';
import { RaftStorage } from './storage.ts';
import { Violation } from './trace.ts';
import type { World } from './world.ts';

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const encode = (value: unknown): Uint8Array => encoder.encode(JSON.stringify(value));
const decode = (bytes: Uint8Array): unknown => JSON.parse(decoder.decode(bytes));

/** One node: a proxy, which is the cores with the models of what surrounds them, and its PostgreSQL. */
export class SimNode implements Endpoint {
  readonly id: NodeId;
  readonly world: World;
  readonly process: Process;
  readonly postgres: PostgresModel;
  readonly storage: RaftStorage;
  readonly clients: Clients;
  readonly locks: LockClients;
  core!: NodeCore;
  raft!: RaftCore;
  replica!: Replica;
  clock!: HybridClock;
  /** Rises with each start of the proxy. */
  run = 0;
  #sequence = 0;
  readonly #events: NodeEvent[] = [];
  #stepping = false;
  /** How fast this node's clocks run, and how wrong its wall clock is. */
  drift = 1;
  skew = 0;
  diskSlowness = 1;
  /** Durable, like the log. */
  memory: Memory;
  #memories = 0;

  constructor(world: World, id: number) {
    this.id = nodeId(id);
    this.world = world;
    this.memory = this.#newMemory(!world.settings.begins);
    this.process = new Process(`n${id}`);
    this.postgres = new PostgresModel(id, world.loop, world.rng, {
      trace: (what) => world.note(`pg${id}`, what),
      committed: (entry) => {
        world.oracle.committed(id, this.postgres, entry);
        world.note(`pg${id}`, `committed ${entry.index} ${entry.gid}`);
      },
      rolledBack: (gid) => {
        world.oracle.rolledBack(id, gid);
        world.note(`pg${id}`, `rolled back ${gid}`);
      },
      prepared: (tx) => {
        world.note(`pg${id}`, `prepared ${tx.gid!} (${tx.kind})`);
        if (tx.kind === 'client') this.decode(tx.gid!, tx);
      },
    });
    this.storage = new RaftStorage(
      world.loop,
      world.rng,
      this.process,
      () => this.diskSlowness * world.settings.fsync * world.rng.between(0.5, 1.5),
    );
    this.clients = new Clients(this);
    this.locks = new LockClients(this);
  }

  /** For a run that does not get on: what everything here waits for. */
  describe(): string {
    const { core, postgres, raft, clients } = this;
    return JSON.stringify({
      raft: {
        role: raft.role,
        term: raft.term,
        leader: raft.leader,
        voiceless: core.voiceless,
        ready: raft.ready,
        commit: raft.commitIndex,
        last: raft.lastIndex,
      },
      core: {
        state: core.state,
        epoch: core.epoch,
        refusal: core.refusal,
        read: core.guard.index,
        committed: core.committed,
        queue: core.queueLength,
      },
      own: core.coordinator.list().map(({ gid, phase, waitsFor }) => `${gid} ${phase}: ${waitsFor}`),
      foreign: core.participant.list().map(({ gid, state }) => `${gid} ${state}`),
      postgres: {
        progress: postgres.progress.contiguous,
        prepared: [...postgres.prepared.keys()],
        up: this.replica.isUp,
        locks: postgres.locks.describe(),
      },
      clients: clients.busy,
      locks: this.locks.busy,
      held: core.guard.snapshot().locks,
    });
  }

  get now(): number {
    return this.world.loop.now * this.drift;
  }

  get wall(): number {
    return 1_700_000_000_000 + this.now + this.skew;
  }

  // ---- life

  start(): void {
    const { settings, rng, loop } = this.world;
    this.process.start();
    this.run++;
    this.#events.length = 0;
    this.#stepping = false;
    this.#sequence = 0;
    this.clock = new HybridClock(
      () => this.wall,
      () => this.now,
    );
    const restored = this.storage.durable;
    this.raft = new RaftCore(
      {
        ...DEFAULT_LIMITS,
        id: this.id,
        voters: this.world.nodeIds,
        electionTicks: 8,
        heartbeatTicks: 2,
        seed: rng.below(2 ** 31),
        maxUncommittedBytes: settings.maxUncommittedBytes,
        maxInflightBatches: 8,
        retainEntries: settings.retainEntries,
        learner: this.memory.counts ? undefined : this.memory.name,
      },
      restored,
    );
    const { heartbeatTimeout, resendAfter, voteTimeout, decisionTimeout, minimumMembers, recentCommits } = settings;
    const own = {
      self: this.id,
      nodes: this.world.nodeIds,
      voters: this.world.nodeIds,
      heartbeatTimeout,
      resendAfter,
      voteTimeout,
      decisionTimeout,
      minimumMembers,
      recentCommits,
    };
    const snapshot = restored.snapshot === null ? undefined : (decode(restored.snapshot.state) as GuardSnapshot);
    this.core = new NodeCore(own, snapshot, this.raft.lastIndex);
    this.replica = new Replica(this);
    this.storage.onPersisted = (seq) => this.stepRaft({ type: 'persisted', seq });
    this.world.network.reset(this.id);
    this.feed({ type: 'voting', memory: this.memory });
    this.#raftTick(loop.now);
    this.#coreTick();
    this.replica.start();
    this.clients.start();
    this.locks.start();
  }

  #newMemory(counts: boolean): Memory {
    return { name: `n${this.id}.${++this.#memories}`, counts, founders: null };
  }

  /** The log is gone, with what this voter had promised; its server is not. */
  emptyDisk(): void {
    this.crash();
    this.storage.empty();
    this.memory = this.#newMemory(false);
  }

  crash(): void {
    if (!this.process.alive) return;
    this.process.die();
    this.storage.crash();
    this.postgres.orphan(this.run);
    this.clients.lost();
    this.locks.lost();
    this.world.network.reset(this.id);
  }

  #raftTick(due: number): void {
    const { loop, settings } = this.world;
    loop.in(this.process, Math.max(0, due - loop.now), () => {
      this.stepRaft({ type: 'tick' });
      this.#compact();
      this.#raftTick(Math.max(due, loop.now - settings.raftTick) + settings.raftTick / this.drift);
    });
  }

  #coreTick(): void {
    const { loop, settings, rng } = this.world;
    loop.in(this.process, (settings.beatInterval / this.drift) * rng.between(0.9, 1.1), () => {
      const { core } = this;
      const beat = {
        clock: this.clock.next(),
        committed: core.committed,
        epoch: core.epoch,
        votes: core.voiceless === undefined,
        postgres: this.replica.isUp,
        bypassed: false,
      };
      for (const to of this.world.nodeIds) this.send(to, { t: 'beat', ...beat });
      this.feed({ type: 'tick', now: this.now, wall: this.wall });
      this.#coreTick();
    });
  }

  /** Only what PostgreSQL has committed, and can be sure to prove, may be forgotten. */
  #compact(): void {
    const { guard } = this.core;
    const committed = this.replica.noted < guard.lastCommit ? this.replica.noted : this.core.committed;
    const since = guard.index - (this.raft.snapshot?.index ?? 0);
    if (since < this.world.settings.compactEvery || committed < guard.index) return;
    this.world.count('compactions');
    this.stepRaft({ type: 'compact', index: guard.index, state: encode(guard.snapshot()) });
  }

  // ---- Raft

  stepRaft(event: RaftEvent): Effects {
    const { world } = this;
    const effects = this.raft.step(event);
    if (effects.persist !== null) this.storage.write(effects.persist);
    if (effects.compact !== null) this.storage.write({ seq: null, compact: effects.compact });
    for (const { to, message } of effects.messages) this.send(to, { t: 'raft', m: message });
    if (effects.install !== null) {
      const snapshot = decode(effects.install.state) as GuardSnapshot;
      world.oracle.installed(this, snapshot);
      world.note(`n${this.id}`, `snapshot of ${snapshot.index} takes the log's place`);
      world.count('snapshots installed');
      this.feed({ type: 'install', snapshot });
    }
    for (const { index, term, payload } of effects.committed) {
      const text = decoder.decode(payload);
      const command = payload.length === 0 ? undefined : (JSON.parse(text) as LogCommand);
      const isNew = index > world.oracle.log.length;
      if (isNew) world.oracle.durable(index, term);
      world.oracle.delivered(this, index, text, command);
      if (isNew) world.logged(index, command);
      this.feed({ type: 'entry', entry: { index, command } });
    }
    if (effects.leadership !== null) {
      const { leader, term, ready, role } = effects.leadership;
      world.note(`n${this.id}`, `${role} in term ${term}, leader ${leader ?? 'unknown'}${ready ? ', ready' : ''}`);
      if (ready) world.count('leaders');
      this.feed({ type: 'leadership', leader, term, ready });
    }
    for (const read of effects.reads) this.locks.onRead(read);
    return effects;
  }

  // ---- the core

  /** Events that effects bring about at once are taken after the event under way. */
  feed(event: NodeEvent): void {
    this.#events.push(event);
    if (this.#stepping) return;
    this.#stepping = true;
    let next: NodeEvent | undefined;
    while ((next = this.#events.shift()) !== undefined) {
      if (next.type !== 'tick') this.world.noteEvent(this, next);
      let refused = false;
      for (const effect of this.core.step(next)) {
        if (effect.type !== 'append') this.#perform(effect);
        else if (!refused) refused = !this.#append(effect);
      }
    }
    this.#stepping = false;
  }

  #append({ term, index, command }: Extract<NodeEffect, { type: 'append' }>): boolean {
    const logged = 'attempt' in command ? { ...command, attempt: undefined } : command;
    const { proposal } = this.stepRaft({ type: 'propose', payload: encode(logged), expectedTerm: term });
    if (proposal?.accepted !== true) {
      this.world.note(`n${this.id}`, `raft refuses entry ${index}: ${proposal?.reason ?? 'no answer'}`);
      this.world.count('appends refused');
      this.#events.unshift({ type: 'append-refused', index });
      return false;
    }
    if (proposal.index !== index)
      throw new Violation('predicted index', `entry stands at ${proposal.index}, not at ${index}`);
    return true;
  }

  #perform(effect: Exclude<NodeEffect, { type: 'append' }>): void {
    const { world, replica } = this;
    world.noteEffect(this, effect);
    switch (effect.type) {
      case 'send':
        return this.send(effect.to, effect.message);
      case 'commit':
        return replica.commit(effect.entry);
      case 'apply':
        return replica.apply(effect.gid);
      case 'cancel-apply':
        return replica.cancelApply(effect.gid);
      case 'rollback-prepared':
        return replica.rollbackPrepared(effect.gid);
      case 'overrule-backend':
        return this.clients.overrule(effect.pid);
      case 'missing':
        return replica.catchUp(effect.gid, effect.index, effect.database);
      case 'gap':
        return replica.fillGap(effect.from, effect.to);
      case 'recover':
        return replica.recover();
      case 'release':
        return replica.release(effect.gid);
      case 'answer':
        return this.clients.answer(effect.gid, effect.outcome);
      case 'counts':
        return this.#keepVoice(effect.founders);
      case 'lock-answer':
      case 'locks-lost':
      case 'confirm-locks':
        return this.locks.perform(effect);
      case 'members-changed':
      case 'fenced':
        return;
    }
  }

  /** Acted upon when it is durable; a crash may come before, or between the two. */
  #keepVoice(founders: Founders | null): void {
    const { loop, settings, rng } = this.world;
    const delay = this.diskSlowness * settings.fsync * rng.between(0.5, 1.5);
    loop.in(this.process, delay, () => {
      this.memory = { ...this.memory, counts: true, founders };
      this.world.count(founders === null ? 'voters let in' : 'voters founded');
      loop.in(this.process, rng.between(0, 1), () => this.stepRaft({ type: 'counts' }));
    });
  }

  // ---- links

  send(to: NodeId, message: PeerMessage): void {
    this.world.oracle.sent(this, message);
    this.world.network.send(this.id, to, message);
  }

  onMessage(from: number, message: PeerMessage): void {
    if (message.t === 'raft') {
      this.stepRaft({ type: 'message', from: nodeId(from), message: message.m as Message });
      return;
    }
    if (message.t === 'fetch') return;
    if (message.t === 'read-index' || message.t === 'read-index-is') return this.locks.onMessage(from, message);
    if (message.t === 'beat') this.clock.receive(message.clock);
    if (message.t === 'announce') {
      this.clock.receive(parseGid(message.gid)!.clock);
      this.replica.keep(message.gid);
    }
    this.feed({ type: 'message', from: nodeId(from), message });
  }

  onLinkUp(peer: number): void {
    this.feed({ type: 'link-up', peer: nodeId(peer) });
  }

  // ---- names, and the decoder

  allocate(senior?: Gid): Gid {
    this.#sequence++;
    const now = this.clock.next();
    return formatGid({
      cluster: 'sim',
      node: this.id,
      epoch: this.core.epoch,
      sequence: this.#sequence,
      clock: senior === undefined ? now : parseGid(senior)!.clock,
    });
  }

  /** The server's WAL tells of a transaction that was prepared here; again after a crash, as positions may go back. */
  decode(gid: Gid, tx: Tx): void {
    const { loop, rng, settings } = this.world;
    const { slot } = this.postgres;
    if (!slot.handsOver(tx)) {
      this.world.count('never decoded');
      return;
    }
    // A large one comes in pieces, and takes longer than any vote may. Later who waits behind it would not be told from who starves.
    const pieces = this.world.hasFaults && rng.chance(0.02) ? 2 + rng.below(6) : 0;
    if (pieces > 0) this.world.count('decoded in pieces');
    const next = (left: number): void => {
      const latency = pieces === 0 ? rng.wait(settings.decodeLatency) : settings.voteTimeout * rng.between(0.2, 0.8);
      if (pieces > 0) this.world.decodingMuch(latency);
      loop.in(this.postgres.process, latency, () => {
        loop.in(this.process, rng.between(0.05, 0.3), () => {
          if (!this.replica.isUp || !slot.handsOver(tx)) return;
          if (left === 0) return this.feed({ type: 'decoded', gid, database: DATABASE, data: undefined });
          this.feed({ type: 'decoding', database: DATABASE });
          next(left - 1);
        });
      });
    };
    next(pieces);
  }
}
