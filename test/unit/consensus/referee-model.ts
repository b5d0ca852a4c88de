/** The referee's Redis in memory: what the Lua script says, once more. `postgres/referee-script.test.ts` compares the two. */
import type { LogPosition } from '../../../src/consensus/core/referee.ts';
import type { RefereeCommand, ScriptAnswer, Verdict } from '../../../src/consensus/referee/script.ts';
import type { LogIndex } from '../../../src/runtime/ids.ts';

interface Hash {
  owner: string;
  id: string;
  joined: boolean;
  sealed: boolean;
  term: number;
  voted: string;
  lastTerm: number;
  lastIndex: number;
  lease: number;
}

export class RefereeModel {
  #hash: Hash | null = null;

  /** `now`: milliseconds of Redis's clock. */
  run(owner: string, command: RefereeCommand, now = 0): ScriptAnswer {
    const verdict = this.#run(owner, command, now);
    const { id = '', joined = false, sealed = false, term = 0, lastTerm = 0, lastIndex = 0 } = this.#hash ?? {};
    return {
      verdict,
      found: { id: id === '' ? null : id, joined, sealed, term, lastTerm, lastIndex: lastIndex as LogIndex },
    };
  }

  /** FLUSHALL. */
  clear(): void {
    this.#hash = null;
  }

  save(): unknown {
    return structuredClone(this.#hash);
  }

  restore(saved: unknown): void {
    this.#hash = structuredClone(saved as Hash | null);
  }

  #run(owner: string, command: RefereeCommand, now: number): Verdict {
    if (this.#hash !== null && this.#hash.owner !== owner) return 'foreign';
    if (command.op === 'look') return 'yes';
    if (command.op === 'create') {
      if ((this.#hash?.id ?? null) !== command.replaces) return 'moved';
      const { id } = command;
      const blank = { term: 0, voted: '', lastTerm: 0, lastIndex: 0, lease: 0 };
      take((this.#hash = { owner, id, joined: false, sealed: false, ...blank }), command.position);
      return 'yes';
    }
    const hash = this.#hash;
    if (hash?.id !== command.id) return 'moved';
    switch (command.op) {
      case 'join':
        Object.assign(hash, { joined: true, sealed: false });
        take(hash, command.position);
        return 'yes';
      case 'seal':
        if (!hash.joined) return 'no';
        hash.sealed = true;
        return 'yes';
      case 'discard':
        this.#hash = null;
        return 'yes';
      case 'raft':
        return hash.sealed ? raft(hash, command, now) : 'moved';
    }
  }
}

function reaches(hash: Hash, term: number, index: number): boolean {
  return term > hash.lastTerm || (term === hash.lastTerm && index >= hash.lastIndex);
}

function take(hash: Hash, { term, lastTerm, lastIndex }: LogPosition): void {
  if (term >= hash.term) Object.assign(hash, { term, voted: '*' });
  if (reaches(hash, lastTerm, lastIndex)) Object.assign(hash, { lastTerm, lastIndex });
}

function raft(hash: Hash, { node, request, lease }: Extract<RefereeCommand, { op: 'raft' }>, now: number): Verdict {
  const { term } = request;
  if (request.op === 'lead') {
    if (term < hash.term) return 'no';
    if (term > hash.term) Object.assign(hash, { term, voted: String(node) });
    if (request.index > 0 && (hash.lastTerm < term || hash.lastIndex < request.index))
      Object.assign(hash, { lastTerm: term, lastIndex: request.index });
    if (hash.lease - now < lease / 2) hash.lease = now + lease;
    return 'yes';
  }
  const transfer = request.op === 'vote' && request.transfer;
  if (term > hash.term && !transfer && now < hash.lease) return 'held';
  const current = reaches(hash, request.lastTerm, request.lastIndex);
  if (request.op === 'preVote') return term > hash.term && current ? 'yes' : 'no';
  if (term > hash.term) Object.assign(hash, { term, voted: '' });
  if (term < hash.term || !current || (hash.voted !== '' && hash.voted !== String(node))) return 'no';
  hash.voted = String(node);
  return 'yes';
}
