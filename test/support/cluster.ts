import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { existsSync, readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { devCommand } from '../../src/cli/dev.ts';
import { askRunning } from '../../src/cli/dev/control.ts';
import type { PlaygroundStatus } from '../../src/cli/dev/control.ts';
import { PlaygroundDirectory } from '../../src/cli/dev/directory.ts';
import { freeFirstPort } from './free-ports.ts';
import { makeTempDir, removeTempDir } from './temp-dir.ts';
import { waitFor } from './wait-for.ts';

const ROOT = fileURLToPath(new URL('../../', import.meta.url));
const TSX = ['--import', import.meta.resolve('tsx')];
const READY_TIMEOUT_MS = 180_000;

export interface ClusterOptions {
  readonly nodes?: number;
  /** One more node that only votes. */
  readonly witness?: boolean;
  /** The URL of a Redis with the third vote. */
  readonly referee?: string;
  /** Stand-ins instead of proxies: they pass clients through to their PostgreSQL and do nothing else. */
  readonly stub?: boolean;
  readonly postgresBin?: string | undefined;
  /** False: the nodes reach each other directly, and nothing can be partitioned. */
  readonly relays?: boolean;
  /** A directory that was used before; by default a fresh one, which `stop` removes. */
  readonly dir?: string;
  readonly firstPort?: number;
  readonly env?: NodeJS.ProcessEnv;
  /** Settings of the proxies that differ from the playground's. */
  readonly settings?: Readonly<Record<string, unknown>>;
  /** The words before its command, such as those that run it in a network namespace. */
  readonly within?: readonly string[];
}

export interface ClusterNode {
  readonly id: number;
  /** Of the proxy; what an application would use. */
  readonly uri: string;
  readonly metrics: string;
  readonly postgresPort: number;
  /** Of the PostgreSQL behind the proxy: for a look at the node's own state. */
  readonly postgresUri: string;
  readonly pids: { readonly proxy: number | null; readonly postgres: number | null };
}

/** A `pgmm dev up` that runs as a process of its own. */
export class TestCluster {
  readonly dir: string;
  readonly nodes: number;
  readonly firstPort: number;
  readonly #ownsDir: boolean;
  readonly #process: ChildProcess;
  readonly #onExit: () => void;
  #output = '';

  private constructor(process: ChildProcess, dir: string, firstPort: number, nodes: number, ownsDir: boolean) {
    this.dir = dir;
    this.firstPort = firstPort;
    this.nodes = nodes;
    this.#ownsDir = ownsDir;
    this.#process = process;
    const keep = (bytes: Buffer): void => {
      this.#output += bytes.toString();
    };
    process.stdout?.on('data', keep);
    process.stderr?.on('data', keep);
    // The playground's children are in sessions of their own: only it can end them.
    this.#onExit = () => process.kill('SIGINT');
    globalThis.process.once('exit', this.#onExit);
    process.once('exit', () => globalThis.process.off('exit', this.#onExit));
  }

  static async start(options: ClusterOptions = {}): Promise<TestCluster> {
    const nodes = options.nodes ?? 3;
    const firstPort = options.firstPort ?? (await freeFirstPort(nodes + (options.witness === true ? 1 : 0)));
    const dir = options.dir ?? makeTempDir('cluster');
    const bin = options.postgresBin ?? process.env['PGMM_TEST_POSTGRES_BIN'];
    const args = ['dev', 'up', '--dir', dir, '--port', String(firstPort), '--nodes', String(nodes)];
    if (bin !== undefined) args.push('--postgres-bin', bin);
    if (options.witness === true) args.push('--witness');
    if (options.referee !== undefined) args.push('--referee', options.referee);
    if (options.relays === false) args.push('--no-relays');
    const stub = {
      PGMM_DEV_PROXY_COMMAND: JSON.stringify([process.execPath, ...TSX, inRoot('test/support/stub-proxy.ts')]),
    };
    const other = options.settings !== undefined && {
      PGMM_DEV_PROXY_COMMAND: JSON.stringify([process.execPath, ...TSX, inRoot('test/support/proxy-with.ts'), 'run']),
      PGMM_TEST_CONFIG: JSON.stringify(options.settings),
      PGMM_TEST_MAIN: program(false).at(-1),
    };
    const [command, ...words] = [
      ...(options.within ?? []),
      process.execPath,
      ...program(options.stub === true),
      ...args,
    ];
    const child = spawn(command, words, {
      cwd: ROOT,
      env: { ...process.env, ...(options.stub === true ? stub : {}), ...other, ...options.env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    return new TestCluster(child, dir, firstPort, nodes, options.dir === undefined);
  }

  /** All that `up` has printed. */
  get output(): string {
    return this.#output;
  }

  get pid(): number {
    return this.#process.pid!;
  }

  get hasEnded(): boolean {
    return this.#process.exitCode !== null || this.#process.signalCode !== null;
  }

  /** Waits until every node serves. */
  async ready(): Promise<this> {
    const probe = async (): Promise<boolean> => this.hasEnded || (await this.#phase()) === 'up';
    await waitFor('the playground comes up', probe, { timeoutMs: READY_TIMEOUT_MS, describe: () => this.#output });
    if (this.hasEnded) throw new Error(`the playground ended before it was up:\n${this.#output}`);
    return this;
  }

  /** A node's addresses and process numbers as they are now. */
  node(id: number): ClusterNode {
    const text = readFileSync(new PlaygroundDirectory(this.dir).clusterFile, 'utf8');
    const { nodes } = JSON.parse(text) as { nodes: Omit<ClusterNode, 'postgresUri'>[] };
    const node = nodes.find((one) => one.id === id);
    if (node === undefined) throw new Error(`no node ${id} in ${text}`);
    return { ...node, postgresUri: `postgresql://postgres@127.0.0.1:${node.postgresPort}/postgres` };
  }

  /** Where the witness shows its state. */
  get witnessStatus(): URL {
    const { witnesses } = JSON.parse(readFileSync(new PlaygroundDirectory(this.dir).clusterFile, 'utf8')) as {
      witnesses: { metrics: string }[];
    };
    return new URL('/status', witnesses[0].metrics);
  }

  /** What a node's proxy or PostgreSQL has logged. */
  log(id: number, of: 'proxy' | 'postgres'): string {
    const { proxyLog, postgresLog } = new PlaygroundDirectory(this.dir).node(id);
    return readFileSync(of === 'proxy' ? proxyLog : postgresLog, 'utf8');
  }

  /** Runs a `pgmm dev` command on this playground, such as `dev('kill', '2', 'proxy')`; returns what it prints. */
  async dev(...args: string[]): Promise<string> {
    const lines: string[] = [];
    const failures: unknown[] = [];
    const command = devCommand({ print: (line) => lines.push(line), fail: (error) => failures.push(error) });
    // Commander would end the process on a wrong argument.
    for (const one of [command, ...command.commands]) one.exitOverride().configureOutput({ writeErr: () => undefined });
    await command.parseAsync([...args, '--dir', this.dir], { from: 'user' });
    if (failures.length > 0) throw failures[0];
    return lines.join('\n');
  }

  async status(): Promise<PlaygroundStatus> {
    return JSON.parse(await this.dev('status', '--json')) as PlaygroundStatus;
  }

  /** Sends the foreground process a signal and waits for its end; returns its exit code. */
  async end(signal: NodeJS.Signals = 'SIGINT'): Promise<number | null> {
    if (!this.hasEnded) this.#process.kill(signal);
    return await this.ended();
  }

  /** Waits for the foreground process to end by itself; returns its exit code. */
  async ended(): Promise<number | null> {
    await waitFor('the playground ends', () => this.hasEnded, { timeoutMs: 60_000, describe: () => this.#output });
    return this.#process.exitCode;
  }

  /** Stops all that runs, and removes the directory if it was made for this cluster. */
  async stop(): Promise<void> {
    await this.end();
    if (this.#ownsDir) removeTempDir(this.dir);
  }

  async #phase(): Promise<PlaygroundStatus['phase'] | undefined> {
    const reply = await askRunning(new PlaygroundDirectory(this.dir), { command: 'status' });
    return reply?.ok === true ? reply.status.phase : undefined;
  }
}

/** Starts a playground; `await (await startCluster()).ready()` to use it. */
export async function startCluster(options: ClusterOptions = {}): Promise<TestCluster> {
  return await TestCluster.start(options);
}

/** The built program if it is up to date, which starts quicker; else the sources through tsx. */
function program(stub: boolean): string[] {
  if (stub) return [...TSX, inRoot('test/support/pgmm-dev.ts')];
  const built = inRoot('dist/main.js');
  if (existsSync(built) && statSync(built).mtimeMs >= newest(inRoot('src'))) return [built];
  return [...TSX, inRoot('src/main.ts')];
}

function newest(dir: string): number {
  const files = readdirSync(dir, { recursive: true, encoding: 'utf8' }).filter((name) => name.endsWith('.ts'));
  return Math.max(...files.map((name) => statSync(join(dir, name)).mtimeMs));
}

function inRoot(path: string): string {
  return join(ROOT, path);
}
