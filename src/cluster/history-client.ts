import type { LogIndex, NodeId } from '../runtime/ids.ts';
import type { HistoryMessage, PeerMessage } from './messages.ts';

type HistoryPart = Pick<HistoryMessage, 'pieces' | 'end' | 'after'>;

interface HistoryQuestion {
  readonly database: string;
  readonly after: LogIndex;
  readonly limit: number;
  readonly headersOnly: boolean;
  /** Nothing of earlier answers is kept beyond `after`. */
  readonly fresh: boolean;
}

/** No donor can help now. */
export class NoDonor extends Error {
  override readonly name = 'NoDonor';
  /** Those that said that their history begins after what was asked for. */
  readonly gone: ReadonlySet<NodeId>;

  constructor(message: string, gone: ReadonlySet<NodeId>) {
    super(message);
    this.gone = gone;
  }
}

class Gone extends Error {
  override readonly name = 'Gone';
}

interface Pending {
  readonly donor: NodeId;
  resolve(answer: HistoryPart): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/** Asks donors for their history, one question at a time; stays with a donor for as long as it answers. */
export class HistoryClient {
  readonly #send: (to: NodeId, message: PeerMessage) => boolean;
  /** Peers that can be asked, the best first. */
  readonly #donors: () => readonly NodeId[];
  readonly #timeout: number;
  readonly #pending = new Map<number, Pending>();
  /** Who gave the last answer, by database: a reading at a donor goes on where it stopped. */
  readonly #current = new Map<string, NodeId>();
  #id = 0;

  /** `timeout` in milliseconds for one answer. */
  constructor(options: {
    send: (to: NodeId, message: PeerMessage) => boolean;
    donors: () => readonly NodeId[];
    timeout: number;
  }) {
    this.#send = options.send;
    this.#donors = options.donors;
    this.#timeout = options.timeout;
  }

  /** Rejects with NoDonor and every donor's reason when none can help. */
  async read(request: HistoryQuestion): Promise<HistoryPart> {
    const current = this.#current.get(request.database);
    const donors = this.#donors();
    const ordered =
      current !== undefined && donors.includes(current) ? [current, ...donors.filter((d) => d !== current)] : donors;
    const reasons: string[] = [];
    const gone = new Set<NodeId>();
    for (const donor of ordered) {
      try {
        const fresh = request.fresh || donor !== this.#current.get(request.database);
        const answer = await this.#ask(donor, { ...request, fresh });
        this.#current.set(request.database, donor);
        return answer;
      } catch (error) {
        // It may have answered, too late or on a link that broke: that is not to be taken for read.
        this.#current.delete(request.database);
        if (error instanceof Gone) gone.add(donor);
        reasons.push(`node ${donor}: ${(error as Error).message}`);
      }
    }
    throw new NoDonor(reasons.length === 0 ? 'no member of the cluster can be reached' : reasons.join('; '), gone);
  }

  #ask(donor: NodeId, request: HistoryQuestion): Promise<HistoryPart> {
    return new Promise((resolve, reject) => {
      const id = ++this.#id;
      const timer = setTimeout(() => this.#fail(id, 'no answer in time'), this.#timeout);
      this.#pending.set(id, { donor, resolve, reject, timer });
      if (!this.#send(donor, { t: 'history', id, ...request })) this.#fail(id, 'no link');
    });
  }

  onAnswer(from: NodeId, { id, pieces, end, after, error, gone }: HistoryMessage): void {
    const pending = this.#pending.get(id);
    if (pending === undefined || pending.donor !== from) return;
    if (error !== undefined) return this.#fail(id, error, gone);
    clearTimeout(pending.timer);
    this.#pending.delete(id);
    pending.resolve({ pieces, end, ...(after !== undefined && { after }) });
  }

  #fail(id: number, reason: string, gone = false): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    clearTimeout(pending.timer);
    this.#pending.delete(id);
    pending.reject(gone ? new Gone(reason) : new Error(reason));
  }
}
