import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, createServer } from 'node:net';
import type { Server, Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { createInterface } from 'node:readline';
import { z } from 'zod';
import { DevError, errorCode, reason } from './dev-error.ts';
import { replaceFile } from './directory.ts';
import type { PlaygroundDirectory } from './directory.ts';
import type { Partition } from './relay-mesh.ts';
import type { ServiceState } from './service.ts';

/**
 * How the commands speak to the playground that runs in the foreground: one line of JSON each way over a unix socket.
 */
const node = z.number().int();
export const WHATS = ['proxy', 'postgres', 'both'] as const;
const requestSchema = z.discriminatedUnion('command', [
  z.object({ command: z.literal('status') }),
  z.object({ command: z.literal('heal') }),
  z.object({ command: z.literal('down') }),
  z.object({ command: z.enum(['kill', 'start', 'pause', 'resume']), node, what: z.enum(WHATS) }),
  z.object({ command: z.literal('delay'), node, milliseconds: z.number().min(0) }),
  z.object({
    command: z.literal('partition'),
    groups: z.array(z.array(node)),
    oneWay: z.boolean(),
    reset: z.boolean(),
  }),
]);
export type Request = z.output<typeof requestSchema>;
export type What = (typeof WHATS)[number];

export interface NodeStatus {
  readonly id: number;
  /** Null for a witness, which has neither clients nor a PostgreSQL. */
  readonly uri: string | null;
  readonly metrics: string;
  readonly postgresPort: number | null;
  readonly proxy: ServiceState;
  readonly postgres: ServiceState | null;
}

export interface PlaygroundStatus {
  readonly phase: 'starting' | 'up' | 'stopping';
  /** The process that owns the playground. */
  readonly pid: number;
  readonly dir: string;
  readonly partition: Partition | null;
  readonly nodes: readonly NodeStatus[];
}

export type Reply =
  | { readonly ok: true; readonly text: string; readonly status: PlaygroundStatus }
  | { readonly ok: false; readonly error: string };

/** A unix socket's path must fit into sun_path: 108 bytes on Linux, 104 elsewhere, its final NUL included. */
const MAX_SOCKET_PATH = 100;

/** Whether a socket of that path can be made. */
function fitsSocketPath(path: string): boolean {
  return Buffer.byteLength(path) <= MAX_SOCKET_PATH;
}

/** A new directory of ours with a path short enough for sockets in it. */
export function shortTempDirectory(reachable: (directory: string) => boolean = () => true): string {
  const parent = [tmpdir(), '/tmp'].find(
    (path) => fitsSocketPath(join(path, 'pgmm-XXXXXX/.s.PGSQL.65535')) && reachable(path),
  );
  if (parent === undefined)
    throw new DevError(`${tmpdir()} is too long a path for a socket, or closed: set TMPDIR to another`);
  return mkdtempSync(join(parent, 'pgmm-'));
}

export class ControlServer {
  readonly #directory: PlaygroundDirectory;
  readonly #handle: (request: Request) => Promise<Reply>;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  readonly #answers = new Set<Promise<void>>();
  #socketPath: string | undefined;

  constructor(directory: PlaygroundDirectory, handle: (request: Request) => Promise<Reply>) {
    this.#directory = directory;
    this.#handle = handle;
    this.#server = createServer((socket) => {
      this.#sockets.add(socket);
      socket.on('close', () => this.#sockets.delete(socket));
      socket.on('error', () => socket.destroy()); // the asker went away
      this.#serve(socket);
    });
  }

  /** Takes the directory: from here on another playground is refused there. */
  async listen(): Promise<void> {
    const status = await askRunning(this.#directory, { command: 'status' });
    if (status !== undefined) {
      const pid = status.ok ? ` (process ${status.status.pid})` : '';
      throw new DevError(
        `a playground is running in ${this.#directory.path} already${pid}: stop it with \`pgmm dev down\`, or choose another --dir`,
      );
    }
    const near = join(this.#directory.path, 'control.sock');
    const path = fitsSocketPath(near) ? near : join(shortTempDirectory(), 'control.sock');
    rmSync(path, { force: true }); // left by a playground that was killed
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(path, resolve);
    });
    this.#socketPath = path;
    replaceFile(this.#directory.controlPathFile, `${path}\n`);
  }

  /** Answers what has been asked, then gives the directory back. */
  async close(): Promise<void> {
    if (this.#socketPath === undefined) return;
    this.#server.close();
    await Promise.all(this.#answers);
    for (const socket of this.#sockets) socket.end();
    rmSync(this.#directory.controlPathFile, { force: true });
    rmSync(this.#socketPath, { force: true });
    if (dirname(this.#socketPath) !== this.#directory.path) rmSync(dirname(this.#socketPath), { recursive: true });
  }

  #serve(socket: Socket): void {
    createInterface({ input: socket }).on('line', (line) => {
      const answer = this.#answer(line).then((reply) => {
        if (!socket.destroyed) socket.write(`${JSON.stringify(reply)}\n`);
        this.#answers.delete(answer);
      });
      this.#answers.add(answer);
    });
  }

  async #answer(line: string): Promise<Reply> {
    try {
      return await this.#handle(requestSchema.parse(JSON.parse(line)));
    } catch (error) {
      return { ok: false, error: reason(error) };
    }
  }
}

/** The playground's answer; undefined when none is running in that directory. */
export async function askRunning(directory: PlaygroundDirectory, request: Request): Promise<Reply | undefined> {
  if (!existsSync(directory.controlPathFile)) return undefined;
  const path = readFileSync(directory.controlPathFile, 'utf8').trim();
  return await new Promise((resolve, reject) => {
    const socket = connect(path, () => socket.write(`${JSON.stringify(request)}\n`));
    let received = '';
    socket.setEncoding('utf8');
    socket.on('data', (text: string) => {
      received += text;
      if (!received.includes('\n')) return;
      resolve(JSON.parse(received) as Reply);
      socket.end();
    });
    socket.on('close', () => reject(new DevError('the playground ended before it answered')));
    socket.on('error', (error) => {
      if (['ECONNREFUSED', 'ENOENT'].includes(errorCode(error) ?? '')) resolve(undefined);
      else reject(new DevError(`the playground can't be asked: ${error.message}`));
    });
  });
}

/** As `askRunning`, for a request that makes no sense without a playground. */
export async function ask(directory: PlaygroundDirectory, request: Request): Promise<Extract<Reply, { ok: true }>> {
  const reply = await askRunning(directory, request);
  if (reply === undefined) {
    throw new DevError(
      `no playground is running in ${directory.path}: start one with \`pgmm dev up\`, or give its --dir`,
    );
  }
  if (!reply.ok) throw new DevError(reply.error);
  return reply;
}
