import { chownSync, existsSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { findBinaries } from '../../src/cli/dev/binaries.ts';
import { shortTempDirectory } from '../../src/cli/dev/control.ts';
import { PostgresServer, nodeSettings } from '../../src/cli/dev/postgres-server.ts';
import { HOST } from '../../src/cli/dev/ports.ts';
import { canReach, runUser } from '../../src/cli/dev/run-user.ts';
import { freePort } from './free-ports.ts';
import { makeTempDir, removeTempDir } from './temp-dir.ts';

const DEBIAN_BIN = '/usr/lib/postgresql/15/bin';

/** The programs of the PostgreSQL 15 that Debian installs, the oldest that is supported; undefined where it is missing. */
export const installedBin: string | undefined = existsSync(join(DEBIAN_BIN, 'postgres')) ? DEBIAN_BIN : undefined;

export interface TestPostgresOptions {
  /** Added to what a node's server is given; see nodeSettings. */
  readonly settings?: Readonly<Record<string, string>>;
  /** Another PostgreSQL's programs, such as `installedBin`. By default PGMM_TEST_POSTGRES_BIN, else the one from npm. */
  readonly bin?: string | undefined;
}

/** One bare PostgreSQL server for a test, without a proxy. */
export class TestPostgres {
  readonly server: PostgresServer;
  readonly version: string;
  readonly major: number;
  readonly socketDir: string;
  readonly #dir: string;
  readonly #clients = new Set<pg.Client>();

  constructor(server: PostgresServer, binaries: { version: string; major: number }, dir: string, socketDir: string) {
    this.server = server;
    this.version = binaries.version;
    this.major = binaries.major;
    this.socketDir = socketDir;
    this.#dir = dir;
  }

  get host(): string {
    return HOST;
  }

  get port(): number {
    return this.server.port;
  }

  uri(database = 'postgres'): string {
    return `postgresql://postgres@${HOST}:${this.port}/${database}`;
  }

  /** A connected client; closed by `stop` unless the test has ended it itself. */
  async connect(config: pg.ClientConfig = {}): Promise<pg.Client> {
    const client = new pg.Client({ host: HOST, port: this.port, user: 'postgres', database: 'postgres', ...config });
    // A server that is killed under a client is what many tests do.
    client.on('error', () => undefined);
    await client.connect();
    this.#clients.add(client);
    client.once('end', () => this.#clients.delete(client));
    return client;
  }

  /** SIGKILL, as in a crash; `start` brings it back. */
  async kill(): Promise<void> {
    await this.server.kill();
  }

  async start(): Promise<void> {
    await this.server.start(60_000);
  }

  /** Ends it and removes its data. */
  async stop(): Promise<void> {
    await Promise.all([...this.#clients].map((client) => client.end().catch(() => undefined)));
    await this.server.stop();
    removeTempDir(this.#dir);
    removeTempDir(this.socketDir);
  }
}

export async function startPostgres(options: TestPostgresOptions = {}): Promise<TestPostgres> {
  const user = runUser();
  const bin = options.bin ?? process.env['PGMM_TEST_POSTGRES_BIN'];
  const binaries = await findBinaries({ bin, user, say: console.log });
  const dir = makeTempDir('postgres');
  const socketDir = shortTempDirectory((path) => canReach(user, path));
  if (user !== undefined) chownSync(socketDir, user.uid, user.gid);
  const server = new PostgresServer({
    name: 'the test server',
    binaries,
    user,
    dataDir: join(dir, 'data'),
    logFile: join(dir, 'postgres.log'),
    port: await freePort(),
    socketDir,
    settings: { ...nodeSettings(binaries.major), shared_buffers: '32MB', ...options.settings },
  });
  await server.init();
  await server.start(60_000);
  return new TestPostgres(server, binaries, dir, socketDir);
}
