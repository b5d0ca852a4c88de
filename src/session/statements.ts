import type { ClientText } from './context.ts';
import type { Forgets, StatementKind } from '../sql/kinds.ts';
import { MAYBE } from '../sql/kinds.ts';

/** A statement that the client prepared, as far as the session must know it. */
export interface Prepared {
  readonly name: string;
  /** Becomes a write when what looked like a read turns out to write. */
  kind: StatementKind;
  /** May lock rows or tables. */
  locks: boolean;
  /** Only where the text itself is needed later: schema statements. */
  readonly text: ClientText | undefined;
  /** It calls a function that the proxy has to answer; see questions.ts. */
  readonly asks: boolean;
  /** It may change how new the session's reads must be. */
  readonly setsReads: boolean;
  /** Of a statement that locks: the types of its parameters, as in its Parse. */
  readonly parameterTypes?: Buffer;
  /** As the whole of an implicit transaction it may be run again; see repeatable.ts. */
  readonly repeatable: boolean;
}

export const UNKNOWN: Prepared = {
  ...{ name: '', kind: MAYBE, text: undefined },
  ...{ locks: true, asks: false, setsReads: false, repeatable: false },
};

/**
 * Prepared statements and portals by name ("Extended Query"). A Parse counts at once for the messages that follow it, but for good only
 * when the server acknowledges it: PostgreSQL refuses a Parse under a name that is taken, and skips messages after an error, and
 * a name must never stand for a COMMIT that is remembered as a SELECT.
 */
export class Statements {
  readonly #confirmed = new Map<string, Prepared>();
  readonly #pending = new Map<string, Prepared>();
  readonly #portals = new Map<string, Prepared>();
  /** The Bind messages of portals that lock. */
  readonly #binds = new Map<string, Buffer>();

  announce(prepared: Prepared): void {
    this.#pending.set(prepared.name, prepared);
  }

  confirm(prepared: Prepared): void {
    this.#confirmed.set(prepared.name, prepared);
    if (this.#pending.get(prepared.name) === prepared) this.#pending.delete(prepared.name);
  }

  /** The server did not take it. */
  withdraw(prepared: Prepared): void {
    if (this.#pending.get(prepared.name) === prepared) this.#pending.delete(prepared.name);
  }

  remove(name: string): void {
    this.#confirmed.delete(name);
  }

  /** A statement made by SQL's PREPARE is unknown here: it can only be a query, and may write. */
  find(name: string): Prepared {
    return this.#pending.get(name) ?? this.#confirmed.get(name) ?? UNKNOWN;
  }

  /** Of the message only that of a portal that locks is kept. */
  bind(portal: string, prepared: Prepared, bytes: Buffer, start: number, end: number): void {
    this.#portals.set(portal, prepared);
    if (prepared.kind.type === 'lock') this.#binds.set(portal, Buffer.from(bytes.subarray(start, end)));
  }

  /** The Bind message of a portal that locks. */
  boundBy(portal: string): Buffer {
    return this.#binds.get(portal) ?? Buffer.alloc(0);
  }

  portal(name: string): Prepared {
    return this.#portals.get(name) ?? UNKNOWN;
  }

  /** Portals end with their transaction. */
  endTransaction(): void {
    if (this.#portals.size > 0) this.#portals.clear();
    if (this.#binds.size > 0) this.#binds.clear();
  }

  forget(forgets: Forgets): void {
    if (forgets.what === 'statement') this.#confirmed.delete(forgets.name);
    else if (forgets.what !== 'nothing') this.#confirmed.clear();
  }
}
