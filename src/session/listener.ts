import { createServer } from 'node:net';
import type { ListenOptions, Server, Socket } from 'node:net';
import { createSecureContext } from 'node:tls';
import type { SecureContext } from 'node:tls';
import type { Logger } from '../runtime/log.ts';
import { tuneSocket, waitForSlowReader } from '../runtime/sockets.ts';
import type { KeepaliveSettings } from '../runtime/sockets.ts';
import { Classifier } from '../sql/classifier.ts';
import type { SafetyNames } from '../sql/names.ts';
import { loadParser } from '../sql/parser.ts';
import { errorResponse } from '../wire/backend-messages.ts';
import { startupMessage } from '../wire/startup-packet.ts';
import { cancelOnServer } from './cancel.ts';
import type { SessionEvent, Traffic } from './context.ts';
import { ServerConnection, connectToServer } from './connect.ts';
import type { ServerAddress } from './connect.ts';
import { receiveStartup } from './negotiation.ts';
import type { Startup } from './negotiation.ts';
import type { Commits, DdlAnnouncer, LockCarrier, VictimRegistry } from './ports.ts';
import { Session } from './session.ts';
import { fatal, planStartup } from './startup.ts';

interface ListenerLimits {
  readonly maxConnections: number;
  /** Milliseconds in which a client must have sent its StartupMessage. */
  readonly startupTimeout: number;
  /** Bytes of a passed read that are kept for a second try as a write. */
  readonly retryBytes: number;
  /** How often a statement that is the whole of an implicit transaction is run again after a conflict. */
  readonly statementRetries: number;
}

const DEFAULT_LIMITS: ListenerLimits = {
  ...{ maxConnections: 1000, startupTimeout: 60_000 },
  ...{ retryBytes: 64 * 1024, statementRetries: 0 },
};

export interface ListenerOptions {
  readonly listen: ListenOptions;
  readonly server: ServerAddress;
  readonly databases: readonly string[];
  readonly tls?: { readonly cert: string | Buffer; readonly key: string | Buffer; readonly ca?: string | Buffer };
  readonly commits: Commits;
  readonly ddl: DdlAnnouncer;
  readonly locks: LockCarrier;
  readonly registry: VictimRegistry;
  /** Of one database. May answer another object at any time; the same object means the same names. */
  readonly safety: (database: string) => SafetyNames;
  readonly limits?: Partial<ListenerLimits>;
  readonly keepalive?: KeepaliveSettings;
  readonly log: Logger;
  readonly metrics?: { readonly count: (event: SessionEvent) => void; readonly sessions: (open: number) => void };
}

export interface Listener {
  /** Resolves to the port once clients can connect. */
  start(): Promise<number>;
  /**
   * Takes no new clients; each session ends when its transaction does, with 57P01. What is left after `drain` milliseconds is cut
   * off.
   */
  stop(drain: number): Promise<void>;
  readonly sessions: number;
  readonly traffic: Readonly<Traffic>;
}

export function createListener(options: ListenerOptions): Listener {
  return new ClientListener(options);
}

class ClientListener implements Listener {
  readonly #options: ListenerOptions;
  readonly #limits: ListenerLimits;
  readonly #server: Server;
  readonly #secure: SecureContext | undefined;
  readonly #databases: ReadonlySet<string>;
  readonly #classifiers = new Map<string, Classifier>();
  readonly traffic: Traffic = { fromClients: 0, fromServer: 0 };
  readonly #sessions = new Set<Session>();
  /** By process id and cancel key of the server's backend. */
  readonly #keys = new Map<string, Session>();
  readonly #connecting = new Set<Socket>();

  constructor(options: ListenerOptions) {
    this.#options = options;
    this.#limits = { ...DEFAULT_LIMITS, ...options.limits };
    this.#databases = new Set(options.databases);
    this.#secure =
      options.tls === undefined ? undefined : createSecureContext({ ...options.tls, minVersion: 'TLSv1.2' });
    this.#server = createServer({ noDelay: true, pauseOnConnect: true }, (socket) => this.#accept(socket));
  }

  get sessions(): number {
    return this.#sessions.size;
  }

  async start(): Promise<number> {
    await loadParser();
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.listen, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
    const address = this.#server.address();
    return typeof address === 'object' && address !== null ? address.port : 0;
  }

