import { createHash, randomBytes } from 'node:crypto';
import { chmodSync, existsSync, lstatSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { z } from 'zod';
import { DevError, reason } from './dev-error.ts';
import { canReach } from './run-user.ts';
import type { RunUser } from './run-user.ts';

const DEFAULT_NAME = 'pgmm-dev';

/** What a playground is from one `up` to the next; the rest follows from it. */
const settingsSchema = z.object({
  /** Those that hold data. */
  nodes: z.number().int(),
  /** Whether one more only votes. */
  witness: z.boolean().default(false),
  /** The URL of a Redis with the third vote. */
  referee: z.string().optional(),
  port: z.number().int(),
  /** Shared by the proxies; made once, so that it is the same when the playground comes up again. */
  secret: z.string(),
});
export type PlaygroundSettings = z.output<typeof settingsSchema>;

/** Undefined: as before, else the default. */
export interface AskedSettings {
  readonly nodes: number | undefined;
  readonly port: number | undefined;
  readonly witness?: boolean | undefined;
  readonly referee?: string | undefined;
}

/** The numbers of all its nodes; a witness has the last. */
export function nodeIds({ nodes, witness }: Pick<PlaygroundSettings, 'nodes' | 'witness'>): number[] {
  return Array.from({ length: nodes + (witness ? 1 : 0) }, (_, index) => index + 1);
}

/** The files of a playground. */
export class PlaygroundDirectory {
  readonly path: string;

  constructor(path: string) {
    this.path = resolve(path);
  }

  get settingsFile(): string {
    return join(this.path, 'playground.json');
  }
  get clusterFile(): string {
    return join(this.path, 'cluster.json');
  }
  /** Holds the path of the socket through which the running playground is spoken to. */
  get controlPathFile(): string {
    return join(this.path, 'control.path');
  }

  node(id: number): {
    dir: string;
    postgresData: string;
    postgresLog: string;
    proxyData: string;
    proxyLog: string;
    config: string;
  } {
    const dir = join(this.path, `node${id}`);
    return {
      dir,
      postgresData: join(dir, 'data'),
      postgresLog: join(dir, 'postgres.log'),
      proxyData: join(dir, 'pgmm'),
      proxyLog: join(dir, 'proxy.log'),
      config: join(dir, 'pgmm.yaml'),
    };
  }

  settings(): PlaygroundSettings | undefined {
    if (!existsSync(this.settingsFile)) return undefined;
    try {
      return settingsSchema.parse(JSON.parse(readFileSync(this.settingsFile, 'utf8')));
    } catch (error) {
      throw new DevError(`${this.settingsFile} can't be read: ${reason(error)}`);
    }
  }

  /** The settings to use: what is asked for, else what was used before, else the defaults. */
  decideSettings(asked: AskedSettings): PlaygroundSettings {
    const before = this.settings();
    if (before !== undefined && asked.nodes !== undefined && asked.nodes !== before.nodes) {
      throw new DevError(
        `${this.path} holds a playground of ${before.nodes} nodes: leave out --nodes ${asked.nodes}, ` +
          'choose another --dir, or remove the directory to begin anew',
      );
    }
    const nodes = before?.nodes ?? asked.nodes ?? 3;
    const witness = (asked.witness ?? false) || (before?.witness ?? false);
    const referee = asked.referee ?? before?.referee;
    if (referee !== undefined && (nodes !== 2 || witness))
      throw new DevError('a referee is for exactly two nodes and no witness: give --nodes 2, and not --witness');
    return {
      nodes,
      witness,
      ...(referee !== undefined && { referee }),
      port: asked.port ?? before?.port ?? 6001,
      secret: before?.secret ?? randomBytes(32).toString('hex'),
    };
  }

  saveSettings(settings: PlaygroundSettings): void {
    replaceFile(this.settingsFile, `${JSON.stringify(settings, null, 2)}\n`, 0o600);
  }

  /**
   * Makes the directories. The servers' user must be able to pass through them whatever the umask is; what is secret
   * in them is closed file by file.
   */
  create(nodes: readonly number[], user: RunUser | undefined): void {
    const isNew = !existsSync(this.path);
    mkdirSync(this.path, { recursive: true });
    if (isNew) chmodSync(this.path, 0o755);
    if (!canReach(user, this.path)) {
      if (isNew) rmSync(this.path, { recursive: true });
      throw new DevError(unreachable(this.path, user));
    }
    for (const id of nodes) {
      const { dir, proxyData } = this.node(id);
      mkdirSync(dir, { recursive: true });
      chmodSync(dir, 0o755);
      mkdirSync(proxyData, { recursive: true, mode: 0o700 });
    }
  }
}

function unreachable(path: string, user: RunUser | undefined): string {
  const name = user?.name ?? 'of the servers';
  return (
    `PostgreSQL can't run as root, so it runs as user ${name}, and that user can't reach ${path}: ` +
    'choose a --dir below a directory that others may enter, such as /var/tmp, or open the directories above it (chmod o+x)'
  );
}

/**
 * Where a playground is when no --dir is given: ./pgmm-dev, or where the servers' user can't reach that, a directory
 * under /var/tmp that belongs to this working directory. All commands find the same one.
 */
export function defaultDirectory(user: RunUser | undefined, cwd = process.cwd()): { path: string; elsewhere: boolean } {
  const here = join(cwd, DEFAULT_NAME);
  if (user === undefined || canReach(user, here)) return { path: here, elsewhere: false };
  const tag = createHash('sha256').update(cwd).digest('hex').slice(0, 8);
  const path = join('/var/tmp', `${DEFAULT_NAME}-${basename(cwd)}-${tag}`);
  const found = lstatSync(path, { throwIfNoEntry: false });
  if (found !== undefined && (!found.isDirectory() || found.uid !== process.getuid?.())) {
    throw new DevError(`${path} belongs to someone else: choose a directory with --dir`);
  }
  return { path, elsewhere: true };
}

/** Writes a file so that a reader finds the old content or the new, never a part. */
export function replaceFile(file: string, content: string, mode = 0o644): void {
  const unfinished = `${file}.${process.pid}.unfinished`;
  writeFileSync(unfinished, content, { mode });
  renameSync(unfinished, file);
}
