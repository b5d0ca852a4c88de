import { once } from 'node:events';
import { Unpack } from 'tar';
import { manifestReader, type Manifest } from './manifest.ts';

const CHUNK = { archive: 0x6e, data: 0x64, manifest: 0x6d, progress: 0x70 } as const;
const MAIN_ARCHIVE = 'base.tar';

/**
 * Takes what BASE_BACKUP sends ("Streaming Replication Protocol"), framed as `BaseBackup` does, and unpacks it into a directory. The directory
 * is not to be used before `finish` has given the manifest and what it says has been verified.
 */
export class BackupReceiver {
  readonly #unpack: Unpack;
  readonly #manifest = manifestReader();
  #held = Buffer.alloc(0);
  #inManifest = false;
  #failed: Error | undefined;
  /** Nothing more comes of the archive: it is unpacked, or can't be. */
  readonly #ended: Promise<void>;

  /** `directory` exists and is empty. */
  constructor(directory: string) {
    this.#unpack = new Unpack({ cwd: directory, strict: true, preserveOwner: false, noMtime: true, umask: 0 });
    this.#ended = new Promise((resolve) => {
      this.#unpack.on('close', resolve);
      this.#unpack.on('error', (error: Error) => {
        this.#failed ??= error;
        resolve();
      });
    });
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
      case CHUNK.archive: {
        const name = chunk.toString('utf8', 1, chunk.indexOf(0, 1));
        if (name !== MAIN_ARCHIVE)
          throw new Error(`the copy has a tablespace, ${name}, and tablespaces are not copied`);
        return;
      }
      case CHUNK.manifest:
        this.#inManifest = true;
        return;
      case CHUNK.data:
        if (this.#inManifest) this.#manifest.push(chunk.subarray(1));
        else await this.#write(chunk.subarray(1));
        return;
      case CHUNK.progress:
        return;
      default:
        throw new Error(`BASE_BACKUP sent a message of unknown type ${chunk.at(0)}`);
    }
  }

  async #write(data: Buffer): Promise<void> {
    if (this.#failed !== undefined) throw this.#failed;
    // A chunk is a view into what was received, and the files are written later.
    if (!this.#unpack.write(Buffer.from(data))) await Promise.race([once(this.#unpack, 'drain'), this.#ended]);
  }

  /** All was pushed: resolves when everything is unpacked, with what should be there. */
  async finish(): Promise<Manifest> {
    if (this.#held.length > 0) throw new Error('the copy ended in the middle of a message');
    this.#unpack.end();
    await this.#ended;
    if (this.#failed !== undefined) throw this.#failed;
    return this.#manifest.read();
  }

  /** It is not to be finished. */
  abandon(): void {
    this.#unpack.abort(new Error('abandoned'));
  }
}
