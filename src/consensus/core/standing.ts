/**
 * Whether this voter counts. A voter whose disk was emptied has forgotten what it voted for and what it helped to decide: it could vote twice in a
 * term, or help to elect a leader that lacks what it acknowledged. So each memory of a voter has a random name, made with it, and one that is new
 * holds back: it follows, and gives neither votes nor acknowledgements, until one of two things is known.
 *
 * - *Founded*: no voter had begun before. All have told each other the names of their memories, and each has confirmed the whole list. Had any of
 *   them counted before with another list, it would not have confirmed this one; so no memory that is gone was ever part of a majority with one that is there.
 * - *Let in*: an entry of the log names the new memory. As it did not count itself, a majority of the others has that entry on disk, and refuses
 *   from then on every candidate that was put up before. See docs/identity.md for the whole argument.
 */
import type { NodeId } from '../../runtime/ids.ts';

/** Names of memories by voter. */
export type Founders = readonly (readonly [NodeId, string])[];

/** What a voter keeps of this on its own disk, beside its log. */
export interface Memory {
  /** Random, made with the log. */
  readonly name: string;
  readonly counts: boolean;
  /** The list that this voter began with; null if it was let in, or began with a version that knew no such list. */
  readonly founders: Founders | null;
}

export type StandingMessage =
  /** Of a voter that does not count yet, to each other one: the names that it has heard, its own among them. */
  | { readonly t: 'memories'; readonly known: Founders }
  | {
      readonly t: 'memory';
      /** The memory that asked: an answer to an earlier one says nothing. */
      readonly asker: string;
      readonly memory: Memory;
      /** The list that was asked with, if the sender would begin, or has begun, with it; else null. */
      readonly confirmed: Founders | null;
    };

export class VoterStanding {
  readonly #self: NodeId;
  readonly #others: readonly NodeId[];
  #memory: Memory;
  /** What the others have said since this memory was made. */
  readonly #known = new Map<NodeId, string>();
  readonly #confirmed = new Set<NodeId>();
  /** Others that have begun, with a list in which this memory does not stand. */
  readonly #ahead = new Set<NodeId>();

  constructor(self: NodeId, voters: readonly NodeId[], memory: Memory) {
    this.#self = self;
    this.#others = voters.filter((voter) => voter !== self);
    this.#memory = memory;
    this.#known.set(self, memory.name);
  }

  get memory(): Memory {
    return this.#memory;
  }

  get counts(): boolean {
    return this.#memory.counts;
  }

  /** Why it does not count, for operators; undefined when it does. */
  get problem(): string | undefined {
    if (this.counts) return undefined;
    if (this.#ahead.size > 0)
      return 'its decision log is a new one, and the cluster has begun without it: its vote counts when a majority of the others has let it in';
    const missing = this.#others.filter((other) => !this.#known.has(other));
    const whom = missing.length === 0 ? 'the others' : missing.map((node) => `node ${node}`).join(', ');
    return `its decision log is a new one: a cluster begins when all its voters are there, and ${whom} must say that they are new, too`;
  }

  /** What to ask the others, again and again; undefined once it counts. */
  get question(): StandingMessage | undefined {
    return this.counts ? undefined : { t: 'memories', known: this.#list() };
  }

  /** The only voter there is need not ask anybody. Whether it counts from now on. */
  begin(): boolean {
    if (this.counts || this.#others.length > 0) return false;
    this.#found(this.#list());
    return true;
  }

  answer(from: NodeId, known: Founders): StandingMessage | undefined {
    const asker = nameIn(known, from);
    if (asker === undefined) return undefined;
    const { founders, counts } = this.#memory;
    const isWhole = known.length === this.#others.length + 1 && nameIn(known, this.#self) === this.#memory.name;
    const agrees = isWhole && (counts ? isSame(founders, known) : true);
    return { t: 'memory', asker, memory: this.#memory, confirmed: agrees ? known : null };
  }

  /**
   * `counts`: this voter does from now on, which has to be made durable before it acts upon it. `ask`: something new was heard, and the others
   * are to be asked again.
   */
  onAnswer(from: NodeId, answer: Extract<StandingMessage, { t: 'memory' }>): 'counts' | 'ask' | 'nothing' {
    if (this.counts || answer.asker !== this.#memory.name || !this.#others.includes(from)) return 'nothing';
    const { name, counts, founders } = answer.memory;
    if (founders !== null && nameIn(founders, this.#self) === this.#memory.name) return this.#found(founders);
    if (counts) this.#ahead.add(from);
    const isNews = this.#known.get(from) !== name;
    if (isNews) {
      this.#known.set(from, name);
      this.#confirmed.clear();
    }
    if (isSame(answer.confirmed, this.#list())) this.#confirmed.add(from);
    if (this.#confirmed.size === this.#others.length) return this.#found(this.#list());
    return isNews && this.#known.size > this.#others.length ? 'ask' : 'nothing';
  }

  /** An entry that is decided lets this memory of this voter in. Whether this voter counts from now on, as above. */
  onLetIn(name: string | undefined): boolean {
    if (this.counts || name !== this.#memory.name) return false;
    this.#memory = { ...this.#memory, counts: true };
    return true;
  }

  #found(founders: Founders): 'counts' {
    this.#memory = { ...this.#memory, counts: true, founders };
    return 'counts';
  }

  #list(): Founders {
    return [...this.#known].sort(([a], [b]) => a - b);
  }
}

function nameIn(founders: Founders | null, node: NodeId): string | undefined {
  return founders?.find(([id]) => id === node)?.[1];
}

/** Both in the order of node numbers. */
function isSame(a: Founders | null, b: Founders): boolean {
  return a !== null && a.length === b.length && a.every(([node, name], i) => b[i][0] === node && b[i][1] === name);
}
