import {
  commandComplete,
  errorResponse,
  noticeResponse,
  parameterStatus,
  readyForQuery,
  textRow,
} from '../../../src/wire/backend-messages.ts';
import { ClientStream } from '../../../src/wire/client-stream.ts';
import { Frontend } from '../../../src/wire/codes.ts';
import type { TransactionStatus } from '../../../src/wire/codes.ts';
import { PgError } from '../../../src/runtime/errors.ts';

const empty = (type: string): Buffer => Buffer.concat([Buffer.from(type), Buffer.from([0, 0, 0, 4])]);

/** NotificationResponse: process 1, channel c, no payload. */
const NOTIFICATION = Buffer.from('A\0\0\0\x0b\0\0\0\x01c\0\0', 'latin1');

/** A row: read_level is local, read_after empty. */
const READ_SETTINGS = Buffer.from('D\0\0\0\x13\0\x02\0\0\0\x05local\0\0\0\0', 'latin1');

/**
 * As much of PostgreSQL as the session's steps need: transaction status, whether something was written, the extended
 * protocol's skipping after an error. Statements are judged by their first word.
 */
export class FakeServer {
  /** Texts in the order of execution. */
  readonly executed: string[] = [];
  /** SQLSTATEs with which the next INSERTs fail. */
  readonly failures: string[] = [];
  /** So many of the next INSERTs wait until they are interrupted. */
  waits = 0;
  /** First words of statements, or Close and a name for that message, of which the next ones don't begin until they are interrupted or let go. */
  readonly held: string[] = [];
  #heldText = '';
  #waiting: 'simple' | 'extended' | undefined;
  status: TransactionStatus = 'I';
  #wrote = false;
  #readOnly = true;
  #skipping = false;
  #copying: 'simple' | 'extended' | undefined;
  readonly #statements = new Map<string, string>();
  readonly #portals = new Map<string, string>();
  readonly #stream = new ClientStream();

