/**
 * What must hold in every run of Raft (figure 3.2 of the thesis), checked from outside after each step against facts
 * gathered over all nodes and all their incarnations.
 */
import type { RaftCore } from '../../../src/consensus/core/raft-core.ts';
import type { Effects, Entry, Snapshot } from '../../../src/consensus/core/types.ts';
import { logIndex, type LogIndex } from '../../../src/runtime/ids.ts';

export class SafetyViolation extends Error {}

function check(condition: boolean, message: string): asserts condition {
  if (!condition) throw new SafetyViolation(message);
}

const text = (payload: Uint8Array): string => Buffer.from(payload).toString('latin1');

export class Checker {
  /** term → the one incarnation that led it. */
  #leaders = new Map<number, string>();
  /** `index/term` → what it holds. With the previous term in it, equality of one entry implies that of the prefix. */
  #entries = new Map<string, string>();
  /** index → the committed entry's term; dense from 1. */
  #committed: number[] = [0];
  /** index → the state machine's value after it. */
  #states: string[] = [''];
  #payloads = new Set<string>();
  /** Payloads that a ready leader refused for good. Every payload is proposed with one expected term only. */
  #dead = new Set<string>();

  get lastCommitted(): LogIndex {
    return logIndex(this.#committed.length - 1);
  }

  committedTerm(index: LogIndex): number {
    return this.#committed[index] ?? 0;
  }

  isDelivered(payload: string): boolean {
    return this.#payloads.has(payload);
  }

  /** `durably` counts the nodes whose disk has the entry. */
  afterStep(
    core: RaftCore,
    incarnation: number,
    effects: Effects,
    hasDurably: (index: LogIndex, term: number) => number,
    majority: number,
  ): void {
    this.#logMatching(core, effects.persist?.entries ?? []);
    if (core.role === 'leader') this.#electionSafety(core, incarnation);
    this.#commitment(core, hasDurably, majority);
    for (const entry of effects.committed) this.#stateMachine(core, entry);
    check(core.deliveredIndex <= core.durableIndex, `node ${core.id} delivered what it may lose`);
  }

  stateAt(index: LogIndex): Uint8Array {
    return Buffer.from(this.#states[index], 'latin1');
  }

  snapshotInstalled(snapshot: Snapshot): void {
    check(text(snapshot.state) === this.#states[snapshot.index], `snapshot ${snapshot.index} is not the history's`);
  }

  refused(core: RaftCore, payload: string): void {
    if (this.#payloads.has(payload)) return;
    for (const entry of core.entries(core.firstIndex, core.lastIndex)) if (text(entry.payload) === payload) return;
    this.#dead.add(payload);
  }

  #electionSafety(core: RaftCore, incarnation: number): void {
    const name = `${core.id}/${incarnation}`;
    const known = this.#leaders.get(core.term);
    check(known === undefined || known === name, `term ${core.term} is led by ${known} and ${name}`);
    if (known !== undefined) return;
    this.#leaders.set(core.term, name);
    check(core.lastIndex >= this.lastCommitted, `leader ${name} lacks committed entries`);
    for (let i = core.firstIndex - 1; i <= this.lastCommitted; i++) {
      check(
        core.termAt(logIndex(i)) === this.#committed[i],
        `leader ${name} has another entry ${i} than was committed`,
      );
    }
  }

  #logMatching(core: RaftCore, entries: readonly Entry[]): void {
    for (const entry of entries) {
      const key = `${entry.index}/${entry.term}`;
      const value = `${core.termAt(logIndex(entry.index - 1))}:${text(entry.payload)}`;
      const known = this.#entries.get(key);
      check(known === undefined || known === value, `entry ${key} is "${known}" and "${value}"`);
      this.#entries.set(key, value);
    }
  }

  #commitment(core: RaftCore, hasDurably: (index: LogIndex, term: number) => number, majority: number): void {
    for (let i = this.lastCommitted + 1; i <= core.commitIndex; i++) {
      const term = core.termAt(logIndex(i));
      check(term !== null, `node ${core.id} committed ${i} without having it`);
      this.#committed.push(term);
      const count = hasDurably(logIndex(i), term);
      check(count >= majority, `entry ${i} of term ${term} is committed but durable on ${count} nodes only`);
    }
    const term = core.termAt(core.commitIndex);
    check(term === null || term === this.#committed[core.commitIndex], `node ${core.id} committed another history`);
  }

  #stateMachine(core: RaftCore, entry: Entry): void {
    check(entry.term === this.#committed[entry.index], `node ${core.id} applies another entry ${entry.index}`);
    const payload = text(entry.payload);
    const state = `${this.#states[entry.index - 1].slice(-200)}|${entry.term}${payload}`;
    if (entry.index === this.#states.length) {
      this.#states.push(state);
      check(!this.#dead.has(payload), `"${payload}" was refused for good and is committed`);
      if (payload !== '') this.#payloads.add(payload);
    } else check(this.#states[entry.index] === state, `node ${core.id} applies another entry ${entry.index}`);
  }
}
