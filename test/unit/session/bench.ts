import pino from 'pino';
import { formatLsn, logIndex, lsn } from '../../../src/runtime/ids.ts';
import type { Gid } from '../../../src/runtime/ids.ts';
import type { PgError } from '../../../src/runtime/errors.ts';
import type { Turn } from '../../../src/commit/turns.ts';
import { Engine } from '../../../src/session/engine.ts';
import type { SessionEvent } from '../../../src/session/context.ts';
import type { CommitOutcome } from '../../../src/session/ports.ts';
import { Classifier } from '../../../src/sql/classifier.ts';
import type { SafetyNames } from '../../../src/sql/names.ts';
import { describe as lines } from '../../postgres/session-raw.ts';
import type { Received } from '../../postgres/session-raw.ts';
import { FakeServer } from './fake-server.ts';

const NAMES: SafetyNames = { volatileNames: new Set(), taintedRelations: new Set(), hidesLocks: false };

function messages(bytes: Buffer): Received[] {
  const all: Received[] = [];
  for (let at = 0; at < bytes.length;) {
    const end = at + 1 + bytes.readUInt32BE(at + 1);
    all.push({ type: String.fromCharCode(bytes[at]), body: bytes.subarray(at + 5, end) });
    at = end;
  }
  return all;
}

interface BenchOptions {
  readonly cut?: (length: number) => number;
  readonly statementRetries?: number;
  /** The server lets the client in. */
  readonly greets?: boolean;
}

/** An engine between a client's bytes and the fake server, with every buffer cut where it is told. */
export class Bench {
  readonly server = new FakeServer();
  readonly engine: Engine;
  readonly begun: string[] = [];
  readonly carried: string[] = [];
  readonly events: SessionEvent[] = [];
  /** Of those who lost, it is this session's turn. */
  turn: Turn | undefined;
  readonly seniors: (Gid | undefined)[] = [];
  wake: () => void = () => undefined;
  refusal: () => PgError | undefined = () => undefined;
  readRefusal: () => PgError | undefined = () => undefined;
  /** What the client was told last, as bytes. */
  said: Buffer = Buffer.alloc(0);
  outcome: CommitOutcome = { type: 'committed', index: logIndex(1) };
  /** Before `outcome`. */
  readonly outcomes: CommitOutcome[] = [];
  /** For outcomes that take their time. */
  later: Promise<CommitOutcome> | undefined;
  #client: Buffer = Buffer.alloc(0);
  readonly #cut: (length: number) => number;
  names = NAMES;
  /** Of the WAL. */
  position = 0x10;
  /** The session's cancel requests are on their way until `cancelArrives` is called. */
  cancelsTakeTime = false;
  cancelArrives: () => void = () => undefined;
  /** The session wants more of them. */
  cancels: () => boolean = () => false;

  constructor({ cut = (length) => length, statementRetries = 0, greets = true }: BenchOptions = {}) {
    this.#cut = cut;
    let sequence = 0;
    this.engine = new Engine({
      database: 'app',
      readOnly: false,
      commits: {
        reads: {
          level: 'local',
          wait: () => ({ result: 'ready', cancel: () => undefined }),
          token: () => 'test:1',
          parseToken: () => undefined,
        },
        refusal: () => this.refusal(),
        readRefusal: () => this.readRefusal(),
        reveal: () => undefined,
        withdraw: () => undefined,
        inDoubt: () => [],
        outcome: () => Promise.resolve('committed'),
        turn: (_senior, wake) => {
          this.wake = wake;
          return this.turn;
        },
        allocate: (_database, senior) => {
          this.seniors.push(senior);
          return `gid-${++sequence}` as Gid;
        },
        begin: (gid) => {
          this.begun.push(gid);
          return {
            prepared: () => undefined,
            outcome: this.later ?? Promise.resolve(this.outcomes.shift() ?? this.outcome),
          };
        },
      },
      ddl: { announce: () => ({ message: 'm', token: 't' }) },
      locks: {
        position: () => lsn(BigInt(this.position)),
        carry: (gid, since) => this.carried.push(`${gid} ${formatLsn(since)}`),
      },
      classifier: new Classifier(() => this.names),
      hooks: {
        log: pino({ level: 'silent' }),
        count: (event) => this.events.push(event),
        traffic: { fromClients: 0, fromServer: 0 },
      },
      cancel: (needed) => {
        const request = { done: false };
        this.cancels = needed;
        this.cancelArrives = () => {
          this.#feed(this.server.interrupt(), (part) => this.engine.fromServer(part));
          // Else there would be another one after a pause, which nothing here lets pass.
          request.done = !needed();
          this.engine.resume();
        };
        if (!this.cancelsTakeTime) queueMicrotask(() => this.cancelArrives());
        return request;
      },
      onKey: () => undefined,
      run: (step) => {
        step();
        this.#exchange();
      },
      onLost: () => undefined,
      retryBytes: 65536,
      statementRetries,
    });
    if (greets) this.#feed(this.server.greet(), (part) => this.engine.fromServer(part));
    this.#exchange();
    this.#client = Buffer.alloc(0);
  }

  /** Somebody else has cancelled what the server does. */
  interrupt(): void {
    this.#feed(this.server.interrupt(), (part) => this.engine.fromServer(part));
    this.#exchange();
  }

  /** The server goes on with what it was told to hold. */
  proceed(): void {
    this.#feed(this.server.proceed(), (part) => this.engine.fromServer(part));
    this.#exchange();
  }

  /** The transcript of what the client is told. */
  async say(...parts: Buffer[]): Promise<string[]> {
    this.#feed(Buffer.concat(parts), (part) => {
      this.engine.fromClient(part);
      this.#exchange();
    });
    for (let i = 0; i < 25; i++) await Promise.resolve();
    this.#exchange();
    const answer = lines(messages(this.#client));
    this.said = this.#client;
    this.#client = Buffer.alloc(0);
    return answer;
  }

  #exchange(): void {
    for (;;) {
      this.#client = Buffer.concat([this.#client, ...this.engine.toClient.take()]);
      const bytes = Buffer.concat(this.engine.toServer.take());
      if (bytes.length === 0) return;
      this.#feed(this.server.receive(bytes), (part) => this.engine.fromServer(part));
    }
  }

  #feed(bytes: Buffer, take: (part: Buffer) => void): void {
    const at = this.#cut(bytes.length);
    for (const part of [bytes.subarray(0, at), bytes.subarray(at)]) if (part.length > 0) take(part);
  }
}

/** The session's own statements under short names. */
export function shorten(executed: readonly string[]): string[] {
  return executed.map((sql) => (sql.includes('if_assigned') ? 'probe' : sql.startsWith('PREPARE') ? 'PREPARE' : sql));
}
