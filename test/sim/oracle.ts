import type { PeerMessage } from '../../src/cluster/messages.ts';
import { COMMIT_WINDOW } from '../../src/commit/core/commit-progress.ts';
import type { CoordinatorOutcome } from '../../src/commit/core/coordinator.ts';
import type { GuardSnapshot } from '../../src/commit/core/guard.ts';
import type { LogCommand } from '../../src/commit/core/types.ts';
import type { Gid, LogIndex } from '../../src/runtime/ids.ts';
import type { Write } from './locks.ts';
import type { HistoryEntry, PostgresModel } from './postgres.ts';
import type { SimNode } from './node.ts';
import { Violation } from './trace.ts';

interface Logged {
  readonly payload: string;
  readonly command: LogCommand | undefined;
  /** After this entry: its last COMMIT, and the members with their epochs. */
  readonly lastCommit: number;
  readonly members: ReadonlyMap<number, number>;
}

/**
 * Knows what no node knows: the log as it was first delivered anywhere, what clients were told, and every server's data.
 * Keeps its own account of membership, so that a fault in the cores can't mislead it. Each rule is a method here.
 */
export class Oracle {
  readonly #nodes: () => readonly SimNode[];
  readonly log: Logged[] = [];
  readonly commits = new Map<Gid, number>();
  readonly #commitIndexes: LogIndex[] = [];
  readonly #payloads = new Map<Gid, readonly Write[]>();
  readonly #dependsOn = new Map<Gid, LogIndex>();
  /** Of two nodes, within a millisecond: which one wins. */
  readonly #lots = new Map<string, number>();
  readonly #announced = new Set<Gid>();
  readonly #told = new Map<Gid, CoordinatorOutcome['type']>();
  readonly #versions = new Map<string, Gid[]>();
  /** How many of the log's commits each server has, up to the first that it lacks. */
  readonly #complete = new Map<PostgresModel, number>();
  readonly #judged = new Map<PostgresModel, HistoryEntry>();

  constructor(nodes: () => readonly SimNode[]) {
    this.#nodes = nodes;
  }

  // ---- what happened

  payload(gid: Gid): readonly Write[] {
    return this.#payloads.get(gid) ?? [];
  }

