import { Frontend } from '../../wire/codes.ts';
import { readExecute, readParse } from '../../wire/frontend-fields.ts';
import type { Context } from '../context.ts';
import { closeStatement, SYNC } from '../injected.ts';
import { InjectedSegment } from '../segments.ts';

const STATEMENT = 0x53; // S

/**
 * The messages of an extended-protocol batch, as long as it may be run again: with one Execute, of a query, and without a Flush, after which
 * the client waits for what there is.
 */
export class KeptBatch {
  readonly #context: Context;
  #messages: Buffer[] = [];
  #length = 0;
  #executed = false;
  #bound = false;
  #over = false;
  /** Statements that the server keeps under a name, although the transaction was rolled back. */
  readonly #named = new Set<string>();

  constructor(context: Context) {
    this.#context = context;
  }

  /** To be told of each message before it is dealt with. */
  take(type: number, bytes: Buffer, start: number, end: number): void {
    if (this.#over) return;
    this.#messages.push(bytes.subarray(start, end));
    this.#length += end - start;
    if (this.#length <= this.#context.retryBytes && this.#allows(type, bytes, start, end)) return;
    this.#over = true;
    this.#messages = [];
    this.#context.client.release();
  }

  /** Puts the messages before what the client has sent meanwhile. */
  again(): void {
    const { link, stream } = this.#context;
    if (this.#named.size > 0) {
      const segment = new InjectedSegment();
      segment.closes.push(...this.#named);
      link.add(segment, ...[...this.#named].map((name) => closeStatement(name)), SYNC);
    }
    stream.unshift(Buffer.concat(this.#messages));
    this.#messages = [];
    this.#length = 0;
    this.#executed = false;
    this.#bound = false;
  }

  #allows(type: number, bytes: Buffer, start: number, end: number): boolean {
    switch (type) {
      case Frontend.parse: {
        const name = readParse(bytes, start, end)?.name ?? '';
        if (name !== '') this.#named.add(name);
        return true;
      }
      case Frontend.bind:
        this.#bound = true;
        return true;
      case Frontend.execute: {
        const first = !this.#executed;
        this.#executed = true;
        return first && this.#context.statements.portal(readExecute(bytes, start, end)).repeatable;
      }
      case Frontend.close:
        // A statement that was bound may be gone now.
        return !this.#bound || bytes[start + 5] !== STATEMENT;
      case Frontend.describe:
      case Frontend.sync:
        return true;
      default:
        return false;
    }
  }
}
