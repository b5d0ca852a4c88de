import { decodeCommand } from '../commit/log-codec.ts';
import { parseGid } from '../commit/gid.ts';
import type { Entry } from '../consensus/core/types.ts';
import type { Epoch, Gid, LogIndex, NodeId } from '../runtime/ids.ts';
import type { OutcomeMessage, TransactionOutcome } from './messages.ts';

export interface OutcomesOptions {
  readonly self: NodeId;
  readonly log: {
    /** Everything that was committed to the log before the call stands at or before the answer. Rejects unless this node leads. */
    readIndex(): Promise<LogIndex>;
    entries(from: LogIndex, to: LogIndex): readonly Entry[];
    readonly firstIndex: LogIndex;
    readonly leader: NodeId | null;
  };
  /** How far this node has read the log. */
  readonly applied: () => LogIndex;
  readonly hasEnded: (node: NodeId, epoch: Epoch) => boolean;
  /** Whether a transaction of this node is under way, or may yet be prepared. */
  readonly isUnderWay: (gid: Gid) => boolean;
  readonly send: (to: NodeId, message: OutcomeMessage) => boolean;
  /** Milliseconds that another node's answer may take, and then the entries that this node has yet to read. */
  readonly timeout: number;
}

/** Somebody who needs the log to be read up to an entry. */
interface Reader {
  readonly index: LogIndex;
  readonly resolve: () => void;
  readonly timer: NodeJS.Timeout;
}

interface Pending {
  resolve(answer: OutcomeMessage): void;
  reject(error: Error): void;
  readonly timer: NodeJS.Timeout;
}

/** The outcome can't be found out now: the reason, for the client. */
export class OutcomeUnavailable extends Error {
  override readonly name = 'OutcomeUnavailable';
}

/**
 * What became of any transaction of the cluster, asked of any node. The decision log says which committed; what it does not have and
 * can't get any more is aborted. For that the answering node first reads the log up to the present (Raft's read index), so that an
 * answer is never older than the question.
 */
export class Outcomes {
  readonly #options: OutcomesOptions;
  readonly #pending = new Map<number, Pending>();
  readonly #waiting = new Set<Reader>();
  #id = 0;

  constructor(options: OutcomesOptions) {
    this.#options = options;
  }

  /** Rejects with OutcomeUnavailable while there is no leader to be reached, or not for long enough. The name must be one of this cluster's. */
  async outcome(gid: Gid): Promise<TransactionOutcome> {
    const { self } = this.#options;
    const parts = parseGid(gid);
    if (parts === undefined) throw new Error(`not the name of a transaction: ${gid}`);
    await this.#readUpToNow();
    const found = this.#inLog(gid, parts.node, parts.epoch);
    if (found !== undefined) return found;
    // Its epoch is open: only its origin knows whether it may still come.
    return parts.node === self ? await this.#ownOutcome(gid) : await this.#askOrigin(gid, parts.node);
  }

