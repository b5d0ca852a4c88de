import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { ControlClient } from '../../replication/control-client.ts';
import { CopyLoader, type TargetServer } from '../../replication/logical-copy/loader.ts';
import type { CopyHeader } from '../../replication/logical-copy/frames.ts';
import { timeOf } from '../../replication/logical-copy/names.ts';
import { dropCopies } from '../../replication/logical-copy/swap.ts';
import { removeDurably, replaceDurably } from '../../runtime/durable-file.ts';
import { faultPoint } from '../../runtime/fault-points.ts';
import type { CopyRequest } from '../messages.ts';
import type { CopyReceiver, CopyTarget } from './copy-target.ts';

/**
 * What is known of a logical copy, in `data_dir`. While it says that the copy is loading, there may be databases that are to be dropped; from when it says
 * that it is complete they are to take the place of the former ones. When they have, that must not be done again: roles may have changed since.
 */
export type LogicalCopyNote =
  | { readonly state: 'loading' }
  | { readonly state: 'complete' | 'placed'; readonly header: CopyHeader; readonly time: string };

/** Its file. */
export const LOGICAL_COPY_NOTE = 'logical-copy.json';

/** Databases that are loaded from a donor's contents, in this node's running PostgreSQL. */
export class LogicalTarget implements CopyTarget {
  readonly method = 'logical';
  readonly place = 'databases named …_pgmm_copy';
  readonly server: TargetServer;
  readonly #path: string;

  /** `directory`: `data_dir` of the proxy. */
  constructor(server: TargetServer, directory: string) {
    this.server = server;
    this.#path = join(directory, LOGICAL_COPY_NOTE);
  }

  /** Undefined while there is no copy. Throws on a file that can't be understood. */
  async note(): Promise<LogicalCopyNote | undefined> {
    try {
      return JSON.parse(await readFile(this.#path, 'utf8')) as LogicalCopyNote;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
      throw new Error(`${this.#path} is damaged: ${(error as Error).message}`, { cause: error });
    }
  }

  async isDue(): Promise<boolean> {
    const note = await this.note();
    return note !== undefined && note.state !== 'loading';
  }

  /** PostgreSQL itself puts it in place. */
  async isReady(): Promise<boolean> {
    return this.request().then(
      () => true,
      () => false,
    );
  }

  async request(): Promise<CopyRequest> {
    const { server, maintenance, databases } = this.server;
    const client = new ControlClient({ ...server, database: maintenance, applicationName: 'pgmm copy' });
    await client.connect();
    try {
      const { rows } = await client.ask<{ major: number }>(
        `SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000 AS major`,
      );
      return { method: this.method, major: rows[0].major, architecture: process.arch, databases };
    } finally {
      await client.end();
    }
  }

  /** Does nothing where no copy was begun, so that PostgreSQL need not be up. */
  async discard(): Promise<void> {
    if ((await this.note()) === undefined) return;
    await dropCopies(this.server);
    await removeDurably(this.#path);
  }

  async begin(): Promise<CopyReceiver> {
    await this.#write({ state: 'loading' });
    await dropCopies(this.server);
    const loader = new CopyLoader(this.server);
    let header: CopyHeader;
    return {
      push: (bytes) => loader.push(bytes),
      finish: async () => {
        header = await loader.finish();
      },
      complete: async () => {
        await this.#write({ state: 'complete', header, time: timeOf(new Date()) });
        faultPoint('copy.noted');
      },
      abandon: () => loader.abandon(),
    };
  }

  /** The databases are where they belong, and have to be made this node's own. */
  placed(note: Extract<LogicalCopyNote, { header: CopyHeader }>): Promise<void> {
    return this.#write({ ...note, state: 'placed' });
  }

  /** The copy is this node's data now. */
  settle(): Promise<void> {
    return removeDurably(this.#path);
  }

  #write(note: LogicalCopyNote): Promise<void> {
    return replaceDurably(this.#path, JSON.stringify(note));
  }
}
