import pg from 'pg';
import pino from 'pino';
import { formatGid } from '../../src/commit/gid.ts';
import { epoch, logIndex, nodeId, ZERO_LSN } from '../../src/runtime/ids.ts';
import type { Gid, LogIndex } from '../../src/runtime/ids.ts';
import { PgError } from '../../src/runtime/errors.ts';
import type { SessionEvent } from '../../src/session/context.ts';
import { createListener } from '../../src/session/listener.ts';
import type { Listener, ListenerOptions } from '../../src/session/listener.ts';
import type {
  AnnouncedDdl,
  CommitOutcome,
  Commits,
  ConflictVictim,
  ReadLevel,
  ReadNeeds,
  Reads,
  ReadWait,
} from '../../src/session/ports.ts';
import type { SafetyNames } from '../../src/sql/names.ts';
import { Turns, type Turn } from '../../src/commit/turns.ts';
import { LARGE_OBJECTS_SQL } from '../../src/catalog/sql/large-objects.ts';
import { UNSEEN_CHANGES_SQL } from '../../src/catalog/sql/unseen-changes.ts';
import { startPostgres } from '../support/postgres.ts';
import type { TestPostgres, TestPostgresOptions } from '../support/postgres.ts';

/** Reads that wait until `release`, and say what they were for. */
class HeldReads implements Reads {
  level: ReadLevel = 'local';
  holds = false;
  /** Fails what waits. */
  failing: PgError | undefined;
  readonly asked: ReadNeeds[] = [];
  readonly #held: (() => void)[] = [];

  get waiting(): number {
    return this.#held.length;
  }

  wait(needs: ReadNeeds, wake: () => void): ReadWait {
    this.asked.push(needs);
    const wait: { result: ReadWait['result']; cancel(): void } = {
      result: this.failing ?? (this.holds ? undefined : 'ready'),
      cancel: () => {
        wait.result ??= new PgError('57014', 'canceling statement due to user request');
        wake();
      },
    };
    if (wait.result === undefined)
      this.#held.push(() => {
        wait.result ??= 'ready';
        wake();
      });
    return wait;
  }

  release(): void {
    this.holds = false;
    for (const held of this.#held.splice(0)) held();
  }

  token(index?: LogIndex): string {
    return `test:${index ?? 7}`;
  }

  parseToken(text: string): LogIndex | undefined {
    return text.startsWith('test:') ? logIndex(Number(text.slice(5))) : undefined;
  }
}

/** A cluster of one: what is prepared is committed at once, by another connection. Everything can be made to fail. */
class LocalCommits implements Commits {
  readonly prepared: Gid[] = [];
  readonly failures: PgError[] = [];
  readonly revealed = new Set<Gid>();
  /** By the name of a transaction, the one whose priority it should have. */
  readonly seniors = new Map<Gid, Gid | undefined>();
  readonly reads = new HeldReads();
  turns: Pick<Turns, 'enter'> = new Turns(60_000);
  refusing: PgError | undefined;
  refusingReads: PgError | undefined;
  /** Stands for the coordinator's decision; rejects to abort. */
  decide: (gid: Gid) => Promise<CommitOutcome | undefined> = () => Promise.resolve(undefined);
  readonly #pools: pg.Pool;
  #sequence = 0;

  constructor(server: { host: string; port: number }, database: string) {
    this.#pools = new pg.Pool({ ...server, user: 'postgres', database, max: 4 });
    this.#pools.on('error', () => undefined);
  }

  refusal(): PgError | undefined {
    return this.refusing;
  }

  readRefusal(): PgError | undefined {
    return this.refusingReads;
  }

  turn(senior: Gid, wake: () => void): Turn {
    return this.turns.enter(senior, wake);
  }

  allocate(_database: string, senior?: Gid): Gid {
    const gid = formatGid({
      cluster: 'test',
      node: nodeId(1),
      epoch: epoch(1),
      sequence: ++this.#sequence,
      clock: Date.now(),
    });
    this.seniors.set(gid, senior);
    return gid;
  }

  reveal(gid: Gid): void {
    this.revealed.add(gid);
  }

  inDoubt(): readonly object[] {
    return [];
  }

  withdraw(gid: Gid): void {
    this.revealed.delete(gid);
  }

