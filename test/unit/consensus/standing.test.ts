/**
 * Which memories of voters count, in random runs: messages are lost, repeated and late, voters crash before and after a decision is durable, and
 * forget everything. As long as the memories that are there, or begin, can't be told from those of a cluster that has begun, none may begin anew.
 */
import { expect, test } from 'vitest';
import { Prng } from '../../../src/consensus/core/random.ts';
import { VoterStanding, type Memory, type StandingMessage } from '../../../src/consensus/core/standing.ts';
import { nodeId, type NodeId } from '../../../src/runtime/ids.ts';

const fresh = (name: string): Memory => ({ name, counts: false, founders: null });

class Voter {
  readonly id: NodeId;
  /** On disk. */
  memory: Memory;
  standing: VoterStanding;
  readonly #voters: readonly NodeId[];
  #memories = 1;

  constructor(id: number, voters: readonly NodeId[]) {
    this.id = nodeId(id);
    this.#voters = voters;
    this.memory = fresh(`${id}.1`);
    this.standing = new VoterStanding(this.id, voters, this.memory);
  }

  restart(): void {
    this.standing = new VoterStanding(this.id, this.#voters, this.memory);
  }

  forget(): void {
    this.memory = fresh(`${this.id}.${++this.#memories}`);
    this.restart();
  }
}

interface Packet {
  readonly from: NodeId;
  readonly to: NodeId;
  readonly message: StandingMessage;
}

class Run {
  readonly prng: Prng;
  readonly voters: Voter[];
  /** Every bare majority of memories that counted at one time: what they decided may be known to them only. */
  readonly #quorums: string[][] = [];
  #network: Packet[] = [];
  forgotten = 0;

  constructor(seed: number) {
    this.prng = new Prng(seed);
    const ids = Array.from({ length: 2 + this.prng.below(4) }, (_, i) => nodeId(i + 1));
    this.voters = ids.map((id) => new Voter(id, ids));
  }

  step(mayForget: boolean): void {
    const voter = this.voters[this.prng.below(this.voters.length)];
    const dice = this.prng.below(100);
    if (dice < 30) this.#ask(voter);
    else if (dice < 92) this.#deliver();
    else if (dice < 96) voter.restart();
    else if (mayForget && dice < 99) {
      voter.forget();
      this.forgotten++;
    }
  }

  #ask(voter: Voter): void {
    const { question } = voter.standing;
    if (question === undefined) return;
    for (const to of this.voters)
      if (to !== voter) this.#network.push({ from: voter.id, to: to.id, message: question });
  }

  #deliver(): void {
    if (this.#network.length === 0) return;
    const position = this.prng.below(3) > 0 ? 0 : this.prng.below(this.#network.length);
    const { from, to, message } = this.#network[position];
    const fate = this.prng.below(10);
    if (fate > 0) this.#network.splice(position, 1);
    if (fate > 1) this.#arrive(from, this.voters[to - 1], message);
    if (this.#network.length > 60) this.#network.splice(0, 30);
  }

  #arrive(from: NodeId, voter: Voter, message: StandingMessage): void {
    if (message.t === 'memories') {
      const answer = voter.standing.answer(from, message.known);
      if (answer !== undefined) this.#network.push({ from: voter.id, to: from, message: answer });
      return;
    }
    if (voter.standing.onAnswer(from, message) !== 'counts') return;
    // A crash may come before it is durable.
    if (this.prng.below(6) === 0) voter.restart();
    else this.#counts(voter);
  }

  #counts(voter: Voter): void {
    voter.memory = voter.standing.memory;
    const now = this.voters.filter(({ memory }) => memory.counts).map(({ memory }) => memory.name);
    for (const quorum of this.#quorumsOf(now)) {
      // As long as one of those that decided something remembers it, whoever decides later has one of them with it.
      for (const before of this.#quorums) {
        const isForgotten = !before.some((name) => now.includes(name));
        const meet = quorum.some((name) => before.includes(name));
        expect(isForgotten || meet, `${before.join()} then ${quorum.join()}`).toBe(true);
      }
    }
    this.#quorums.push(...this.#quorumsOf(now));
  }

  #quorumsOf(names: readonly string[]): string[][] {
    const size = Math.floor(this.voters.length / 2) + 1;
    const subsets = Array.from({ length: 1 << names.length }, (_, bits) => names.filter((_, i) => (bits >> i) & 1));
    return subsets.filter(({ length }) => length === size);
  }

  /** All faults end. */
  settle(): void {
    this.#network = [];
    for (let round = 0; round < 20; round++) {
      for (const voter of this.voters) this.#ask(voter);
      for (const { from, to, message } of this.#network.splice(0)) this.#arrive(from, this.voters[to - 1], message);
      for (const { from, to, message } of this.#network.splice(0)) this.#arrive(from, this.voters[to - 1], message);
    }
  }
}

test('a voter that counts has shared its majority with every one that counts later', () => {
  let founded = 0;
  for (let seed = 1; seed <= 3000; seed++) {
    const run = new Run(seed);
    for (let i = 0; i < 400; i++) run.step(true);
    for (const { memory } of run.voters) if (memory.founders !== null) founded++;
  }
  expect(founded).toBeGreaterThan(500);
});

test('without losses of memory, all voters begin with the same list', () => {
  for (let seed = 1; seed <= 500; seed++) {
    const run = new Run(seed);
    for (let i = 0; i < 600; i++) run.step(false);
    run.settle();
    const lists = run.voters.map(({ memory }) => JSON.stringify(memory.founders));
    expect(new Set(lists).size, `seed ${seed}: ${lists.join(' ')}`).toBe(1);
    expect(run.voters.every(({ memory }) => memory.counts)).toBe(true);
  }
});

test('one that forgot is told apart from one that begins, also by a voter that had not begun to count', () => {
  const ids = [1, 2, 3].map(nodeId);
  const [a, b, c] = ids.map((id) => new VoterStanding(id, ids, fresh(`${id}.1`)));
  const ask = (who: VoterStanding, from: NodeId, whom: VoterStanding, to: NodeId) => {
    const known = (who.question as Extract<StandingMessage, { t: 'memories' }>).known;
    return who.onAnswer(to, whom.answer(from, known) as Extract<StandingMessage, { t: 'memory' }>);
  };
  // Node 1 begins with all three; node 2 has not heard of it.
  for (let round = 0; round < 2; round++) {
    ask(a, ids[0], b, ids[1]);
    ask(a, ids[0], c, ids[2]);
  }
  expect(a.counts).toBe(true);
  const forgetful = new VoterStanding(ids[2], ids, fresh('3.2'));
  for (let round = 0; round < 3; round++) {
    ask(forgetful, ids[2], a, ids[0]);
    ask(forgetful, ids[2], b, ids[1]);
    if (b.question !== undefined) ask(b, ids[1], forgetful, ids[2]);
  }
  expect(forgetful.counts).toBe(false);
  expect(b.counts).toBe(false);
  expect(forgetful.problem).toContain('has begun without it');
  expect(ask(b, ids[1], a, ids[0])).toBe('counts');
  expect(forgetful.onLetIn('3.1')).toBe(false);
  expect(forgetful.onLetIn('3.2')).toBe(true);
  expect(forgetful.counts).toBe(true);
});

test('the only voter asks nobody', () => {
  const one = new VoterStanding(nodeId(1), [nodeId(1)], fresh('1.1'));
  expect(one.begin()).toBe(true);
  expect(one.counts).toBe(true);
});
