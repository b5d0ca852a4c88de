import { execFile } from 'node:child_process';
import {
  appendFileSync,
  chownSync,
  existsSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import pg from 'pg';
import { serverEnvironment } from './binaries.ts';
import type { PostgresBinaries } from './binaries.ts';
import { Child } from './child.ts';
import { DevError, reason } from './dev-error.ts';
import { HOST } from './ports.ts';
import { asUser } from './run-user.ts';
import type { RunUser } from './run-user.ts';
import { Service } from './service.ts';

export interface PostgresServerOptions {
  readonly name: string;
  readonly binaries: PostgresBinaries;
  readonly user: RunUser | undefined;
  readonly dataDir: string;
  readonly logFile: string;
  readonly port: number;
  /** Where its unix socket goes; none when undefined. */
  readonly socketDir: string | undefined;
  readonly settings: Readonly<Record<string, string>>;
}

const SETTINGS_FILE = 'pgmm-dev.conf';
const SUPERUSER = 'postgres';
const ORPHANS_TIMEOUT_MS = 10_000;

/** What a node's PostgreSQL needs to be a member of a cluster, and nothing that makes it look faster than it is. */
export function nodeSettings(major: number): Record<string, string> {
  return {
    wal_level: 'logical',
    max_prepared_transactions: '200',
    max_wal_senders: '20',
    max_replication_slots: '40',
    ...(major >= 18 ? { max_active_replication_origins: '40' } : {}),
    max_connections: '200',
    track_commit_timestamp: 'on',
    shared_buffers: '128MB',
  };
}

/** One PostgreSQL server: its data directory, its settings, its processes. */
export class PostgresServer extends Service {
  readonly port: number;
  readonly #options: PostgresServerOptions;

  // Fast shutdown, then immediate shutdown; SIGKILL follows by itself.
  protected readonly stopSteps = [
    { signal: 'SIGINT', waitMs: 15_000 },
    { signal: 'SIGQUIT', waitMs: 5_000 },
  ] as const;

  constructor(options: PostgresServerOptions) {
    super(options.name, options.logFile);
    this.#options = options;
    this.port = options.port;
  }

  /** Where the proxy beside it connects: a unix socket costs less than TCP. */
  get localHost(): string {
    return this.#options.socketDir ?? HOST;
  }

  /**
   * After a crash of the first process its children may live for a moment more, and hold the shared memory that a new
   * server would take over. PostgreSQL refuses to start then, and is asked again.
   */
  override async start(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const deadline = performance.now() + ORPHANS_TIMEOUT_MS;
    for (;;) {
      try {
        await super.start(timeoutMs, signal);
        return;
      } catch (error) {
        const orphans = this.state === 'stopped' && /pre-existing shared memory block/.test(reason(error));
        if (!orphans || performance.now() > deadline) throw error;
        await sleep(200, undefined, { signal });
      }
    }
  }

  /** Makes the data directory unless it is there. It gets its name when it is complete, so half of one is never used. */
  async init(signal?: AbortSignal): Promise<void> {
    const { dataDir, binaries } = this.#options;
    if (existsSync(dataDir)) {
      const major = readFileSync(join(dataDir, 'PG_VERSION'), 'utf8').trim();
      if (major === String(binaries.major)) return;
      throw new DevError(
        `${dataDir} was made by PostgreSQL ${major}, and this is ${binaries.version}: use the same (--postgres-bin), or another --dir`,
      );
    }
    const unfinished = `${dataDir}.unfinished`;
    try {
      await this.#initdb(unfinished, 'C.UTF-8', signal);
    } catch (error) {
      if (!/invalid locale name|locale name .* not/.test(reason(error))) throw error;
      await this.#initdb(unfinished, 'C', signal);
    }
    appendFileSync(join(unfinished, 'postgresql.conf'), `\ninclude '${SETTINGS_FILE}'\n`);
    renameSync(unfinished, dataDir);
  }

  async #initdb(directory: string, locale: string, signal: AbortSignal | undefined): Promise<void> {
    const { binaries, user } = this.#options;
    rmSync(directory, { recursive: true, force: true });
    mkdirSync(directory, { mode: 0o700 });
    if (user !== undefined) chownSync(directory, user.uid, user.gid);
    const args = ['-D', directory, '-U', SUPERUSER, '--auth=trust', '-E', 'UTF8', `--locale=${locale}`];
    try {
      await promisify(execFile)(binaries.initdb, args, { ...asUser(user), cwd: '/', env: serverEnvironment(), signal });
    } catch (error) {
      const said = error instanceof Error && 'stderr' in error ? String(error.stderr).trim() : '';
      throw new DevError(`initdb failed for ${this.name}: ${said === '' ? reason(error) : said}`);
    }
  }

  protected async launch(): Promise<Child> {
    const { binaries, user, dataDir, logFile, port, socketDir, settings } = this.#options;
    const all = {
      port: String(port),
      listen_addresses: HOST,
      unix_socket_directories: socketDir ?? '',
      log_line_prefix: '%m [%p] ',
      ...settings,
    };
    const lines = Object.entries(all).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'`);
    writeFileSync(join(dataDir, SETTINGS_FILE), `# Written at each start.\n${lines.join('\n')}\n`);
    return await Child.spawn({
      command: binaries.postgres,
      args: ['-D', dataDir],
      env: serverEnvironment(),
      logFile,
      user,
    });
  }

  protected async ready(): Promise<boolean> {
    const client = new pg.Client({
      host: HOST,
      port: this.port,
      user: SUPERUSER,
      database: 'postgres',
      connectionTimeoutMillis: 2000,
    });
    client.on('error', () => undefined);
    try {
      await client.connect();
      await client.query('SELECT 1');
      return true;
    } finally {
      await client.end().catch(() => undefined);
    }
  }
}
