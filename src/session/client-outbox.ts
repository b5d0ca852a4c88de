import { readSqlState } from '../wire/backend-messages.ts';
import { Backend, lengthAt } from '../wire/codes.ts';
import { Outbox } from './outbox.ts';

/**
 * What goes to the client. The answer to a statement that may have to be run again is held back as a whole: the client has then seen nothing
 * of an attempt that came to nothing.
 */
export class ClientOutbox extends Outbox {
  #held: Buffer[] | undefined;
  /** How much more is held. */
  #room = 0;

  /** From now on, up to `limit` bytes; with more than that all of it goes on. Between whole messages only. */
  hold(limit: number): void {
    this.#held = [];
    this.#room = limit;
  }

  override range(bytes: Buffer, start: number, end: number): void {
    if (this.#held === undefined) {
      super.range(bytes, start, end);
      return;
    }
    this.#room -= end - start;
    // A copy: what came from the server is read over.
    this.#held.push(Buffer.from(bytes.subarray(start, end)));
    if (this.#room < 0) this.release();
  }

  /** Lets what is held go on, and holds no more. */
  release(): void {
    const held = this.#held;
    if (held === undefined) return;
    this.#held = undefined;
    this.push(...held);
  }

  /** Drops what is held, except what the server reported of the session rather than in answer to the statement; then holds no more. */
  discard(): void {
    const kept = this.#messages().filter(([type]) => type === Backend.parameterStatus || type === Backend.notification);
    this.#held = undefined;
    this.push(...kept);
  }

  /** SQLSTATE of the error in what is held, and whether the server reports a setting that has changed. */
  get heldAnswer(): { readonly sqlstate: string | undefined; readonly reports: boolean } {
    const messages = this.#messages();
    const error = messages.find(([type]) => type === Backend.error);
    return {
      sqlstate: error === undefined ? undefined : readSqlState(error),
      reports: messages.some(([type]) => type === Backend.parameterStatus),
    };
  }

  #messages(): Buffer[] {
    const bytes = Buffer.concat(this.#held ?? []);
    const messages: Buffer[] = [];
    for (let at = 0; at < bytes.length;) {
      const end = at + 1 + lengthAt(bytes, at + 1);
      messages.push(bytes.subarray(at, end));
      at = end;
    }
    return messages;
  }
}
