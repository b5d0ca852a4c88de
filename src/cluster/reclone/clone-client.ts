import type { NodeId } from '../../runtime/ids.ts';
import type { CloneMessage, CopyRequest, PeerMessage } from '../messages.ts';

export interface ClonePiece {
  readonly bytes: Buffer;
  readonly end: boolean;
  /** Bytes of the donor's data directory, as it estimates. */
  readonly total: number;
}

/** The donor's server is too different for a copy of the kind that was asked for. */
export class UnlikeDonor extends Error {
  override readonly name = 'UnlikeDonor';
}

interface Pending {
  readonly donor: NodeId;
  readonly id: number;
  resolve(piece: ClonePiece): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/** Bytes of one answer. */
const PIECE = 1024 * 1024;
/** Milliseconds for an answer: the first one waits for a checkpoint. */
const TIMEOUT = 120_000;

/** Asks a donor for a copy of its PostgreSQL, one piece at a time. */
export class CloneClient {
  readonly #send: (to: NodeId, message: PeerMessage) => boolean;
  #pending: Pending | undefined;
  #id = 0;
  #stopped = false;

  constructor(send: (to: NodeId, message: PeerMessage) => boolean) {
    this.#send = send;
  }

  /** Rejects with the donor's reason, or when it can't be asked or does not answer. */
  read(donor: NodeId, from: number, request: CopyRequest): Promise<ClonePiece> {
    return new Promise((resolve, reject) => {
      const id = ++this.#id;
      const timer = setTimeout(() => this.#fail('no answer in time'), TIMEOUT);
      this.#pending = { donor, id, resolve, reject, timer };
      if (this.#stopped) return this.#fail('stopped');
      if (!this.#send(donor, { t: 'clone', id, from, limit: PIECE, ...request })) this.#fail('no link');
    });
  }

  onAnswer(from: NodeId, { id, clone, end, total, error, unlike }: CloneMessage): void {
    const pending = this.#pending;
    if (pending?.id !== id || pending.donor !== from) return;
    if (error !== undefined) return this.#fail(error, unlike === true ? UnlikeDonor : Error);
    clearTimeout(pending.timer);
    this.#pending = undefined;
    // A view into what was received, which goes on to be used.
    pending.resolve({ bytes: Buffer.from(clone), end, total });
  }

  /** The link to a node is down: what it was asked for will not come. */
  onDown(node: NodeId): void {
    if (this.#pending?.donor === node) this.#fail('the link broke');
  }

  /** Nothing is asked any more. */
  stop(): void {
    this.#stopped = true;
    this.#fail('stopped');
  }

  #fail(reason: string, kind: new (message: string) => Error = Error): void {
    const pending = this.#pending;
    if (pending === undefined) return;
    clearTimeout(pending.timer);
    this.#pending = undefined;
    pending.reject(new kind(`node ${pending.donor}: ${reason}`));
  }
}