  #inLog(gid: Gid, node: NodeId, epoch: Epoch): TransactionOutcome | undefined {
    const { log, applied, hasEnded } = this.#options;
    const from = Math.max(log.firstIndex, epoch + 1) as LogIndex;
    if (hasCommit(log.entries(from, applied()), gid)) return 'committed';
    // Its COMMIT can only stand after the ADMIT that began its epoch: is all of that still there?
    const isComplete = log.firstIndex <= epoch + 1;
    if (!isComplete) return 'unknown';
    return hasEnded(node, epoch) ? 'aborted' : undefined;
  }

  async #ownOutcome(gid: Gid): Promise<TransactionOutcome> {
    const { isUnderWay } = this.#options;
    if (isUnderWay(gid)) return 'in progress';
    // It may have ended since the log was read: if it committed, that stands in the log by now.
    await this.#readUpToNow();
    const { node, epoch } = parseGid(gid) ?? { node: this.#options.self, epoch: 0 as Epoch };
    return this.#inLog(gid, node, epoch) ?? 'aborted';
  }

  async #askOrigin(gid: Gid, origin: NodeId): Promise<TransactionOutcome> {
    try {
      const answer = await this.#ask(origin, { t: 'outcome', id: ++this.#id, gid });
      return answer.t === 'outcome-is' && answer.outcome !== undefined ? answer.outcome : 'in progress';
    } catch {
      // The origin is silent, and neither its COMMIT nor the end of its epoch stands in the log: it is undecided.
      return 'in progress';
    }
  }

  async #readUpToNow(): Promise<void> {
    const index = await this.readIndex();
    if (this.#options.applied() >= index) return;
    await new Promise<void>((resolve, reject) => {
      // The entries come from the leader: a node that was cut off since it was told of them waits for as long as that lasts.
      const giveUp = () => {
        this.#waiting.delete(reader);
        const known = `it has read the decision log up to entry ${this.#options.applied()}`;
        reject(new OutcomeUnavailable(`${known} and needs it up to entry ${index}`));
      };
      const reader: Reader = { index, resolve, timer: setTimeout(giveUp, this.#options.timeout) };
      this.#waiting.add(reader);
    });
  }

  /** Everything that was decided before the call stands in the log at or before the answer. Rejects with OutcomeUnavailable. */
  async readIndex(): Promise<LogIndex> {
    const { log, self } = this.#options;
    const { leader } = log;
    if (leader === null)
      throw new OutcomeUnavailable('there is no leader of the decision log that this node can reach');
    try {
      if (leader === self) return await log.readIndex();
      const answer = await this.#ask(leader, { t: 'read-index', id: ++this.#id });
      if (answer.t === 'read-index-is' && answer.index !== undefined) return answer.index;
    } catch (error) {
      throw new OutcomeUnavailable((error as Error).message);
    }
    throw new OutcomeUnavailable(`node ${leader} does not lead the decision log any more`);
  }

  #ask(to: NodeId, message: OutcomeMessage): Promise<OutcomeMessage> {
    return new Promise((resolve, reject) => {
      const { id } = message;
      const timer = setTimeout(() => this.#fail(id, `node ${to} did not answer in time`), this.#options.timeout);
      this.#pending.set(id, { resolve, reject, timer });
      if (!this.#options.send(to, message)) this.#fail(id, `there is no link to node ${to}`);
    });
  }

  #fail(id: number, reason: string): void {
    const pending = this.#pending.get(id);
    if (pending === undefined) return;
    clearTimeout(pending.timer);
    this.#pending.delete(id);
    pending.reject(new Error(reason));
  }

  /** A question of another node's, or the answer to one of this node's. */
  async onMessage(from: NodeId, message: OutcomeMessage): Promise<void> {
    const { send, log } = this.#options;
    const { id } = message;
    switch (message.t) {
      case 'read-index': {
        const index = await log.readIndex().catch(() => undefined);
        send(from, { t: 'read-index-is', id, index });
        return;
      }
      case 'outcome': {
        const outcome = await this.#ownOutcome(message.gid).catch(() => undefined);
        send(from, { t: 'outcome-is', id, outcome });
        return;
      }
      case 'read-index-is':
      case 'outcome-is': {
        const pending = this.#pending.get(id);
        if (pending === undefined) return;
        clearTimeout(pending.timer);
        this.#pending.delete(id);
        pending.resolve(message);
      }
    }
  }

  /** This node has read on in the log. */
  onApplied(): void {
    if (this.#waiting.size === 0) return;
    const applied = this.#options.applied();
    for (const reader of this.#waiting) {
      if (reader.index > applied) continue;
      clearTimeout(reader.timer);
      this.#waiting.delete(reader);
      reader.resolve();
    }
  }
}

/** Newest first. The name stands in the payload as it is, so that few entries have to be decoded. */
function hasCommit(entries: readonly Entry[], gid: Gid): boolean {
  const name = Buffer.from(gid);
  for (let at = entries.length - 1; at >= 0; at--) {
    const { payload } = entries[at];
    if (!Buffer.from(payload.buffer, payload.byteOffset, payload.byteLength).includes(name)) continue;
    const command = decodeCommand(payload);
    if (command?.type === 'commit' && command.gid === gid) return true;
  }
  return false;
}
