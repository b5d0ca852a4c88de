import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { delimiter, join } from 'node:path';
import { Redis } from 'ioredis';
import { freePort } from './free-ports.ts';
import { makeTempDir, removeTempDir } from './temp-dir.ts';
import { waitFor } from './wait-for.ts';

const HOST = '127.0.0.1';
/** What a referee asks for. */
const GOOD = { appendonly: 'yes', appendfsync: 'always' };

/** A redis-server of its own process, port and directory. */
export class TestRedis {
  readonly port: number;
  readonly #dir: string;
  readonly #settings: Readonly<Record<string, string>>;
  readonly #arguments: readonly string[];
  #process: ChildProcess | undefined;

  private constructor(port: number, settings: Readonly<Record<string, string>>, extra: readonly string[]) {
    this.port = port;
    this.#dir = makeTempDir('redis');
    this.#settings = { ...GOOD, ...settings };
    this.#arguments = extra;
  }

  /** `extra`: arguments as they are, such as `--sentinel`. */
  static async start(settings: Record<string, string> = {}, extra: readonly string[] = []): Promise<TestRedis> {
    const redis = new TestRedis(await freePort(), settings, extra);
    await redis.start();
    return redis;
  }

  /** A Sentinel has a file of its own, which it writes to as well. */
  static async startSentinel(file: string, port: number): Promise<TestRedis> {
    const sentinel = new TestRedis(port, {}, []);
    await sentinel.#launch([file, '--sentinel']);
    return sentinel;
  }

  get url(): string {
    return `redis://${HOST}:${this.port}`;
  }

  get dir(): string {
    return this.#dir;
  }

  /** Starts it, again perhaps, with what its append-only file has. */
  async start(): Promise<void> {
    const settings = Object.entries(this.#settings).flatMap(([name, value]) => [`--${name}`, value]);
    const place = ['--port', String(this.port), '--bind', HOST, '--dir', this.#dir, '--save', ''];
    await this.#launch([...place, ...settings, ...this.#arguments]);
  }

  async #launch(args: readonly string[]): Promise<void> {
    const child = spawn(program(), args, { stdio: ['ignore', 'pipe', 'pipe'] });
    this.#process = child;
    let output = '';
    for (const stream of [child.stdout, child.stderr])
      stream.on('data', (bytes: Buffer) => (output += bytes.toString()));
    await waitFor('redis-server answers', () => child.exitCode !== null || this.ask('PING').then(() => true, isReply), {
      timeoutMs: 30_000,
      describe: () => output,
    });
    if (child.exitCode !== null) throw new Error(`redis-server ended at once:\n${output}`);
  }

  /** One command over a connection of its own. */
  async ask(command: string, ...args: string[]): Promise<unknown> {
    const client = new Redis({
      ...{ host: HOST, port: this.port, password: this.#settings['requirepass'] ?? '', protocol: 2 },
      ...{ lazyConnect: true, retryStrategy: () => null, enableReadyCheck: false, maxRetriesPerRequest: 0 },
      disableClientInfo: true,
    });
    client.on('error', () => undefined);
    try {
      await client.connect();
      return await client.call(command, args);
    } finally {
      client.disconnect();
    }
  }

  async kill(): Promise<void> {
    const child = this.#process;
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  pause(): void {
    this.#process?.kill('SIGSTOP');
  }

  resume(): void {
    this.#process?.kill('SIGCONT');
  }

  async stop(): Promise<void> {
    await this.kill();
    removeTempDir(this.#dir);
  }
}

/** A server that refuses the command is there. */
const isReply = (error: unknown): boolean => (error as Error).name === 'ReplyError';

function program(): string {
  for (const dir of (process.env['PATH'] ?? '').split(delimiter)) {
    const path = join(dir, 'redis-server');
    try {
      accessSync(path, constants.X_OK);
      return path;
    } catch {
      continue;
    }
  }
  throw new Error('redis-server is not installed, and the tests of the referee need it: apt-get install redis-server');
}