  begun(gid: Gid, writes: readonly Write[]): void {
    if (this.#payloads.has(gid)) throw new Violation('names never repeat', `${gid} was given out twice`);
    this.#payloads.set(gid, writes);
  }

  dependsOn(gid: Gid): LogIndex {
    return this.#dependsOn.get(gid) ?? (0 as LogIndex);
  }

  get members(): ReadonlyMap<number, number> {
    return this.log.at(-1)?.members ?? new Map();
  }

  /** The first COMMIT entry that a server lacks. */
  #firstMissing(postgres: PostgresModel): number | undefined {
    let at = this.#complete.get(postgres) ?? 0;
    // It can have been cloned from one that has less.
    while (at > 0 && !postgres.has(this.#commitIndexes[at - 1])) at--;
    while (at < this.#commitIndexes.length && postgres.has(this.#commitIndexes[at])) at++;
    this.#complete.set(postgres, at);
    return this.#commitIndexes[at];
  }

  /** Whether a server has committed all that the log commits up to an index. */
  hasAll(postgres: PostgresModel, index: number): boolean {
    const missing = this.#firstMissing(postgres);
    return missing === undefined || missing > index;
  }

  lastCommitUpTo(index: number): number {
    return this.log[Math.min(index, this.log.length) - 1]?.lastCommit ?? 0;
  }

  get commitCount(): number {
    return this.#commitIndexes.length;
  }

  get toldCount(): number {
    return this.#told.size;
  }

  /** An entry reached a node's state machine. */
  delivered(node: SimNode, index: number, payload: string, command: LogCommand | undefined): void {
    const known = index <= this.log.length ? this.log[index - 1] : undefined;
    if (known !== undefined) {
      if (known.payload !== payload)
        throw new Violation(
          'one log',
          `node ${node.id} has another entry at ${index}: ${payload}, not ${known.payload}`,
        );
      return;
    }
    if (index !== this.log.length + 1)
      throw new Violation('one log', `entry ${index} was delivered before ${this.log.length + 1}`);
    const members = new Map(this.members);
    let lastCommit = this.log.at(-1)?.lastCommit ?? 0;
    if (command?.type === 'commit') {
      this.#newCommit(index, command, members);
      lastCommit = index;
    } else if (command?.type === 'admit') {
      members.set(command.node, index);
    } else if (command?.type === 'exclude') {
      if (members.get(command.node) !== command.epoch)
        throw new Violation('membership', `EXCLUDE of a closed epoch at ${index}`);
      this.#wasAsked(index, command.reason);
      members.delete(command.node);
    }
    this.log.push({ payload, command, lastCommit, members });
  }

  /** Nobody is excluded for want of a vote on what nobody has heard of. */
  #wasAsked(index: number, reason: string): void {
    const gid = /^no vote for (\S+) /.exec(reason)?.[1];
    if (gid !== undefined && !this.#announced.has(gid as Gid))
      throw new Violation('blame', `EXCLUDE at ${index} for a vote on ${gid}, which was never announced`);
  }

  #newCommit(
    index: number,
    command: Extract<LogCommand, { type: 'commit' }>,
    members: ReadonlyMap<number, number>,
  ): void {
    const { gid } = command;
    if (this.commits.has(gid))
      throw new Violation('one COMMIT', `COMMIT(${gid}) stands at ${this.commits.get(gid)} and at ${index}`);
    this.#noCommitAfterEpoch(index, gid, members);
    this.#everyMemberPrepared(index, gid, members);
    if (this.#told.get(gid) === 'aborted')
      throw new Violation('I6', `the client was told that ${gid} was aborted, and the log commits it at ${index}`);
    this.commits.set(gid, index);
    this.#dependsOn.set(gid, command.dependsOn);
    this.#commitIndexes.push(index as LogIndex);
  }

  // ---- the rules

  /** What a node takes as decided is on the disks of a majority, or was before one of them was emptied. */
  durable(index: number, term: number): void {
    const holders = this.#nodes().filter(({ storage }) => storage.had(index, term)).length;
    if (holders * 2 > this.#nodes().length) return;
    throw new Violation('durable decision', `entry ${index} of term ${term} is decided, and on ${holders} disks only`);
  }

  /** I5: after EXCLUDE(n, e), or a new ADMIT(n), no COMMIT of (n, e) enters the log. */
  #noCommitAfterEpoch(index: number, gid: Gid, members: ReadonlyMap<number, number>): void {
    const [, , node, epoch] = gid.split(':');
    if (members.get(Number(node)) !== parseInt(epoch, 36))
      throw new Violation('I5', `COMMIT(${gid}) at ${index} after the end of its epoch`);
  }

  /** I2: if the log has COMMIT(gid), every member at that index has it prepared. */
  #everyMemberPrepared(index: number, gid: Gid, members: ReadonlyMap<number, number>): void {
    for (const id of members.keys()) {
      const node = this.#nodes()[id - 1];
      if (!node.postgres.prepared.has(gid))
        throw new Violation('I2', `the log commits ${gid} at ${index}, and member ${id} has not prepared it`);
    }
  }

  /** I1 and I3: COMMIT PREPARED runs for what the log commits, in its order, with nothing left out. */
  committed(node: number, postgres: PostgresModel, entry: HistoryEntry): void {
    const { gid, index } = entry;
    const logged = this.commits.get(gid);
    if (logged === undefined) throw new Violation('I1', `node ${node} commits ${gid}, which the log does not`);
    if (logged !== index) throw new Violation('I3', `node ${node} commits ${gid} as ${index}, it stands at ${logged}`);
    this.#inOrder(node, postgres, entry);
    this.#sameChanges(node, entry);
    this.#noLostUpdate(node, postgres, entry);
    this.#sameVersions(node, postgres, entry);
    this.#moneyIsKept(node, postgres, entry);
  }

  /** In log order where there is one committer; else in that of each lane, and none far ahead. */
  #inOrder(node: number, postgres: PostgresModel, { index, lanes }: HistoryEntry): void {
    const missing = this.#firstMissing(postgres) ?? Infinity;
    const skipped = this.#commitIndexes.filter((one) => one >= missing && one < index && !postgres.has(one));
    const isInOrder = skipped.every((one) => one % lanes !== index % lanes) && index - missing < COMMIT_WINDOW;
    if (postgres.has(index) || !isInOrder)
      throw new Violation('I3', `node ${node} commits ${index} with ${lanes} lanes where ${missing} is next`);
  }

  #sameChanges(node: number, { gid, writes }: HistoryEntry): void {
    const same = JSON.stringify(writes.map(({ key, value, op }) => [key, value, op]));
    const origin = JSON.stringify(this.payload(gid).map(({ key, value, op }) => [key, value, op]));
    if (same !== origin)
      throw new Violation('equal data', `node ${node} commits other changes for ${gid}: ${same}, not ${origin}`);
  }