  outcome(name: string): Promise<string> {
    if (this.refusing !== undefined) return Promise.reject(this.refusing);
    return Promise.resolve(this.prepared.includes(name as Gid) ? 'committed' : 'in progress');
  }

  begin(gid: Gid): ReturnType<Commits['begin']> {
    let settle: (outcome: CommitOutcome) => void = () => undefined;
    const outcome = new Promise<CommitOutcome>((resolve) => (settle = resolve));
    const prepared = (error: PgError | undefined): void => {
      if (error === undefined) void this.#finish(gid).then(settle);
      else {
        this.failures.push(error);
        settle({ type: 'aborted', error });
      }
    };
    return { prepared, outcome };
  }

  async #finish(gid: Gid): Promise<CommitOutcome> {
    this.prepared.push(gid);
    const decided = await this.decide(gid);
    const verb = decided === undefined || decided.type === 'committed' ? 'COMMIT' : 'ROLLBACK';
    await this.#pools.query(`${verb} PREPARED '${gid}'`);
    return decided ?? { type: 'committed', index: logIndex(this.#sequence) };
  }

  async end(): Promise<void> {
    await this.#pools.end();
  }
}

export interface SessionProxy {
  readonly postgres: TestPostgres;
  readonly port: number;
  readonly commits: LocalCommits;
  readonly listener: Listener;
  readonly announced: AnnouncedDdl[];
  readonly victims: Map<number, ConflictVictim>;
  readonly events: SessionEvent[];
  /** What the catalog would know. */
  readonly names: { current: SafetyNames };
  connect(config?: pg.ClientConfig): Promise<pg.Client>;
  stop(): Promise<void>;
}

export const NO_NAMES: SafetyNames = { volatileNames: new Set(), taintedRelations: new Set(), hidesLocks: false };

/** A PostgreSQL server and the client-facing part of the proxy before it. */
export async function startSessionProxy(
  postgresOptions: TestPostgresOptions = {},
  options: Partial<ListenerOptions> = {},
): Promise<SessionProxy> {
  const postgres = await startPostgres(postgresOptions);
  const proxy = await startProxyFor(postgres, options);
  return {
    ...proxy,
    stop: async () => {
      await proxy.stop();
      await postgres.stop();
    },
  };
}

export async function startProxyFor(
  postgres: TestPostgres,
  options: Partial<ListenerOptions> = {},
): Promise<SessionProxy> {
  const admin = await postgres.connect();
  await admin.query(
    `CREATE SCHEMA IF NOT EXISTS multimaster; GRANT USAGE ON SCHEMA multimaster TO PUBLIC; ${LARGE_OBJECTS_SQL} ${UNSEEN_CHANGES_SQL}`,
  );
  await admin.end();
  const commits = new LocalCommits({ host: postgres.host, port: postgres.port }, 'postgres');
  const announced: AnnouncedDdl[] = [];
  const victims = new Map<number, ConflictVictim>();
  const events: SessionEvent[] = [];
  const clients = new Set<pg.Client>();
  const names = { current: NO_NAMES };
  const listener = createListener({
    listen: { host: '127.0.0.1', port: 0 },
    server: { host: postgres.socketDir, port: postgres.port },
    databases: ['postgres'],
    commits,
    ddl: {
      announce: (_gid, ordinal, ddl) => {
        announced.push(ddl);
        return { message: JSON.stringify({ ordinal, ...ddl }), token: 'token' };
      },
    },
    locks: { position: () => ZERO_LSN, carry: () => undefined },
    registry: { add: (pid, victim) => void victims.set(pid, victim), remove: (pid) => void victims.delete(pid) },
    safety: () => names.current,
    log: pino({ level: process.env['PGMM_TEST_LOG'] ?? 'silent' }),
    metrics: { count: (event) => void events.push(event), sessions: () => undefined },
    ...options,
  });
  const port = await listener.start();
  return {
    postgres,
    port,
    commits,
    listener,
    announced,
    victims,
    events,
    names,
    connect: async (config = {}) => {
      const client = new pg.Client({ host: '127.0.0.1', port, user: 'postgres', database: 'postgres', ...config });
      client.on('error', () => undefined);
      clients.add(client);
      await client.connect();
      return client;
    },
    stop: async () => {
      await Promise.all([...clients].map((client) => client.end().catch(() => undefined)));
      await listener.stop(1000);
      await commits.end();
    },
  };
}
