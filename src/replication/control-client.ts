import type { Socket } from 'node:net';
import pg from 'pg';
import { tuneSocket } from '../runtime/sockets.ts';
import type { ConnectionOptions } from '../wire/connection.ts';

/**
 * A node-postgres client that may be asked from several places at once: questions are put one after the other. Rows come as
 * objects of text, numbers and null, as node-postgres parses them.
 */
export class ControlClient extends pg.Client {
  #last: Promise<unknown> = Promise.resolve();

  constructor({ host, port, user, password, ssl, database, applicationName, keepalive }: ConnectionOptions) {
    super({
      host,
      port,
      user,
      password,
      ssl,
      database,
      application_name: applicationName,
      connectionTimeoutMillis: 10_000,
      // A look-up must not wait for a lock on the catalog that somebody holds for long.
      options: '-c lock_timeout=5s -c default_transaction_read_only=off -c statement_timeout=0',
    });
    // A connection that breaks while nothing is asked: the next question is answered with it. Whoever wants to know sooner listens, too.
    this.on('error', () => undefined);
    if (keepalive === undefined) return;
    const { connection } = this as unknown as { connection: { stream: Socket } & NodeJS.EventEmitter };
    connection.once('connect', () => tuneSocket(connection.stream, keepalive));
  }

  /** Like `query`, after all that was asked before. */
  ask<Row extends pg.QueryResultRow>(query: string | pg.QueryConfig, values?: unknown[]): Promise<pg.QueryResult<Row>> {
    const answer = this.#last.then(() => this.query<Row>(query, values));
    this.#last = answer.catch(() => undefined);
    return answer;
  }
}
