import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import type { Redis, RedisOptions } from 'ioredis';
import { argumentsOf, readAnswer, SCRIPT, type RefereeCommand, type ScriptAnswer } from './script.ts';
import { isRewriting, problemOf, SETTINGS, type ServerFacts, type ServerProblem } from './server-checks.ts';

export interface RefereeServer {
  /** `redis://` or `rediss://`, with user, password and database if there are any. */
  readonly url: string;
  readonly password?: string | undefined;
  readonly caFile?: string | undefined;
  /** Milliseconds that connecting and each command may take. */
  readonly timeout: number;
  readonly trustSettings: boolean;
}

/** The server answers, and must not be a referee. */
export class RefereeRefused extends Error {
  override readonly name = 'RefereeRefused';
  readonly cure: string;

  constructor({ reason, cure }: ServerProblem) {
    super(reason);
    this.cure = cure;
  }
}

/** As messages and metrics name it: without a password. */
export function nameOf(url: string): string {
  const { hostname, port, pathname } = new URL(url);
  return `${hostname}:${port === '' ? '6379' : port}${pathname.length > 1 ? pathname : ''}`;
}

const SHA = createHash('sha1').update(SCRIPT).digest('hex');

/**
 * One connection to the Redis. It never comes back: after a failure, a silence above all, its owner opens another, so that no late answer is
 * taken for one to a later question. Redis may still carry out what was sent; that is as with any message that arrives late.
 */
export class RefereeConnection {
  readonly #redis: Redis;
  readonly #server: RefereeServer;
  readonly #onEnd: () => void;
  #endedBecause: string | undefined;

  /** Throws when there is no connection, RefereeRefused when the server must not be used. */
  static async open(server: RefereeServer, onEnd: () => void = () => undefined): Promise<RefereeConnection> {
    // Loaded only here: most clusters have no referee.
    const { Redis } = await import('ioredis');
    const connection = new RefereeConnection(new Redis(optionsOf(server)), server, onEnd);
    try {
      await connection.#connect();
      await connection.examine(false);
      return connection;
    } catch (error) {
      const { message } = error as Error;
      connection.close(message);
      if (!/^(WRONGPASS|NOAUTH|NOPERM|ERR invalid password|ERR AUTH)/.test(message)) throw error;
      throw new RefereeRefused({
        reason: message,
        cure: 'Correct the user or password in referee.url, or referee.password_file.',
      });
    }
  }

  private constructor(redis: Redis, server: RefereeServer, onEnd: () => void) {
    this.#redis = redis;
    this.#server = server;
    this.#onEnd = onEnd;
    redis.on('error', (error: Error) => this.close(explain(error, server.timeout)));
    redis.on('close', () => this.close('the connection was closed'));
  }

  /** Why the connection is of no use any more; `onEnd` is called when that comes about. */
  get endedBecause(): string | undefined {
    return this.#endedBecause;
  }

  async #connect(): Promise<void> {
    const { timeout } = this.#server;
    const timer = setTimeout(() => this.close(`no connection within referee.timeout (${timeout} ms)`), timeout);
    try {
      await this.#redis.connect();
    } catch (error) {
      // The driver only says that the connection is closed; why was told before.
      throw new Error(this.#endedBecause ?? (error as Error).message, { cause: error });
    } finally {
      clearTimeout(timer);
    }
  }

  /** Throws RefereeRefused. `accepted`: this server was found to be right before, and may rewrite its file meanwhile. */
  async examine(accepted: boolean): Promise<void> {
    const facts = await this.#facts();
    const problem = problemOf(facts, this.#server.trustSettings);
    if (problem !== undefined) throw new RefereeRefused(problem);
    if (!accepted && isRewriting(facts))
      throw new RefereeRefused({ reason: 'Redis is rewriting its append-only file', cure: 'Wait.' });
  }

  async #facts(): Promise<ServerFacts> {
    const info = parseInfo((await this.#call('INFO', [])) as string);
    if (info.get('redis_mode') === 'sentinel') return { info, settings: null, clients: null };
    const settings = (await this.#ifAllowed('CONFIG', ['GET', ...SETTINGS])) as string[] | null;
    const clients = (await this.#ifAllowed('CLIENT', ['LIST'])) as string | null;
    return {
      info,
      settings: settings === null ? null : pairs(settings),
      clients: clients === null ? null : [...clients.matchAll(/ name=(\S+)/g)].map(([, name]) => name),
    };
  }

  /** Null where the server forbids or does not know the command. */
  async #ifAllowed(command: string, args: string[]): Promise<unknown> {
    try {
      return await this.#call(command, args);
    } catch (error) {
      if (/^(NOPERM|ERR unknown (sub)?command)/i.test((error as Error).message)) return null;
      throw error;
    }
  }

  async run(key: string, owner: string, command: RefereeCommand): Promise<ScriptAnswer> {
    const args = ['1', key, ...argumentsOf(owner, command)];
    try {
      return readAnswer(await this.#call('EVALSHA', [SHA, ...args]));
    } catch (error) {
      if (!(error as Error).message.startsWith('NOSCRIPT')) throw error;
      return readAnswer(await this.#call('EVAL', [SCRIPT, ...args]));
    }
  }

  /** Rejects with what Redis said, or when it says nothing in time; then the connection is closed too. */
  async #call(command: string, args: string[]): Promise<unknown> {
    try {
      return await this.#redis.call(command, args);
    } catch (error) {
      const reason = explain(error as Error, this.#server.timeout);
      if ((error as Error).name === 'ReplyError') throw new Error(reason, { cause: error });
      // Not an answer: it is open what comes next on this connection. If it has ended before, that is the reason.
      this.close(reason);
      throw new Error(this.#endedBecause, { cause: error });
    }
  }

  close(reason: string): void {
    if (this.#endedBecause !== undefined) return;
    this.#endedBecause = reason;
    this.#redis.disconnect();
    this.#onEnd();
  }
}

function explain({ message }: Error, timeout: number): string {
  return message === 'Command timed out' ? `no answer within referee.timeout (${timeout} ms)` : message;
}

function optionsOf({ url, password, caFile, timeout }: RefereeServer): RedisOptions {
  const { protocol, hostname, port, pathname, username, password: inUrl } = new URL(url);
  const secret = password ?? (inUrl === '' ? undefined : decodeURIComponent(inUrl));
  return {
    host: hostname.replace(/^\[(.*)\]$/, '$1'),
    port: port === '' ? 6379 : Number(port),
    db: Number(pathname.slice(1)),
    ...(username !== '' && { username: decodeURIComponent(username) }),
    ...(secret !== undefined && { password: secret }),
    ...(protocol === 'rediss:' && { tls: caFile === undefined ? {} : { ca: readFileSync(caFile, 'utf8') } }),
    connectionName: 'pgmm',
    protocol: 2,
    lazyConnect: true,
    connectTimeout: timeout,
    commandTimeout: timeout,
    // Nothing is queued, repeated or connected again behind our back.
    retryStrategy: () => null,
    enableOfflineQueue: false,
    enableReadyCheck: false,
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    disableClientInfo: true,
  };
}

function parseInfo(text: string): Map<string, string> {
  return new Map(
    text
      .split(/\r?\n/)
      .filter((line) => line.includes(':'))
      .map((line) => [line.slice(0, line.indexOf(':')), line.slice(line.indexOf(':') + 1)]),
  );
}

function pairs(flat: readonly string[]): Map<string, string> {
  return new Map(flat.flatMap((name, i) => (i % 2 === 0 ? [[name, flat[i + 1]] as const] : [])));
}
