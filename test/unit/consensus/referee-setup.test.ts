/** Which memory of a referee counts: random walks through crashes, lost and replaced stores, and addresses that are changed. */
import { expect, test } from 'vitest';
import { nextStep, wentBack, type RefereeMemory } from '../../../src/consensus/core/referee-setup.ts';
import { Prng } from '../../../src/consensus/core/random.ts';
import type { RefereeCommand, ScriptAnswer } from '../../../src/consensus/referee/script.ts';
import { logIndex } from '../../../src/runtime/ids.ts';
import { RefereeModel } from './referee-model.ts';

interface WalkingNode {
  readonly node: number;
  store: RefereeModel;
  memory: RefereeMemory;
  /** What was there when it last looked; it acts on that later, when it may be true no more. */
  seen: ScriptAnswer['found'] | null;
}

const FORGOTTEN: RefereeMemory = { id: null, term: 0, lastTerm: 0, lastIndex: logIndex(0) };
const RUNS = 2000;
const STEPS = 400;

class Walk {
  readonly #prng: Prng;
  readonly #stores = [new RefereeModel(), new RefereeModel()];
  readonly #nodes = [1, 2].map((node): WalkingNode => ({ node, store: this.#at(0), memory: FORGOTTEN, seen: null }));
  #ids = 0;
  used = 0;

  constructor(seed: number) {
    this.#prng = new Prng(seed);
  }

  step(): void {
    const one = this.#nodes[this.#prng.below(2)];
    const dice = this.#prng.below(100);
    if (dice < 40) one.seen = this.#run(one.store, { op: 'look' }).found;
    else if (dice < 90) this.#act(one);
    else if (dice < 94) one.store = this.#at(this.#prng.below(2));
    else if (dice < 95) this.#at(this.#prng.below(2)).clear();
    else if (dice < 97) one.seen = null;
    this.#assertOne();
  }

  /** All is well from now on: both nodes must come to rely on the same memory. */
  settle(): boolean {
    for (const one of this.#nodes) one.store = this.#at(0);
    for (let n = 0; n < 20; n++) {
      const one = this.#nodes[n % 2];
      one.seen = this.#run(one.store, { op: 'look' }).found;
      this.#act(one);
    }
    return this.#nodes.every((one) => this.#counts(one));
  }

  #at(index: number): RefereeModel {
    return this.#stores[index];
  }

  #run(store: RefereeModel, command: RefereeCommand): ScriptAnswer {
    return store.run('owner', command);
  }

  #act(one: WalkingNode): void {
    if (one.seen === null) return;
    const found = one.seen;
    const step = nextStep(one.node === 1, one.memory, found);
    one.seen = null;
    const position = { term: 1, lastTerm: 1, lastIndex: logIndex(1) };
    // A crash may come between what a node notes down and what it then does.
    const dies = this.#prng.below(8) === 0;
    if (step === 'create') {
      one.memory = { ...FORGOTTEN, id: `id${++this.#ids}` };
      if (!dies) this.#run(one.store, { op: 'create', id: `id${this.#ids}`, replaces: found.id, position });
    } else if (step === 'join') {
      one.memory = FORGOTTEN;
      if (dies && this.#prng.below(2) === 0) return;
      const { verdict } = this.#run(one.store, { op: 'join', id: found.id ?? '', position });
      if (!dies && verdict === 'yes') one.memory = { ...FORGOTTEN, id: found.id };
    } else if (step === 'seal' || step === 'discard') this.#run(one.store, { op: step, id: found.id ?? '' });
    else if (step === 'ready') one.memory = { ...found };
  }

  /** Whether the referee would answer this node now. */
  #counts({ store, memory }: WalkingNode): boolean {
    if (memory.id === null) return false;
    const request = { op: 'lead', term: 1, index: logIndex(0), round: 0 } as const;
    return this.#run(store, { op: 'raft', id: memory.id, node: 1, request, lease: 0 }).verdict === 'yes';
  }

  #assertOne(): void {
    const relied = this.#nodes.filter((one) => this.#counts(one)).map(({ memory }) => memory.id);
    this.used += relied.length;
    if (new Set(relied).size > 1) throw new Error(`the nodes rely on ${relied.join(' and ')}`);
  }
}

test('the two nodes never rely on different memories', () => {
  let used = 0;
  for (let seed = 1; seed <= RUNS; seed++) {
    const walk = new Walk(seed);
    try {
      for (let n = 0; n < STEPS; n++) walk.step();
      expect(walk.settle(), 'comes to rest').toBe(true);
    } catch (error) {
      throw new Error(`seed ${seed}: ${String(error)}`, { cause: error });
    }
    used += walk.used;
  }
  expect(used).toBeGreaterThan(RUNS * 10);
});

test('a memory that went back is not relied upon', () => {
  const at = (term: number, lastTerm: number, index: number) => ({
    ...{ id: 'a', term, lastTerm, lastIndex: logIndex(index), joined: true, sealed: true },
  });
  expect([at(4, 3, 9), at(5, 2, 9), at(5, 3, 7)].map((found) => wentBack(at(5, 3, 8), found))).toEqual([
    true,
    true,
    true,
  ]);
  expect([at(5, 3, 8), at(6, 3, 8), at(5, 4, 1)].map((found) => wentBack(at(5, 3, 8), found))).toEqual([
    false,
    false,
    false,
  ]);
  expect(nextStep(true, at(5, 3, 8), at(5, 3, 7))).toBe('create');
  expect(nextStep(false, at(5, 3, 8), at(5, 3, 7))).toBe('discard');
  expect(nextStep(false, at(5, 3, 8), at(5, 3, 8))).toBe('ready');
});
