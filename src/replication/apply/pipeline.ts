import type { PgError } from '../../runtime/errors.ts';
import { Backend } from '../../wire/codes.ts';
import type { ServerConnection } from '../../wire/connection.ts';
import { FrontendWriter } from '../../wire/frontend.ts';
import type { Statement } from './statements.ts';

/** Called with the number of rows that the statement touched, or found. */
export type RowCheck = (rows: number) => void;

/** Bytes after which what was written is sent, so that the server works while more is being written. */
const CHUNK = 128 * 1024;
/** Requests that may be unanswered. */
const MAX_REQUESTS = 3;

/**
 * Statements on their way to one server: gathered into as few writes as possible, each statement prepared once per session.
 * The first error stops everything that was sent with it; `settle` reports it.
 */
export class StatementPipeline {
  readonly #connection: ServerConnection;
  readonly #writer = new FrontendWriter(64 * 1024);
  readonly #limit: number;
  /** Names of prepared statements by their text, least recently used first. */
  readonly #prepared = new Map<string, string>();
  #nextName = 0;
  /** Statements whose Parse may not have been carried out, as an error came first. */
  #unconfirmed: string[] = [];
  #checks: (RowCheck | undefined)[] = [];
  #error: PgError | undefined;
  #outstanding = 0;
  #wake: (() => void) | undefined;

  /** `limit` is the number of statements that stay prepared. */
  constructor(connection: ServerConnection, limit: number) {
    this.#connection = connection;
    this.#limit = Math.max(limit, 1);
  }

  get error(): PgError | undefined {
    return this.#error;
  }

  /** Bytes that are written and not sent. */
  get length(): number {
    return this.#writer.length;
  }

  /** Whether the caller should wait for `room` before it adds more. */
  get full(): boolean {
    return this.#outstanding >= MAX_REQUESTS;
  }

  /** Adds a statement under a name, which its key stands for. */
  prepared(statement: Statement, check?: RowCheck): void {
    const { key } = statement;
    let name = this.#prepared.get(key);
    if (name === undefined) {
      name = this.#prepare(key, statement.sql);
    } else if (this.#prepared.size > this.#limit / 2) {
      this.#prepared.delete(key);
      this.#prepared.set(key, name);
    }
    this.#writer.bind(name, statement.parameters).execute();
    this.#add(check);
  }

  #prepare(key: string, sql: string): string {
    if (this.#prepared.size >= this.#limit) {
      const [oldest] = this.#prepared;
      this.#prepared.delete(oldest[0]);
      this.#writer.closeStatement(oldest[1]);
    }
    const name = `s${this.#nextName++}`;
    this.#prepared.set(key, name);
    this.#unconfirmed.push(key);
    this.#writer.parse(name, sql);
    return name;
  }

  /** Adds a statement that is not worth a name. */
  once(sql: string, parameters: readonly (Buffer | null)[] = [], check?: RowCheck): void {
    this.#writer.run(sql, parameters);
    this.#add(check);
  }

  #add(check: RowCheck | undefined): void {
    this.#checks.push(check);
    if (this.#writer.length >= CHUNK) this.send();
  }

  /** COPY FROM STDIN with data that is here already. */
  copy(sql: string, data: Buffer): void {
    this.send();
    this.#checks.push(undefined);
    this.#writer.query(sql).copyData(data).copyDone();
    this.#request();
  }

  /** Sends what was gathered, with a Sync. */
  send(): void {
    if (this.#writer.length === 0) return;
    this.#writer.sync();
    this.#request();
  }

  #request(): void {
    const checks = this.#checks;
    this.#checks = [];
    this.#outstanding += 1;
    let at = 0;
    this.#connection.request(this.#writer.take(), {
      message: (type, bytes, _start, end) => {
        if (type !== Backend.commandComplete) return;
        checks[at++]?.(rowsOfTag(bytes, end));
      },
      done: (error) => {
        this.#outstanding -= 1;
        this.#error ??= error;
        this.#wake?.();
      },
    });
  }

  /** Waits until more may be added. */
  async room(): Promise<void> {
    while (this.full) await this.#oneAnswer();
  }

  /** Sends the rest and waits for every answer. The first error, if there was one; it's forgotten then. */
  async settle(): Promise<PgError | undefined> {
    this.send();
    while (this.#outstanding > 0) await this.#oneAnswer();
    const error = this.#error;
    this.#error = undefined;
    // A Parse that came after the error was skipped: none of this batch's names can be relied on.
    if (error !== undefined) for (const key of this.#unconfirmed) this.#drop(key);
    this.#unconfirmed = [];
    return error;
  }

  /** Closing a statement that isn't there is no error ("Close"). */
  #drop(key: string): void {
    const name = this.#prepared.get(key);
    if (name !== undefined) this.#writer.closeStatement(name);
    this.#prepared.delete(key);
  }

  #oneAnswer(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }

  /** Forgets prepared statements: the tables they name have changed. */
  forget(): void {
    for (const name of this.#prepared.values()) this.#writer.closeStatement(name);
    this.#prepared.clear();
  }
}

/** Tags end in the number of rows and a zero byte: "UPDATE 0", "SELECT 12". */
function rowsOfTag(bytes: Buffer, end: number): number {
  return Number(bytes.toString('latin1', bytes.lastIndexOf(0x20, end - 2) + 1, end - 1));
}
