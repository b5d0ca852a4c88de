import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { BackupReceiver } from '../../replication/base-backup/backup-receiver.ts';
import type { Manifest } from '../../replication/base-backup/manifest.ts';
import type { Tablespace } from '../../replication/base-backup/tablespaces.ts';
import type { CopyRequest } from '../messages.ts';
import type { CopyReceiver, CopyTarget } from './copy-target.ts';
import type { DataDirectory } from './data-directory.ts';
import { checkRoom } from './room.ts';

type PlaceTablespaces = (donors: readonly Tablespace[]) => Promise<readonly Tablespace[]>;

/** A copy of the donor's data directory, beside this node's. */
export class PhysicalTarget implements CopyTarget {
  readonly method = 'physical';
  readonly #data: DataDirectory;
  readonly #databases: readonly string[];
  readonly #placeTablespaces: PlaceTablespaces;

  /** `placeTablespaces` tells where the donor's tablespaces go on this node. Rejects with the reason where one can't. */
  constructor(data: DataDirectory, databases: readonly string[], placeTablespaces: PlaceTablespaces) {
    this.#data = data;
    this.#databases = databases;
    this.#placeTablespaces = placeTablespaces;
  }

  get place(): string {
    return this.#data.copy;
  }

  isDue(): Promise<boolean> {
    return this.#data.isDue();
  }

  /** PostgreSQL is stopped for it in any case. */
  isReady(): Promise<boolean> {
    return Promise.resolve(true);
  }

  /** From the disk: PostgreSQL may not run. */
  async request(): Promise<CopyRequest> {
    const version = await readFile(join(this.#data.path, 'PG_VERSION'), 'utf8');
    const major = Number.parseInt(version, 10);
    return { method: this.method, major, architecture: process.arch, databases: this.#databases };
  }

  discard(): Promise<void> {
    return this.#data.discardCopy();
  }

  async begin(total: number): Promise<CopyReceiver> {
    await this.#data.beginCopy();
    const receiver = new BackupReceiver(this.#data.copy, async (found) => {
      const places = found.length === 0 ? [] : await this.#placeTablespaces(found);
      const directories = await this.#data.beginTablespaces(places);
      await checkRoom(total, [this.#data.copy, ...directories.values()]);
      return directories;
    });
    let manifest: Manifest = [];
    return {
      push: (bytes) => receiver.push(bytes),
      finish: async () => {
        manifest = await receiver.finish();
      },
      complete: () => this.#data.completeCopy(manifest),
      abandon: () => receiver.abandon(),
    };
  }
}
