import type { Turn, TurnEnd } from '../commit/turns.ts';
import type { Logger } from '../runtime/log.ts';
import type { Gid, Lsn } from '../runtime/ids.ts';
import { PgError } from '../runtime/errors.ts';
import type { Classifier } from '../sql/classifier.ts';
import { commandComplete, errorResponse, readyForQuery } from '../wire/backend-messages.ts';
import type { ClientStream } from '../wire/client-stream.ts';
import { SessionLocks } from './advisory/session-locks.ts';
import { fixedStatement, statement } from './injected.ts';
import type { Style } from './injected.ts';
import type { ClientOutbox } from './client-outbox.ts';
import type { Commits, DdlAnnouncer, LockCarrier } from './ports.ts';
import { ReadState } from './read-state.ts';
import { ClientSegment, InjectedSegment } from './segments.ts';
import type { Skip } from './segments.ts';
import type { ServerLink } from './server-link.ts';
import type { Statements } from './statements.ts';

/** What happens in sessions, for metrics. */
export type SessionEvent =
  | 'read'
  | 'read_only'
  | 'wrapped'
  | 'explicit'
  | 'committed'
  | 'aborted'
  | 'unknown'
  | 'retried'
  | 'repeated'
  | 'refused'
  | 'victim';

/** Bytes that all sessions have received so far. */
export interface Traffic {
  fromClients: number;
  fromServer: number;
}

export interface SessionHooks {
  readonly log: Logger;
  readonly count: (event: SessionEvent) => void;
  readonly traffic: Traffic;
}

/**
 * A sequence of steps that the session takes while the client waits. It runs inside the data handlers: each `yield` means "until
 * something has happened", and the step looks for itself whether it was what it waits for.
 */
export type Procedure<Result = void> = Generator<void, Result, void>;

export interface ContextParts {
  readonly link: ServerLink;
  readonly stream: ClientStream;
  readonly statements: Statements;
  readonly classifier: Classifier;
  readonly commits: Commits;
  readonly ddl: DdlAnnouncer;
  readonly locks: LockCarrier;
  readonly database: string;
  readonly hooks: SessionHooks;
  /** How often a statement that is the whole of an implicit transaction is run again after a conflict. */
  readonly statementRetries: number;
  /** How many bytes of such a statement, and of its answer, are kept for that. */
  readonly retryBytes: number;
  /** Runs the session's steps when something happens outside both sockets. */
  readonly wake: () => void;
  /** The session must end at once: others may be given the locks that it holds. */
  readonly onLost: (error: PgError) => void;
}

/** A text of the client's as it came, and client_encoding at that time. */
export interface ClientText {
  readonly bytes: Buffer;
  readonly encoding: string;
}

/** A transaction that lost a conflict, and has been rolled back without its client's doing. */
export interface Doomed {
  readonly error: PgError;
  /** The client has been given the error. */
  told: boolean;
  /**
   * The block that stands in its place has failed, too. Not before the client runs something: preparing a statement does not
   * lose conflicts on one server, and some clients take its failure for final.
   */
  failed: boolean;
}

/** What a session's procedures share. */
export class Context implements ContextParts {
  readonly link: ServerLink;
  readonly stream: ClientStream;
  readonly statements: Statements;
  readonly classifier: Classifier;
  readonly commits: Commits;
  readonly ddl: DdlAnnouncer;
  readonly locks: LockCarrier;
  readonly database: string;
  readonly hooks: SessionHooks;
  readonly statementRetries: number;
  readonly retryBytes: number;
  readonly wake: () => void;
  readonly reads: ReadState;
  readonly advisory: SessionLocks;
  readonly onLost: (error: PgError) => void;
  /** The transaction in progress has lost a conflict and has not been rolled back yet; `told`: the client knows. */
  aborted: { readonly error: PgError; told: boolean } | undefined;
  /** It has been rolled back, and the server stands in another block in its place. */
  doomed: Doomed | undefined;
  /** A cancel request of the session's own that may still hit what runs. */
  cancel: { readonly done: boolean } | undefined;
  /** PREPARE TRANSACTION has been sent and the outcome is not known: nothing may stop the session now. */
  committing = false;
  /** The client has sent a cancel request since its statement was begun. */
  cancelled = false;
  /** Nothing of its statement runs: it waits to be run again. */
  waitsToRepeat = false;
  /** The client has sent Terminate, or is gone. */
  terminated = false;
  /** The server's connection is gone. */
  serverLost = false;
  /** Name of the transaction in progress, if it needed one before its end, and how many schema statements it holds. */
  gid: Gid | undefined;
  ordinal = 0;
  /** What multimaster.shared_rows() said after the last of them. */
  sharedRows: string | undefined;
  /** The transaction in progress may have savepoints. */
  savepoints = false;
  /** Position in the WAL before the first statement of the transaction in progress. */
  #runsSince: Lsn | undefined;
  /** A text looked as if it locked something, or there was what locks rows or tables without any text that shows it. */
  #mayHaveLocked = false;
  /** The transaction in progress locks whole tables; see `ConflictVictim.standing`. */
  stands = false;
  /** The first transaction of this client that lost a conflict since its last commit. */
  #senior: Gid | undefined;
  #turn: Turn | undefined;
  /** The client has asked for its name. */
  revealed = false;

  constructor(parts: ContextParts) {
    this.link = parts.link;
    this.stream = parts.stream;
    this.statements = parts.statements;
    this.classifier = parts.classifier;
    this.commits = parts.commits;
    this.ddl = parts.ddl;
    this.locks = parts.locks;
    this.database = parts.database;
    this.hooks = parts.hooks;
    this.statementRetries = parts.statementRetries;
    this.retryBytes = parts.retryBytes;
    this.wake = parts.wake;
    this.reads = new ReadState(parts.commits.reads.level);
    this.onLost = parts.onLost;
    this.advisory = new SessionLocks(parts.commits.advisoryLocks, parts.database, parts.onLost);
  }