  async stop(drain: number): Promise<void> {
    const closed = new Promise<void>((resolve) => this.#server.close(() => resolve()));
    const error = fatal('57P01', 'terminating connection because the proxy is shutting down');
    for (const session of [...this.#sessions]) session.drain(error);
    const end = setTimeout(() => {
      for (const session of [...this.#sessions]) session.destroy();
      for (const socket of this.#connecting) socket.destroy();
    }, drain);
    await closed;
    clearTimeout(end);
  }

  #accept(socket: Socket): void {
    if (this.#options.keepalive !== undefined) tuneSocket(socket, this.#options.keepalive);
    this.#connecting.add(socket);
    const settle = (): boolean => this.#connecting.delete(socket);
    socket.once('close', settle);
    socket.on('error', () => undefined);
    receiveStartup(socket, { secure: this.#secure, timeout: this.#limits.startupTimeout }, (startup) => {
      this.#begin(startup, settle).catch((error: unknown) => {
        this.#options.log.warn({ err: error }, 'a client could not be connected to the server');
        startup.socket.destroy();
      });
    });
  }

  async #begin({ socket, packet, rest }: Startup, settle: () => void): Promise<void> {
    socket.on('error', () => undefined);
    if (packet.type === 'cancel') {
      const session = this.#keys.get(keyOf(packet.pid, packet.key));
      // Past PREPARE TRANSACTION only the coordinator decides; PostgreSQL, too, ignores a cancel that comes too late.
      if (session?.engine.cancel() !== true) await cancelOnServer(this.#options.server, packet.pid, packet.key);
      socket.destroy();
      return;
    }
    const plan = planStartup(packet.parameters, this.#databases);
    if (plan.type === 'refused') {
      socket.end(errorResponse(plan.error));
      return;
    }
    if (this.#sessions.size >= this.#limits.maxConnections) {
      socket.end(errorResponse(fatal('53300', 'sorry, too many clients already')));
      return;
    }
    if (plan.type === 'replication') {
      const server = await this.#connect(socket, () => connectToServer(this.#options.server));
      if (server === undefined) return;
      server.write(startupMessage(packet.version, packet.parameters));
      if (rest.length > 0) server.write(rest);
      relay(socket, server);
      return;
    }
    const server = await this.#connect(socket, () => ServerConnection.open(this.#options.server));
    if (server === undefined) return;
    settle();
    const session = this.#createSession(socket, server, plan.database, plan.readOnly);
    session.start(startupMessage(packet.version, plan.parameters), rest);
  }

  /** Undefined when the server can't be reached, which the client is told, or the client has gone away meanwhile. */
  async #connect<Connection extends Socket | ServerConnection>(
    socket: Socket,
    open: () => Promise<Connection>,
  ): Promise<Connection | undefined> {
    try {
      const connection = await open();
      const { keepalive } = this.#options;
      if (keepalive !== undefined) {
        tuneSocket(socketOf(connection), keepalive);
        // Each may keep the other waiting.
        for (const one of [socket, socketOf(connection)]) waitForSlowReader(one, keepalive);
      }
      if (!socket.destroyed) return connection;
      connection.destroy();
    } catch (error) {
      this.#options.log.warn({ err: error }, 'the local PostgreSQL server cannot be reached');
      socket.end(errorResponse(fatal('57P03', 'the local PostgreSQL server cannot be reached')));
    }
    return undefined;
  }

  #createSession(socket: Socket, server: ServerConnection, database: string, readOnly: boolean): Session {
    const { commits, ddl, locks, registry, log, metrics } = this.#options;
    let backend: { pid: number; key: Buffer } | undefined;
    const session: Session = new Session(socket, server, {
      database,
      readOnly,
      commits,
      ddl,
      locks,
      classifier: this.#classifier(database),
      hooks: { log, count: metrics?.count ?? ((): void => undefined), traffic: this.traffic },
      retryBytes: this.#limits.retryBytes,
      statementRetries: this.#limits.statementRetries,
      cancel: (needed) => this.#cancelRepeatedly(session, backend, needed),
      onKey: (pid, key) => {
        backend = { pid, key };
        this.#keys.set(keyOf(pid, key), session);
        registry.add(pid, session.engine);
      },
      onLost: (error) => session.lose(error),
      onClose: () => {
        session.engine.closed();
        this.#sessions.delete(session);
        metrics?.sessions(this.#sessions.size);
        if (backend === undefined) return;
        this.#keys.delete(keyOf(backend.pid, backend.key));
        registry.remove(backend.pid);
      },
    });
    this.#sessions.add(session);
    metrics?.sessions(this.#sessions.size);
    return session;
  }

  /**
   * A request that comes before its statement is ignored by the server: so again, until the statement has ended. One that finds the server
   * waiting for the client to read is ignored as well: PostgreSQL lets only the end of the connection interrupt that.
   */
  #cancelRepeatedly(
    session: Session,
    backend: { pid: number; key: Buffer } | undefined,
    needed: () => boolean,
  ): { readonly done: boolean } {
    const state = { done: backend === undefined };
    const began = performance.now();
    const attempt = async (): Promise<void> => {
      while (backend !== undefined && needed()) {
        if (performance.now() - began > STALLED) session.loseIfStalled();
        await cancelOnServer(this.#options.server, backend.pid, backend.key);
        if (needed()) await new Promise((resolve) => setTimeout(resolve, CANCEL_INTERVAL));
      }
    };
    void attempt().finally(() => {
      state.done = true;
      session.engine.resume();
    });
    return state;
  }

  #classifier(database: string): Classifier {
    const known = this.#classifiers.get(database);
    if (known !== undefined) return known;
    const classifier = new Classifier(
      () => this.#options.safety(database),
      this.#options.commits.advisoryLocks !== undefined,
    );
    this.#classifiers.set(database, classifier);
    return classifier;
  }
}

/** Milliseconds between cancel requests for one statement. */
const CANCEL_INTERVAL = 20;
/** Milliseconds of them in vain after which a session ends whose client does not take what it is sent. */
const STALLED = 1000;

const keyOf = (pid: number, key: Buffer): string => `${pid} ${key.toString('latin1')}`;

const socketOf = (connection: Socket | ServerConnection): Socket =>
  connection instanceof ServerConnection ? connection.socket : connection;

/** A walsender connection is none of the cluster's business. */
function relay(client: Socket, server: Socket): void {
  client.pipe(server);
  server.pipe(client);
  client.on('close', () => server.destroy());
  server.on('error', () => client.destroy());
  server.on('close', () => client.destroySoon());
}
