import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { RefereeMemory } from '../core/referee-setup.ts';
import { nodeDisk } from '../disk.ts';
import type { LogIndex } from '../../runtime/ids.ts';

const FILE = 'referee.json';

export const NOTHING_REMEMBERED: RefereeMemory = { id: null, term: 0, lastTerm: 0, lastIndex: 0 as LogIndex };

/** What this node remembers of the referee, in its `data_dir`. */
export class MemoryFile {
  readonly #directory: string;
  #current: RefereeMemory;

  constructor(directory: string) {
    this.#directory = directory;
    this.#current = read(join(directory, FILE));
  }

  get current(): RefereeMemory {
    return this.#current;
  }

  /** Durable when it resolves, and true of this process at once. */
  async save({ id, term, lastTerm, lastIndex }: RefereeMemory): Promise<void> {
    this.#current = { id, term, lastTerm, lastIndex };
    const path = join(this.#directory, FILE);
    const file = await nodeDisk.open(`${path}.new`, true);
    try {
      file.write(Buffer.from(`${JSON.stringify(this.#current)}\n`), 0);
      await file.sync();
    } finally {
      await file.close();
    }
    await nodeDisk.rename(`${path}.new`, path);
    await nodeDisk.syncDirectory(this.#directory);
  }
}

/** Throws on a file that can't be understood: it must not be taken for one that was never there. */
function read(path: string): RefereeMemory {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as RefereeMemory;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return NOTHING_REMEMBERED;
    throw new Error(`${path} is damaged: ${(error as Error).message}`, { cause: error });
  }
}