  /** What a transaction overwrites is the version that its origin computed the new one from. */
  #noLostUpdate(node: number, postgres: PostgresModel, { gid }: HistoryEntry): void {
    for (const { key, base } of this.payload(gid)) {
      const writer = postgres.rows.get(key)?.writer ?? null;
      if (writer !== base)
        throw new Violation(
          'lost update',
          `node ${node}: ${gid} changes ${key} of ${base}, but the version there is of ${writer}`,
        );
    }
  }

  #sameVersions(node: number, postgres: PostgresModel, { gid, writes }: HistoryEntry): void {
    for (const { key } of writes) {
      const versions = this.#versions.get(key) ?? [];
      this.#versions.set(key, versions);
      const position = versions.indexOf(gid);
      if (position === -1) versions.push(gid);
      const before = position === -1 ? versions.length - 2 : position - 1;
      const writer = postgres.rows.get(key)?.writer;
      if (writer !== undefined && writer !== versions[before]) {
        throw new Violation(
          'version order',
          `node ${node}: ${key} goes from ${writer} to ${gid}, elsewhere from ${versions[before]}`,
        );
      }
    }
  }

  #moneyIsKept(node: number, postgres: PostgresModel, { gid, writes }: HistoryEntry): void {
    let change = 0;
    for (const { key, value } of writes) {
      if (key.startsWith('a')) change += Number(value) - Number(postgres.rows.get(key)?.value ?? 0);
    }
    if (change !== 0) throw new Violation('bank', `node ${node}: ${gid} changes the sum of all accounts by ${change}`);
  }

  /**
   * What the log commits is never rolled back, on any node. (A second copy may be, prepared after the commit because an
   * announcement came late.)
   */
  rolledBack(node: number, gid: Gid): void {
    const done = this.#nodes()[node - 1].postgres.history.some((entry) => entry.gid === gid);
    if (this.commits.has(gid) && !done)
      throw new Violation('I1', `node ${node} rolls back ${gid}, which the log commits at ${this.commits.get(gid)}`);
  }

  /** I4: a yes is given only for what a crash can't take away. */
  sent(node: SimNode, message: PeerMessage): void {
    if (message.t === 'announce') this.#announced.add(message.gid);
    if (message.t !== 'vote' || message.error !== undefined) return;
    if (node.postgres.prepared.has(message.gid) || this.commits.has(message.gid)) return;
    throw new Violation('I4', `node ${node.id} votes for ${message.gid}, which is not durably prepared there`);
  }

  /** I6, and that a committed answer means: committed here, or on every member if that was asked for. */
  answered(node: SimNode, gid: Gid, outcome: CoordinatorOutcome, everywhere: boolean): void {
    const before = this.#told.get(gid);
    if (before !== undefined)
      throw new Violation('one answer', `the client of ${gid} was told ${before}, then ${outcome.type}`);
    this.#told.set(gid, outcome.type);
    const index = this.commits.get(gid);
    if (outcome.type === 'aborted' && index !== undefined)
      throw new Violation('I6', `the client of ${gid} is told that it was aborted; the log commits it at ${index}`);
    if (outcome.type === 'aborted') this.#olderWins(gid, outcome.error.detail);
    if (outcome.type !== 'committed') return;
    if (index === undefined)
      throw new Violation('I6', `the client of ${gid} is told that it is committed; the log does not have it`);
    if (outcome.index !== index)
      throw new Violation('I6', `${gid} is committed at ${index}, the answer says ${outcome.index}`);
    for (const one of everywhere ? [...node.core.guard.members.keys()] : [node.id]) {
      if (this.hasAll(this.#nodes()[one - 1].postgres, index)) continue;
      throw new Violation('visibility', `the client of ${gid} (${index}) is told committed; node ${one} lacks it`);
    }
  }

  /**
   * Of two that are in each other's way the one with the older clock reading wins, on every node alike. Within one millisecond it is one of the two
   * nodes, and the same for all transactions of that millisecond.
   */
  #olderWins(gid: Gid, detail: string | undefined): void {
    const winner = /^Transaction "(pgmm:[^"]+)" of node \d+ won/.exec(detail ?? '')?.[1];
    if (winner === undefined) return;
    const read = (text: string) => {
      const [, , node, epoch, sequence, clock] = text.split(':');
      const own = [parseInt(clock, 36), parseInt(epoch, 36), parseInt(sequence, 36)];
      return { node: Number(node), own, millisecond: Math.floor(own[0] / 1024) };
    };
    const [won, lost] = [read(winner), read(gid)];
    const isDrawn = won.millisecond === lost.millisecond && won.node !== lost.node;
    if (isDrawn) {
      const lot = [won.millisecond, ...[won.node, lost.node].sort((a, b) => a - b)].join();
      const before = this.#lots.get(lot) ?? won.node;
      this.#lots.set(lot, won.node);
      if (before !== won.node)
        throw new Violation('older wins', `${gid} gave way to ${winner}, but node ${before} won before`);
      return;
    }
    const first = won.own.findIndex((value, i) => value !== lost.own[i]);
    if (first === -1 || won.own[first] > lost.own[first])
      throw new Violation('older wins', `${gid} gave way to ${winner}, which is the younger`);
  }

  /** I7, after every step: no node claims to have committed what its server has not. */
  check(node: SimNode): void {
    if (!node.process.alive) return;
    const { core, postgres } = node;
    if (core.state === 'fenced') throw new Violation('I2', `node ${node.id} fenced itself: ${core.fencedBecause}`);
    const missing = this.#firstMissing(postgres) ?? Infinity;
    if (missing <= core.committed) {
      throw new Violation(
        'I7',
        `node ${node.id} says it has committed up to ${core.committed}, its server lacks ${missing}`,
      );
    }
    if (core.guard.index > this.log.length)
      throw new Violation('one log', `node ${node.id} has read ${core.guard.index} entries of ${this.log.length}`);
    this.#provesNoMore(node.id, postgres);
  }

  /** What the origins prove is there, and no more. */
  #provesNoMore(node: number, postgres: PostgresModel): void {
    const last = postgres.history.at(-1);
    if (last === undefined || this.#judged.get(postgres) === last) return;
    this.#judged.set(postgres, last);
    const { progress } = postgres;
    const wrong = this.#commitIndexes.find((index) => progress.has(index) !== postgres.has(index));
    if (wrong !== undefined) throw new Violation('I7', `the origins of node ${node} are wrong about ${wrong}`);
  }

  installed(node: SimNode, snapshot: GuardSnapshot): void {
    const logged = this.log.at(snapshot.index - 1);
    const same =
      logged?.lastCommit === snapshot.lastCommit &&
      snapshot.members.every(([id, epoch]) => logged.members.get(id) === epoch);
    if (!same || logged.members.size !== snapshot.members.length) {
      throw new Violation(
        'one log',
        `node ${node.id} is given a snapshot of ${snapshot.index} that differs from the log`,
      );
    }
  }

  /** Tables must not grow: what is under way is bounded by what clients do at once. */
  checkTables(node: SimNode, limit: number): void {
    if (!node.process.alive) return;
    const own = node.core.coordinator.list().length;
    // What is decided is bounded by the log's retention, not by what is under way.
    const foreign = node.core.participant
      .list()
      .filter(({ state }) => state !== 'missing' && state !== 'decided').length;
    if (own > limit || foreign > limit * 8)
      throw new Violation('bounded tables', `node ${node.id} has ${own} own and ${foreign} foreign transactions`);
  }

  /** At the end: what clients were told is what the log says, on every node. */
  checkEnd(): void {
    const total = this.#commitIndexes.length;
    const rows = this.#nodes().map(({ postgres }) =>
      JSON.stringify([...postgres.rows].sort(([a], [b]) => (a < b ? -1 : 1))),
    );
    for (const node of this.#nodes()) {
      const { postgres, core } = node;
      if (postgres.history.length !== total)
        throw new Violation('all equal', `node ${node.id} has ${postgres.history.length} commits of ${total}`);
      if (rows[node.id - 1] !== rows[0]) throw new Violation('all equal', `node ${node.id} has other rows than node 1`);
      if (postgres.prepared.size > 0)
        throw new Violation(
          'nothing is left',
          `node ${node.id} has ${[...postgres.prepared.keys()].join(', ')} prepared`,
        );
      const open = [...core.coordinator.list(), ...core.participant.list()];
      if (open.length > 0)
        throw new Violation('nothing is left', `node ${node.id} has under way: ${JSON.stringify(open)}`);
    }
    for (const [gid, told] of this.#told) {
      if (told === 'unknown') continue;
      if (this.commits.has(gid) !== (told === 'committed'))
        throw new Violation('I6', `the client of ${gid} was told ${told}`);
    }
  }
}
