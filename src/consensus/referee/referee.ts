import { createHmac, randomUUID } from 'node:crypto';
import type { Message } from '../core/messages.ts';
import { nextStep, wentBack, type FoundReferee, type RefereeMemory, type SetupStep } from '../core/referee-setup.ts';
import {
  lead,
  repliesTo,
  requestOf,
  type DurableEntry,
  type LogPosition,
  type RefereeRequest,
} from '../core/referee.ts';
import { ToldPosition } from '../core/told-position.ts';
import type { NodeId } from '../../runtime/ids.ts';
import type { Logger } from '../../runtime/log.ts';
import { nameOf, RefereeConnection, RefereeRefused, type RefereeServer } from './connection.ts';
import { MemoryFile, NOTHING_REMEMBERED } from './memory-file.ts';

/**
 * - `connecting`: there is no connection, or none yet.
 * - `refused`: this Redis must not be a referee.
 * - `waiting`: its memory is new, and counts when both nodes have turned to it.
 * - `active`: it votes.
 */
export type RefereeState = 'connecting' | 'refused' | 'waiting' | 'active';

export interface RefereeStatus {
  readonly server: string;
  readonly state: RefereeState;
  readonly problem: string | null;
}

export interface RefereeOptions {
  readonly self: NodeId;
  readonly other: NodeId;
  readonly cluster: { readonly name: string; readonly secret: string };
  readonly server: RefereeServer;
  /** Where this node keeps what it remembers. */
  readonly directory: string;
  /** Milliseconds, as Raft's. */
  readonly electionTimeout: number;
  /** Where this node's log ends now. */
  readonly position: () => LogPosition;
  /** Gives Raft a message of the referee. */
  readonly receive: (message: Message) => void;
  /** Seconds that the referee took to answer. */
  readonly answered: (seconds: number) => void;
  readonly log: Logger;
}

interface Active {
  readonly connection: RefereeConnection;
  readonly id: string;
}

/** Milliseconds between two looks at the memory, and at the settings of the server. */
const ROUND = 1000;
const EXAMINE_EVERY = 10;
const RECONNECT_DELAY = 500;
/** Setting up takes three steps at most. */
const MAX_STEPS = 5;
/** Of an election timeout: how long a leader keeps candidates away, and how long the other node may be silent or behind before the referee is needed. */
const LEASE = 0.9;
const PEER_SILENCE = 0.6;

/**
 * This node's side of the referee: hands Raft's messages for that voter to Redis, and Redis's answers to Raft. Nothing ever waits
 * for it but Raft itself, for which silence is a lost message. The rules are those of `core/referee.ts` and `core/referee-setup.ts`.
 */
export class Referee {
  readonly #options: RefereeOptions;
  readonly #file: MemoryFile;
  readonly #key: string;
  readonly #owner: string;
  #seen: RefereeMemory;
  #active: Active | undefined;
  #status: RefereeStatus;
  readonly #told: ToldPosition;
  /** The newest term that this node leads or led, and its highest round. */
  #leading: { readonly term: number; readonly round: number } | undefined;
  /** Something is to be said to the referee; and an answer is being waited for. One at a time: what comes meanwhile goes together. */
  #due = false;
  #busy = false;
  #stopped = false;
  #running: Promise<void> | undefined;
  #wake: () => void = () => undefined;

  constructor(options: RefereeOptions) {
    const { cluster, self, other, server, directory } = options;
    this.#options = options;
    this.#file = new MemoryFile(directory);
    this.#seen = this.#file.current;
    this.#told = new ToldPosition(PEER_SILENCE * options.electionTimeout);
    this.#key = `pgmm:${cluster.name}:referee`;
    const nodes = [self, other].sort((a, b) => a - b).join();
    // So that another cluster of the same name is told from this one.
    this.#owner = createHmac('sha256', cluster.secret)
      .update(`referee ${cluster.name} ${nodes}`)
      .digest('hex')
      .slice(0, 32);
    this.#status = { server: nameOf(server.url), state: 'connecting', problem: null };
  }

