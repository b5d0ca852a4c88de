import type { Gid } from '../runtime/ids.ts';
import { parseGid } from './gid.ts';

/** How a transaction that had its turn ended. `other`: it did not come to a conflict, or took too long to be waited for. */
export type TurnEnd = 'committed' | 'lost' | 'other';

export interface Turn {
  /** The transaction may begin. */
  readonly granted: boolean;
  /** Idempotent. */
  end(how: TurnEnd): void;
}

/** Milliseconds after which a turn is not waited for any more: its client may be idle in its transaction. */
const LONGEST = 1000;
const FIRST_LIMIT = 4;
const HIGHEST_LIMIT = 1000;

/**
 * Clients of this node that lost a conflict and try again take turns, the one that lost first before the others. Otherwise all of them would stand in line
 * for the same rows, and each transaction that another node commits would overrule the whole line, over and over: the more clients, the fewer
 * commits. How many may try at once follows what comes of it, like the window of a TCP connection (additive increase, multiplicative decrease:
 * Chiu and Jain, 1989). Who has not lost yet never waits, and nobody waits for longer than `patience`.
 */
export class Turns {
  readonly #patience: number;
  readonly #active = new Set<Ticket>();
  /** By seniority. */
  readonly #waiting: Ticket[] = [];
  #limit = FIRST_LIMIT;

  /** `patience`: milliseconds; 0 lets everyone through. */
  constructor(patience: number) {
    this.#patience = patience;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** `senior`: the first transaction that the client lost. `wake` is called when the turn is granted later. */
  enter(senior: Gid, wake: () => void): Turn {
    const ticket = new Ticket(parseGid(senior)?.clock ?? 0, wake, (how) => this.#ended(ticket, how));
    if (this.#patience === 0 || (this.#waiting.length === 0 && this.#active.size < this.#limit)) {
      this.#grant(ticket);
      return ticket;
    }
    const at = this.#waiting.findIndex((other) => other.seniority > ticket.seniority);
    this.#waiting.splice(at === -1 ? this.#waiting.length : at, 0, ticket);
    ticket.after(this.#patience, () => this.#grant(ticket));
    return ticket;
  }

  #grant(ticket: Ticket): void {
    this.#remove(ticket);
    this.#active.add(ticket);
    ticket.after(LONGEST, () => ticket.end('other'));
    ticket.grant();
  }

  #ended(ticket: Ticket, how: TurnEnd): void {
    this.#remove(ticket);
    if (how === 'committed') this.#limit = Math.min(HIGHEST_LIMIT, this.#limit + 1 / this.#limit);
    else if (how === 'lost') this.#limit = Math.max(1, this.#limit / 2);
    while (this.#waiting.length > 0 && this.#active.size < Math.floor(this.#limit)) this.#grant(this.#waiting[0]);
  }

  #remove(ticket: Ticket): void {
    this.#active.delete(ticket);
    const at = this.#waiting.indexOf(ticket);
    if (at !== -1) this.#waiting.splice(at, 1);
  }
}

class Ticket implements Turn {
  readonly seniority: number;
  readonly #wake: () => void;
  readonly #onEnd: (how: TurnEnd) => void;
  #granted = false;
  #ended = false;
  #timer: NodeJS.Timeout | undefined;

  constructor(seniority: number, wake: () => void, onEnd: (how: TurnEnd) => void) {
    this.seniority = seniority;
    this.#wake = wake;
    this.#onEnd = onEnd;
  }

  get granted(): boolean {
    return this.#granted;
  }

  grant(): void {
    this.#granted = true;
    this.#wake();
  }

  after(milliseconds: number, act: () => void): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(act, milliseconds);
  }

  end(how: TurnEnd): void {
    if (this.#ended) return;
    this.#ended = true;
    clearTimeout(this.#timer);
    this.#onEnd(how);
  }
}
