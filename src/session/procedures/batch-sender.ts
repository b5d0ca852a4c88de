import { answered } from '../context.ts';
import type { Context, Procedure } from '../context.ts';
import { SYNC } from '../injected.ts';
import { failureOf } from './commit.ts';
import { ClientSegment, PassSegment } from '../segments.ts';
import type { InjectedSegment, Segment, Skip } from '../segments.ts';

/** A batch that was passed on as a read and is repeated as a write. */
export interface Repetition {
  readonly skip: Skip;
  /** Named statements that the server has already, until they are closed: to be left out. */
  readonly acknowledged: Set<string>;
}

/** The way of one batch to the server: the segment that is open, what is held back of its answers, and whether it failed. */
export class BatchSender {
  readonly #context: Context;
  readonly #skip: Skip | undefined;
  /** What the client's messages are being sent in. */
  segment: Segment | undefined;
  /** The BEGIN before it, if it is the session's own. */
  begin: InjectedSegment | undefined;
  /** Ends of answers that are held back while the batch goes on. */
  held: Buffer[] = [];
  failed = false;
  #flushing = false;

  constructor(context: Context, open: Segment | undefined, skip: Skip | undefined) {
    this.#context = context;
    this.#skip = skip;
    this.segment = open;
    if (open instanceof PassSegment) open.tellsReady = false;
  }

  /** Notices an error that has come in the meantime. The client knows its own; that of the BEGIN it must be told. */
  look(): void {
    if (this.failed) return;
    if (this.begin?.failed !== undefined) this.#context.client.push(failureOf(this.#context, this.begin.failed));
    this.failed = this.begin?.failed !== undefined || this.segment?.failed !== undefined;
  }

  open(): Segment {
    if (this.segment === undefined) {
      this.releaseHeld();
      const segment = this.#context.clientSegment({ after: this.begin, skip: this.#skip });
      segment.flushing = this.#flushing;
      this.segment = this.#context.link.add(segment);
    }
    return this.segment;
  }

  forward(bytes: Buffer, start: number, end: number): void {
    this.open();
    this.#context.link.toServer.range(bytes, start, end);
  }

  /** The client waits for all there is so far: nothing is held back until it sends more. */
  setFlushing(flushing: boolean): void {
    this.#flushing = flushing;
    if (!(this.segment instanceof ClientSegment)) return;
    this.segment.flushing = flushing;
    if (flushing) this.segment.release();
  }

  releaseHeld(): void {
    this.#context.client.push(...this.held);
    this.held = [];
  }

  /** Ends what was sent so far by a Sync, the client's or the session's own, and waits for the answers. */
  *cut(): Procedure {
    const segment = this.close();
    if (segment === undefined) return;
    yield* answered(segment);
    this.finished(segment);
  }

  close(): Segment | undefined {
    const { segment } = this;
    if (segment === undefined) return undefined;
    segment.closed = true;
    this.#context.link.toServer.push(SYNC);
    this.segment = undefined;
    return segment;
  }

  finished(segment: Segment): void {
    this.look();
    if (segment.failed !== undefined) this.failed = true;
    if (!(segment instanceof ClientSegment)) return;
    this.releaseHeld();
    this.held = segment.held;
    segment.held = [];
  }
}