  get status(): RefereeStatus {
    return this.#status;
  }

  /** To be called once this node votes: what it tells the referee of its log must be true. */
  start(): void {
    this.#running ??= this.#run();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#wake();
    await this.#running;
  }

  // ---- between Raft and Redis

  /** A message of this node's Raft core to the referee. */
  send(message: Message): void {
    const now = performance.now();
    const request = requestOf(message, this.#told.at(now));
    if (request === null) return;
    if (request.op !== 'lead') {
      void this.#ask(request);
      return;
    }
    const { term, round } = request;
    this.#leading = { term, round: this.#leading?.term === term ? Math.max(this.#leading.round, round) : round };
    // While the other node answers, it and this one are a majority: once per heartbeat is enough to keep the referee up to date.
    if (message.type === 'heartbeat' || !this.#told.peerKeepsUp(now)) this.#tell();
  }

  /** This node's disk has entries up to this one. */
  stored(entry: DurableEntry): void {
    const now = performance.now();
    this.#told.stored(entry, now);
    if (this.#leading?.term === entry.term && !this.#told.peerKeepsUp(now)) this.#tell();
  }

  /** What the other node says to this one. */
  heardPeer(message: Message): void {
    if (message.type === 'appendAccepted') this.#told.accepted(message.term, message.match, performance.now());
    else if (message.type === 'heartbeatReply') this.#told.heard(performance.now());
  }

  #tell(): void {
    this.#due = true;
    if (!this.#busy) void this.#tellAll();
  }

  async #tellAll(): Promise<void> {
    this.#busy = true;
    while (this.#due && this.#active !== undefined && this.#leading !== undefined) {
      this.#due = false;
      await this.#ask(lead(this.#leading.term, this.#told.at(performance.now()), this.#leading.round));
    }
    this.#busy = false;
  }

  /** Never rejects: a failure ends the connection, which `#run` notices. */
  async #ask(request: RefereeRequest): Promise<void> {
    const active = this.#active;
    if (active === undefined) return;
    const { connection, id } = active;
    const { self, electionTimeout, answered, receive } = this.#options;
    const begun = performance.now();
    try {
      const command = { op: 'raft', id, node: self, request, lease: Math.round(LEASE * electionTimeout) } as const;
      const { verdict, found } = await connection.run(this.#key, this.#owner, command);
      // An answer of a memory that this node has turned away from.
      if (this.#active !== active) return;
      if (verdict === 'foreign' || verdict === 'moved' || !this.#see(found)) {
        this.#active = undefined;
        this.#wake();
        return;
      }
      answered((performance.now() - begun) / 1000);
      for (const reply of repliesTo(request, { verdict, term: found.term })) receive(reply);
    } catch (error) {
      connection.close((error as Error).message);
    }
  }

  /** False if the memory is older than what was seen of it before. */
  #see(found: FoundReferee): boolean {
    if (found.id !== this.#seen.id) return true;
    if (wentBack(this.#seen, found)) return false;
    this.#seen = found;
    return true;
  }

  // ---- the connection, and which memory counts

  async #run(): Promise<void> {
    while (!this.#stopped) {
      let connection: RefereeConnection | undefined;
      try {
        connection = await RefereeConnection.open(this.#options.server, () => this.#wake());
        await this.#attend(connection);
      } catch (error) {
        const refused = error instanceof RefereeRefused;
        const { message } = error as Error;
        this.#report(refused ? 'refused' : 'connecting', refused ? `${message}. ${error.cure}` : message);
      } finally {
        this.#active = undefined;
        connection?.close('stopped');
      }
      await this.#rest(RECONNECT_DELAY);
    }
  }

  /** Until the connection ends, which throws, or the referee is stopped. */
  async #attend(connection: RefereeConnection): Promise<void> {
    for (let round = 1; !this.#stopped; round++) {
      if (round % EXAMINE_EVERY === 0) await connection.examine(true);
      await this.#settle(connection);
      await this.#noteDown();
      if (connection.endedBecause === undefined) await this.#rest(ROUND);
      if (connection.endedBecause !== undefined) throw new Error(connection.endedBecause);
    }
  }

  async #settle(connection: RefereeConnection): Promise<void> {
    for (let n = 0; n < MAX_STEPS; n++) {
      const { verdict, found } = await connection.run(this.#key, this.#owner, { op: 'look' });
      if (verdict === 'foreign') throw new RefereeRefused(this.#foreign());
      const step = nextStep(this.#isKeeper, this.#seen, found);
      // From here on no answer of the former memory is believed, so what is told of the log below is all that came of it.
      if (step !== 'ready') this.#active = undefined;
      if (step === 'ready') {
        this.#see(found);
        this.#activate(connection, found.id!);
        return;
      }
      if (step === 'wait') {
        this.#report('waiting', `it is new, and counts when node ${this.#options.other} has turned to it as well`);
        return;
      }
      await this.#take(step, connection, found);
    }
  }

  async #take(
    step: Exclude<SetupStep, 'wait' | 'ready'>,
    connection: RefereeConnection,
    found: FoundReferee,
  ): Promise<void> {
    const { log, position } = this.#options;
    const isNew = this.#seen.id === null;
    switch (step) {
      case 'create': {
        if (!isNew)
          log.error(
            this.#status,
            'the referee has lost its memory: it votes again when both nodes have set it up anew',
          );
        const id = randomUUID();
        await this.#remember({ ...NOTHING_REMEMBERED, id });
        await connection.run(this.#key, this.#owner, { op: 'create', id, replaces: found.id, position: position() });
        return;
      }
      case 'join': {
        const id = found.id!;
        if (!isNew && this.#seen.id !== id) log.error(this.#status, 'the referee has another memory than before');
        await this.#remember(NOTHING_REMEMBERED);
        const { verdict } = await connection.run(this.#key, this.#owner, { op: 'join', id, position: position() });
        if (verdict === 'yes') await this.#remember({ ...NOTHING_REMEMBERED, id });
        return;
      }
      case 'discard':
        log.error(this.#status, 'the referee went back in time: an old copy of its data was restored');
        await connection.run(this.#key, this.#owner, { op: 'discard', id: found.id! });
        return;
      case 'seal':
        await connection.run(this.#key, this.#owner, { op: 'seal', id: found.id! });
        return;
    }
  }

  get #isKeeper(): boolean {
    return this.#options.self < this.#options.other;
  }

  async #remember(memory: RefereeMemory): Promise<void> {
    this.#seen = memory;
    await this.#file.save(memory);
  }

  /** An old copy that is put in place of the store can then be told by a later run, too. */
  async #noteDown(): Promise<void> {
    const { current } = this.#file;
    const { term, lastTerm, lastIndex } = this.#seen;
    if (term === current.term && lastTerm === current.lastTerm && lastIndex === current.lastIndex) return;
    await this.#file.save(this.#seen);
  }

  #activate(connection: RefereeConnection, id: string): void {
    if (this.#active?.connection === connection && this.#active.id === id) return;
    this.#active = { connection, id };
    this.#report('active', null);
  }

  #foreign(): { reason: string; cure: string } {
    return {
      reason: `its key ${this.#key} belongs to another cluster of that name, or one with other nodes or another secret`,
      cure: 'Use another database or another Redis; or, if that cluster is gone, delete the key.',
    };
  }

  #report(state: RefereeState, problem: string | null): void {
    const { state: before, problem: known, server } = this.#status;
    this.#status = { server, state, problem };
    if (before === state && known === problem) return;
    const { log } = this.#options;
    if (state === 'active') log.info({ server }, 'the referee votes');
    else log.warn({ server, state }, `the referee does not vote: ${problem ?? 'no connection'}`);
  }

  /** Waits, but not longer than until something has happened. */
  async #rest(milliseconds: number): Promise<void> {
    if (this.#stopped) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, milliseconds);
      this.#wake = () => {
        clearTimeout(timer);
        resolve();
      };
    });
    this.#wake = () => undefined;
  }
}
