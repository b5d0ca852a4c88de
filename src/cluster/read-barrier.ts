import { PgError } from '../runtime/errors.ts';
import type { LogIndex, NodeId } from '../runtime/ids.ts';
import type { ReadLevel, ReadNeeds, Reads, ReadWait } from '../session/ports.ts';
import { OutcomeUnavailable } from './outcomes.ts';

export interface ReadBarrierOptions {
  readonly self: NodeId;
  readonly cluster: string;
  /** What sessions have that ask for nothing. */
  readonly level: ReadLevel;
  /** Milliseconds that a read may wait. */
  readonly timeout: number;
  /** Everything that was decided before the call stands at or before the answer. Rejects with OutcomeUnavailable. */
  readonly readIndex: () => Promise<LogIndex>;
  /** Everything up to here is committed in this node's PostgreSQL. */
  readonly committed: () => LogIndex;
  /** The highest log index whose commit a client of this node may have seen. */
  readonly shown: () => LogIndex;
}

/** Index and cluster of a token, as `multimaster.token()` writes it. */
const TOKEN = /^([a-z][a-z0-9_-]*):(\d{1,15})$/;

/**
 * Lets reads wait until this node has committed what they must see: what a token names, or all that was decided when they began. For the
 * latter the leader is asked for the read index; reads that come while it is being asked share the next question, since the answer
 * on its way may be older than they are.
 */
export class ReadBarrier implements Reads {
  readonly level: ReadLevel;
  readonly #options: ReadBarrierOptions;
  readonly #waiting = new Set<Wait>();
  #round: Promise<LogIndex> | undefined;
  #next: Promise<LogIndex> | undefined;

  constructor(options: ReadBarrierOptions) {
    this.#options = options;
    this.level = options.level;
  }

  token(index?: LogIndex): string {
    return `${this.#options.cluster}:${index ?? this.#options.shown()}`;
  }

  parseToken(text: string): LogIndex | undefined {
    const [, cluster, index] = TOKEN.exec(text) ?? [];
    return cluster === this.#options.cluster ? (Number(index) as LogIndex) : undefined;
  }

  wait({ strict, after }: ReadNeeds, wake: () => void): ReadWait {
    const wait = new Wait(wake, (one) => this.#waiting.delete(one));
    this.#waiting.add(wait);
    wait.limit(this.#options.timeout, () => this.#timedOut(wait));
    if (!strict) {
      wait.index = after ?? (0 as LogIndex);
      this.#look(wait);
      return wait;
    }
    this.#readIndex().then(
      (index) => {
        wait.index = Math.max(index, after ?? 0) as LogIndex;
        this.#look(wait);
      },
      (error: unknown) => wait.end(this.#unavailable(error)),
    );
    return wait;
  }

  /** The committed index may have moved on. */
  progressed(): void {
    for (const wait of this.#waiting) this.#look(wait);
  }

  #look(wait: Wait): void {
    if (wait.index !== undefined && wait.index <= this.#options.committed()) wait.end('ready');
  }

  #readIndex(): Promise<LogIndex> {
    const round = this.#round;
    if (round === undefined) return this.#begin();
    this.#next ??= round.then(
      () => this.#begin(),
      () => this.#begin(),
    );
    return this.#next;
  }

  #begin(): Promise<LogIndex> {
    this.#next = undefined;
    const round: Promise<LogIndex> = this.#options.readIndex().finally(() => {
      if (this.#round === round) this.#round = undefined;
    });
    this.#round = round;
    return round;
  }

  #timedOut(wait: Wait): void {
    const { self, committed } = this.#options;
    const { index } = wait;
    wait.end(
      new PgError('55P03', 'canceling statement due to reads.wait_timeout', {
        detail:
          index === undefined
            ? `Node ${self} has not learned from the leader of the decision log what is committed now.`
            : `Node ${self} has committed the log up to ${committed()}; the read needs it up to ${index}.`,
        hint: 'Repeat the read, or read on another node.',
      }),
    );
  }

  #unavailable(error: unknown): PgError {
    if (!(error instanceof OutcomeUnavailable)) return new PgError('XX000', (error as Error).message);
    return new PgError('57P03', 'cannot read at level "strict": this node cannot learn what is committed now', {
      detail: `Node ${this.#options.self}: ${error.message}.`,
      hint: 'Connect to another node, or set multimaster.read_level to local where old data will do.',
    });
  }
}

class Wait implements ReadWait {
  index: LogIndex | undefined;
  result: 'ready' | PgError | undefined;
  readonly #wake: () => void;
  readonly #ended: (wait: Wait) => void;
  #timer: NodeJS.Timeout | undefined;

  constructor(wake: () => void, ended: (wait: Wait) => void) {
    this.#wake = wake;
    this.#ended = ended;
  }

  limit(milliseconds: number, passed: () => void): void {
    this.#timer = setTimeout(passed, milliseconds);
  }

  end(result: 'ready' | PgError): void {
    if (this.result !== undefined) return;
    clearTimeout(this.#timer);
    this.result = result;
    this.#ended(this);
    this.#wake();
  }

  cancel(): void {
    this.end(new PgError('57014', 'canceling statement due to user request'));
  }
}