  get client(): ClientOutbox {
    return this.link.toClient;
  }

  /** Adds a statement of the session's own, in which parts of the client's may stand. */
  inject(style: Style, sql: string): InjectedSegment {
    return this.link.add(new InjectedSegment(), statement(style, this.encode(sql)));
  }

  /** The same for one of the few texts that never change. */
  injectFixed(style: Style, sql: string): InjectedSegment {
    return this.link.add(new InjectedSegment(), fixedStatement(style, sql));
  }

  /** BEGIN for an implicit transaction of the client's. */
  injectBegin(style: Style): InjectedSegment {
    this.forgetTransaction();
    return this.injectFixed(style, this.link.clientReadOnly ? 'BEGIN READ ONLY' : 'BEGIN READ WRITE');
  }

  clientSegment(
    options: {
      after?: InjectedSegment | undefined;
      offset?: number;
      skip?: Skip | undefined;
      repeatable?: boolean;
    } = {},
  ): ClientSegment {
    return new ClientSegment({
      after: options.after,
      offset: options.offset ?? 0,
      skip: options.skip ?? { left: 0 },
      repeatable: options.repeatable ?? false,
      release: (held) => this.client.push(...held),
    });
  }

  forgetTransaction(): void {
    if (this.revealed && this.gid !== undefined) this.commits.withdraw(this.gid);
    this.link.undoReadOnly();
    this.reads.transactionEnded();
    this.advisory.transactionEnded();
    this.revealed = false;
    this.gid = undefined;
    this.ordinal = 0;
    this.sharedRows = undefined;
    this.savepoints = false;
    this.#runsSince = undefined;
    this.#mayHaveLocked = false;
    this.stands = false;
    // What comes next can lose a conflict of its own, also where it follows in the same batch, or AND CHAIN.
    if (this.link.status !== 'E') this.doomed = undefined;
  }

  /** To be called before a statement of a transaction is sent. `byText`: it looks as if it locked rows or tables. */
  mayLock(byText: boolean): void {
    if (byText || this.classifier.hidesLocks) this.#mayHaveLocked = true;
    this.#runsSince ??= this.locks.position(this.database);
  }

  /**
   * Since when in the WAL the transaction in progress may have locked something; undefined: it has not, as far as is known. A function that locks
   * may have been made while the transaction ran: then a statement may have found it that was sent before anybody knew. Since its beginning, as
   * only that tells to whom a lock belongs that was taken after a write: the first record of a savepoint, and the former place of an updated row.
   */
  get locksSince(): Lsn | undefined {
    const { hidesLocks, changingSince } = this.classifier;
    return this.#mayHaveLocked || hidesLocks || changingSince !== undefined ? this.#runsSince : undefined;
  }

  /** SAVEPOINT and its relatives come next. */
  savepoint(): void {
    this.savepoints = true;
    this.advisory.rolledBackToSavepoint();
  }

  /** A statement that locks whole tables comes next: the transaction has its name, and with it its priority, from here on. */
  stand(): void {
    this.transactionName();
    this.stands = true;
  }

  transactionName(): Gid {
    this.gid ??= this.commits.allocate(this.database, this.#senior);
    return this.gid;
  }

  /** The transaction in progress lost a conflict, which counts for the client's next ones. */
  noteLoss(): void {
    this.#senior ??= this.transactionName();
    this.endTurn('lost');
  }

  noteCommit(): void {
    this.#senior = undefined;
    this.endTurn('committed');
  }

  /** Before a transaction of a client that lost its last one. Undefined where there is nothing to wait for. */
  takeTurn(): Turn | undefined {
    if (this.#senior === undefined || this.#turn !== undefined) return undefined;
    this.#turn = this.commits.turn(this.#senior, this.wake);
    if (this.#turn === undefined) this.#senior = undefined;
    return this.#turn;
  }

  endTurn(how: TurnEnd): void {
    this.#turn?.end(how);
    this.#turn = undefined;
  }

  sendError(error: PgError): void {
    this.client.push(errorResponse(error));
  }

  sendComplete(tag: string): void {
    this.client.push(commandComplete(tag));
  }

  sendReady(): void {
    this.client.push(readyForQuery(this.link.status));
  }

  /** The text of a query as a string, and back, without loss: positions count characters where the encoding is UTF-8. */
  decode(bytes: Buffer, start: number, end: number): string {
    return bytes.toString(this.#charset, start, end);
  }

  encode(text: string): Buffer {
    return Buffer.from(text, this.#charset);
  }

  /** The same with its encoding, for what has to be read elsewhere. */
  clientText(text: string): ClientText {
    return { bytes: this.encode(text), encoding: this.link.encoding };
  }

  get #charset(): 'utf8' | 'latin1' {
    return this.link.encoding === 'UTF8' ? 'utf8' : 'latin1';
  }
}

/** Until the server has answered. */
export function* answered(...segments: readonly { readonly done: boolean }[]): Procedure {
  while (segments.some((segment) => !segment.done)) yield;
}

/** Until a cancel request of the session's own can't hit anything any more. */
export function* uncancelled(context: Context): Procedure {
  while (context.cancel?.done === false) yield;
  context.cancel = undefined;
}

/** Until nothing that was sent is unanswered. */
export function* settled(context: Context): Procedure {
  while (context.link.queue.length > 0) yield;
}

export function refused(reason: string, hint: string, sqlstate = '0A000'): PgError {
  return new PgError(sqlstate, reason, { hint });
}
