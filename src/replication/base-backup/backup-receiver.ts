import { Unpack } from 'tar';
import { drained } from '../../runtime/sockets.ts';
import { manifestReader, type Manifest } from './manifest.ts';
import { readTablespaces, type Tablespace } from './tablespaces.ts';

/** `tablespaces` is `BaseBackup`'s own. */
const CHUNK = { archive: 0x6e, data: 0x64, manifest: 0x6d, progress: 0x70, tablespaces: 0x74 } as const;
const MAIN_ARCHIVE = 'base.tar';
/** Where the donor has its tablespaces is of no use here. PostgreSQL gives such names a slash at the end. */
const TABLESPACE_LINK = /^pg_tblspc\/\d+\/?$/;

/** Gives the directory that each tablespace is to be unpacked in, by OID. */
export type PlaceTablespaces = (tablespaces: readonly Tablespace[]) => Promise<ReadonlyMap<string, string>>;

/**
 * Takes what BASE_BACKUP sends ("Streaming Replication Protocol"), framed as `BaseBackup` does, and unpacks it into a directory. The directory
 * is not to be used before `finish` has given the manifest and what it says has been verified.
 */
export class BackupReceiver {
  readonly #directory: string;
  readonly #place: PlaceTablespaces;
  #places: ReadonlyMap<string, string> | undefined;
  #archive: Archive | undefined;
  readonly #manifest = manifestReader();
  #held = Buffer.alloc(0);
  #inManifest = false;

  /** `directory` exists and is empty. `place` is asked before anything is unpacked. */
  constructor(directory: string, place: PlaceTablespaces) {
    this.#directory = directory;
    this.#place = place;
  }

  /** Resolves when more can be taken. */
  async push(bytes: Buffer): Promise<void> {
    let rest = this.#held.length === 0 ? bytes : Buffer.concat([this.#held, bytes]);
    while (rest.length >= 4 && rest.length - 4 >= rest.readUInt32BE()) {
      const end = 4 + rest.readUInt32BE();
      await this.#chunk(rest.subarray(4, end));
      rest = rest.subarray(end);
    }
    this.#held = Buffer.from(rest);
  }

  async #chunk(chunk: Buffer): Promise<void> {
    switch (chunk.at(0)) {
      case CHUNK.archive:
        await this.#archive?.finish();
        this.#places ??= await this.#place([]);
        this.#archive = new Archive(this.#directoryOf(chunk.toString('utf8', 1, chunk.indexOf(0, 1))));
        return;
      case CHUNK.tablespaces:
        this.#places = await this.#place(readTablespaces(JSON.parse(chunk.toString('utf8', 1))));
        return;
      case CHUNK.manifest:
        this.#inManifest = true;
        return;
      case CHUNK.data:
        if (this.#inManifest) this.#manifest.push(chunk.subarray(1));
        else await this.#archive?.write(chunk.subarray(1));
        return;
      case CHUNK.progress:
        return;
      default:
        throw new Error(`BASE_BACKUP sent a message of unknown type ${chunk.at(0)}`);
    }
  }

  #directoryOf(archive: string): string {
    const oid = /^(\d+)\.tar$/.exec(archive)?.[1];
    const directory = archive === MAIN_ARCHIVE ? this.#directory : this.#places?.get(oid ?? '');
    if (directory === undefined) throw new Error(`the copy has a tablespace that was not announced: ${archive}`);
    return directory;
  }

  /** All was pushed: resolves when everything is unpacked, with what should be there. */
  async finish(): Promise<Manifest> {
    if (this.#held.length > 0) throw new Error('the copy ended in the middle of a message');
    await this.#archive?.finish();
    return this.#manifest.read();
  }

  /** It is not to be finished. */
  abandon(): void {
    this.#archive?.abandon();
  }
}

/** One of the archives that a backup consists of, while it is unpacked. */
class Archive {
  readonly #unpack: Unpack;
  #failed: Error | undefined;
  #isOver = false;
  /** Nothing more comes of it: it is unpacked, or can't be. */
  readonly #ended: Promise<void>;

  constructor(directory: string) {
    this.#unpack = new Unpack({
      ...{ cwd: directory, strict: true, preserveOwner: false, noMtime: true, umask: 0 },
      filter: (path, entry) => !('type' in entry && entry.type === 'SymbolicLink' && TABLESPACE_LINK.test(path)),
    });
    this.#ended = new Promise((resolve) => {
      const end = () => {
        this.#isOver = true;
        resolve();
      };
      this.#unpack.on('close', end);
      this.#unpack.on('error', (error: Error) => {
        this.#failed ??= error;
        end();
      });
    });
  }

  async write(data: Buffer): Promise<void> {
    if (this.#failed !== undefined) throw this.#failed;
    // A chunk is a view into what was received, and the files are written later.
    if (!this.#unpack.write(Buffer.from(data)) && !this.#isOver) await drained(this.#unpack);
  }

  async finish(): Promise<void> {
    this.#unpack.end();
    await this.#ended;
    if (this.#failed !== undefined) throw this.#failed;
  }

  abandon(): void {
    this.#unpack.abort(new Error('abandoned'));
  }
}