  greet(): Buffer {
    const key = Buffer.concat([Buffer.from('K'), Buffer.from([0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 2])]);
    const ok = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0]);
    return Buffer.concat([ok, parameterStatus('default_transaction_read_only', 'on'), key, readyForQuery('I')]);
  }

  receive(bytes: Buffer): Buffer {
    this.#stream.push(bytes);
    const out: Buffer[] = [];
    while (this.#waiting === undefined && this.#stream.next()) {
      const { type, start, end } = this.#stream;
      out.push(...this.#message(type, this.#stream.bytes.subarray(start + 5, end)));
    }
    return Buffer.concat(out);
  }

  /** A cancel request has arrived. */
  interrupt(): Buffer {
    const how = this.#waiting;
    this.#waiting = undefined;
    if (how === undefined) return Buffer.alloc(0);
    const out = this.#fail('57014', 'canceling statement due to user request');
    if (how === 'simple') out.push(readyForQuery(this.status));
    else this.#skipping = true;
    return Buffer.concat([...out, this.receive(Buffer.alloc(0))]);
  }

  /** What is held begins, and ends, after all. */
  proceed(): Buffer {
    const how = this.#waiting;
    this.#waiting = undefined;
    if (how === undefined) throw new Error('nothing is held');
    const out = this.#heldText.startsWith('Close ') ? [empty('3')] : this.#carryOut(this.#heldText);
    if (how === 'simple') out.push(readyForQuery(this.status));
    return Buffer.concat([...out, this.receive(Buffer.alloc(0))]);
  }

  #message(type: number, body: Buffer): Buffer[] {
    const strings = body.toString('latin1').split('\0');
    if (this.#copying !== undefined) {
      if (type === Frontend.copyData && strings[0] === 'bad') return this.#failCopy();
      if (type !== Frontend.copyDone) return [];
      const answer = [commandComplete('COPY 1'), ...(this.#copying === 'simple' ? [readyForQuery(this.status)] : [])];
      this.#copying = undefined;
      return answer;
    }
    if (type === Frontend.query) return this.#query(strings[0]);
    if (type === Frontend.sync) {
      this.#skipping = false;
      return [readyForQuery(this.status)];
    }
    if (this.#skipping) return [];
    switch (type) {
      case Frontend.parse:
        if (strings[0] !== '' && this.#statements.has(strings[0])) {
          this.#skipping = true;
          return this.#fail('42P05', 'prepared statement already exists');
        }
        this.#statements.set(strings[0], strings[1]);
        return [empty('1')];
      case Frontend.bind:
        this.#portals.set(strings[0], this.#statements.get(strings[1]) ?? 'fail');
        return [empty('2')];
      case Frontend.close:
        if (strings[0].startsWith('S')) this.#statements.delete(strings[0].slice(1));
        return this.#holds(`Close ${strings[0].slice(1)}`) ? [] : [empty('3')];
      case Frontend.describe:
        return [empty('n')];
      case Frontend.execute: {
        const answer = this.#run(this.#portals.get(strings[0]) ?? 'fail');
        if (answer.at(-1)?.[0] === 0x45) this.#skipping = true;
        return answer;
      }
      default:
        return [];
    }
  }

  #failCopy(): Buffer[] {
    const out = this.#fail('22P02', 'invalid input');
    if (this.#copying === 'simple') out.push(readyForQuery(this.status));
    else this.#skipping = true;
    this.#copying = undefined;
    return out;
  }

  #query(sql: string): Buffer[] {
    const out: Buffer[] = [];
    for (const statement of sql.split(';').map((part) => part.trim())) {
      const answer = this.#run(statement);
      out.push(...answer);
      if (answer.at(-1)?.[0] === 0x45) break;
    }
    if (this.#waiting !== undefined) this.#waiting = 'simple';
    else if (this.#copying !== undefined) this.#copying = 'simple';
    else out.push(readyForQuery(this.status));
    return out;
  }

  #fail(sqlstate: string, message: string): Buffer[] {
    if (this.status === 'T') this.status = 'E';
    return [errorResponse(new PgError(sqlstate, message))];
  }

  #end(tag: string, sql: string): Buffer[] {
    this.status = sql.endsWith('AND CHAIN') ? 'T' : 'I';
    this.#wrote = false;
    this.#readOnly = true;
    return [commandComplete(tag)];
  }

  #run(sql: string): Buffer[] {
    if (!sql.includes('multimaster.read_level')) this.executed.push(sql.replace(/'pgmm:gid', '[^']*'/, 'gid'));
    return this.#holds(sql) ? [] : this.#carryOut(sql);
  }

  #holds(text: string): boolean {
    if (this.held.length === 0 || !text.startsWith(this.held[0])) return false;
    this.held.shift();
    this.#heldText = text;
    this.#waiting = 'extended';
    return true;
  }

  #carryOut(sql: string): Buffer[] {
    const word = /^\w*/.exec(sql.toUpperCase())![0];
    if (this.status === 'E' && word !== 'ROLLBACK' && word !== 'COMMIT') return this.#fail('25P02', 'aborted');
    switch (word) {
      case 'BEGIN':
        this.status = 'T';
        this.#readOnly = !sql.includes('READ WRITE');
        return [commandComplete('BEGIN')];
      case 'COMMIT':
        return this.#end(this.status === 'E' ? 'ROLLBACK' : 'COMMIT', sql);
      case 'ROLLBACK':
        return sql.includes('TO SAVEPOINT') ? this.#fail('3B001', 'no savepoint') : this.#end('ROLLBACK', sql);
      case 'PREPARE':
        return this.#end('PREPARE TRANSACTION', sql);
      case 'INSERT':
        if (this.#readOnly) return this.#fail('25006', 'read-only');
        if (this.waits > 0) {
          this.waits--;
          this.#waiting = 'extended';
          return this.#extras(sql);
        }
        if (this.failures.length > 0) return [...this.#extras(sql), ...this.#fail(this.failures.shift()!, 'lost')];
        this.#wrote = true;
        return [...this.#extras(sql), commandComplete('INSERT 0 1')];
      case 'COPY':
        this.#wrote = true;
        this.#copying = 'extended';
        return [Buffer.concat([Buffer.from('G'), Buffer.from([0, 0, 0, 7, 0, 0, 0])])];
      case 'SELECT':
        return this.#select(sql);
      case 'LOCK':
      case 'DECLARE':
      case 'FETCH':
      case 'DISCARD':
      case 'SET':
        return [commandComplete(word)];
      default:
        return this.#fail('42601', 'syntax error');
    }
  }

  /** What comes before the end of an answer, as the statement asks for it. */
  #extras(sql: string): Buffer[] {
    const out: Buffer[] = [];
    if (sql.includes('NOTICE')) out.push(noticeResponse(new PgError('00000', 'heed', { severity: 'NOTICE' })));
    if (sql.includes('REPORT')) out.push(parameterStatus('TimeZone', 'UTC'));
    if (sql.includes('NOTIFIED')) out.push(NOTIFICATION);
    const row = /RETURNING (\d+)/.exec(sql)?.[1];
    if (row !== undefined) out.push(textRow('c', 'x'.repeat(Number(row))).row);
    return out;
  }

  #select(sql: string): Buffer[] {
    if (sql.includes('writes()')) {
      if (this.#readOnly) return [textRow('c', '').description, ...this.#fail('25006', 'read-only')];
      this.#wrote = true;
    }
    if (sql.includes('multimaster.read_level')) return [READ_SETTINGS, commandComplete('SELECT 1')];
    if (!sql.includes('if_assigned')) {
      const { description, row } = textRow('c', 'value');
      // As a function can.
      const report = sql.includes('UNARMED') ? [parameterStatus('default_transaction_read_only', 'off')] : [];
      return [description, row, commandComplete('SELECT 1'), ...report];
    }
    const { row } = textRow('c', 'on');
    // Two columns: the message's position or NULL, and synchronous_commit.
    const first = this.#wrote ? Buffer.from([0, 0, 0, 1, 0x31]) : Buffer.from([0xff, 0xff, 0xff, 0xff]);
    const body = Buffer.concat([Buffer.from([0, 2]), first, row.subarray(7)]);
    const head = Buffer.from([0x44, 0, 0, 0, body.length + 4]);
    return [Buffer.concat([head, body]), commandComplete('SELECT 1')];
  }
}
