/**
 * The durable half of a voter: term, vote, log entries and snapshot in one directory.
 *
 *     log-0000000001 …   segments of records (log-records.ts), of which the last is written to
 *     snapshot-<index>   the newest snapshot (snapshot-file.ts)
 *     spare.tmp          the next segment, already filled with zeros, so that a sync need not write the file's size
 *
 * Requests made while a sync runs are written together and share the next one. The log isn't kept in memory here: the
 * core has it. One process may use a directory at a time; the caller sees to that.
 *
 * A failed write or sync is final. The kernel may have dropped the pages and reported that once, so a second sync that
 * succeeds would prove nothing: every later request fails with the same error, and the process must be restarted.
 *
 * Not detected: damage within the last batch of the last segment. It looks like a write that a crash cut short.
 */
import { join } from 'node:path';
import type { LogIndex } from '../runtime/ids.ts';
import type { HardState, PersistBatch, Restored, Snapshot } from './core/types.ts';
import { nodeDisk, type Disk, type DiskFile } from './disk.ts';
import { encodeBatch, recordBytes, SEAL_BYTES, type LogRecord } from './log-records.ts';
import { recover, segmentName, type Recovered, type RecoveredSegment } from './log-recovery.ts';
import { readSnapshot, writeSnapshot } from './snapshot-file.ts';

export type AppendRequest = Omit<PersistBatch, 'seq'>;

/** What the driver needs of storage. Requests are carried out in the order they are made. */
export interface Storage {
  /** Resolves when all of the request is durable. */
  append(request: AppendRequest): Promise<void>;
  /** The entries up to the snapshot's may be forgotten; those after it stay. */
  compact(snapshot: Snapshot): Promise<void>;
  close(): Promise<void>;
}

export interface LogStoreOptions {
  readonly disk?: Disk;
  /** Size of a segment file; a larger batch makes a larger file. */
  readonly segmentBytes?: number;
  /** Bytes written before one sync; a larger request goes alone. Bounds the batch's buffer. */
  readonly maxBatchBytes?: number;
}

interface Job {
  readonly work: { readonly append: AppendRequest } | { readonly compact: Snapshot };
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Bytes that a quick disk makes durable in a fraction of a millisecond. */
const SMALL = 64 * 1024;
const SPARE = 'spare.tmp';
const ZEROS = new Uint8Array(1 << 20);

export class LogStore implements Storage {
  readonly #directory: string;
  readonly #disk: Disk;
  readonly #segmentBytes: number;
  readonly #maxBatchBytes: number;
  /** Oldest first; the last is the one written to. Their numbers have no gaps. */
  #segments: RecoveredSegment[] = [];
  #file: DiskFile | null = null;
  #offset = 0;
  #spare: Promise<void> | null = null;
  #hardState: HardState;
  #lastIndex: LogIndex;
  #snapshotIndex: LogIndex;
  #queue: Job[] = [];
  #running: Promise<void> | null = null;
  #failure: Error | null = null;

  /** Creates the directory if need be; `isNew` if there was no log in it. Throws LogCorruption if what is in it can't be trusted. */
  static async open(
    directory: string,
    options: LogStoreOptions = {},
  ): Promise<{ store: LogStore; restored: Restored; isNew: boolean }> {
    const disk = options.disk ?? nodeDisk;
    await disk.makeDirectory(directory);
    const snapshot = await readSnapshot(disk, directory);
    const recovered = await recover(disk, directory, snapshot);
    for (const name of await disk.list(directory)) {
      if (name.endsWith('.tmp') || recovered.leftovers.includes(name)) await disk.remove(join(directory, name));
    }
    const restored = { hardState: recovered.hardState, snapshot, entries: recovered.entries };
    const store = new LogStore(directory, options, restored);
    await store.#resume(recovered);
    return { store, restored, isNew: recovered.segments.length === 0 };
  }

  private constructor(directory: string, options: LogStoreOptions, restored: Restored) {
    this.#directory = directory;
    this.#disk = options.disk ?? nodeDisk;
    this.#segmentBytes = options.segmentBytes ?? 16 << 20;
    this.#maxBatchBytes = options.maxBatchBytes ?? 4 << 20;
    this.#hardState = restored.hardState;
    this.#snapshotIndex = restored.snapshot?.index ?? (0 as LogIndex);
    this.#lastIndex = restored.entries.at(-1)?.index ?? this.#snapshotIndex;
  }

  append(request: AppendRequest): Promise<void> {
    return this.#enqueue({ append: request });
  }

  compact(snapshot: Snapshot): Promise<void> {
    return this.#enqueue({ compact: snapshot });
  }

  /** Finishes what was asked for, then lets go of the files. */
  async close(): Promise<void> {
    await this.#running;
    this.#failure ??= new Error('the log store is closed');
    await this.#spare?.catch(() => undefined);
    await this.#file?.close();
    this.#file = null;
  }

  #enqueue(work: Job['work']): Promise<void> {
    if (this.#failure !== null) return Promise.reject(this.#failure);
    return new Promise((resolve, reject) => {
      this.#queue.push({ work, resolve, reject });
      // Begun in a microtask: requests made in the same turn share one sync.
      this.#running ??= Promise.resolve().then(() => this.#run());
    });
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0) {
      const jobs = this.#takeJobs();
      try {
        const { work } = jobs[0];
        if ('compact' in work) await this.#compact(work.compact);
        else if (work.append.snapshot !== null) await this.#install(work.append, work.append.snapshot);
        else await this.#write(jobs.flatMap((job) => ('append' in job.work ? recordsOf(job.work.append) : [])));
      } catch (error) {
        this.#fail(error instanceof Error ? error : new Error(String(error)), jobs);
        return;
      }
      for (const job of jobs) job.resolve();
    }
    this.#running = null;
  }

  /** As many plain appends as fit into one batch; anything else alone. */
  #takeJobs(): Job[] {
    let bytes = 0;
    let count = 0;
    for (const { work } of this.#queue) {
      if (!('append' in work) || work.append.snapshot !== null) break;
      bytes += recordsOf(work.append).reduce((sum, record) => sum + recordBytes(record), 0);
      if (count > 0 && bytes > this.#maxBatchBytes) break;
      count++;
    }
    return this.#queue.splice(0, Math.max(count, 1));
  }

  #fail(error: Error, jobs: readonly Job[]): void {
    this.#failure = error;
    for (const job of [...jobs, ...this.#queue.splice(0)]) job.reject(error);
  }

  /**
   * Durable truncation first: otherwise a crash between could leave entries after the snapshot that conflict with it.
   * The other way round nothing is lost, as what the truncation forgets conflicts with what is committed.
   */
  async #install(request: AppendRequest, snapshot: Snapshot): Promise<void> {
    const from = (snapshot.index + 1) as LogIndex;
    await this.#write([...recordsOf({ ...request, entries: [] }), { kind: 'truncate', from }]);
    await this.#saveSnapshot(snapshot);
    this.#lastIndex = snapshot.index;
    if (request.entries.length > 0) await this.#write(recordsOf({ ...NOTHING, entries: request.entries }));
  }

  async #compact(snapshot: Snapshot): Promise<void> {
    if (snapshot.index > this.#snapshotIndex) await this.#saveSnapshot(snapshot);
  }

  async #saveSnapshot(snapshot: Snapshot): Promise<void> {
    await writeSnapshot(this.#disk, this.#directory, snapshot);
    this.#snapshotIndex = snapshot.index;
    while (this.#segments.length > 1 && this.#segments[0].maxIndex <= snapshot.index) {
      const gone = this.#segments.shift()!;
      await this.#disk.remove(join(this.#directory, segmentName(gone.segment)));
    }
  }

  async #write(records: readonly LogRecord[]): Promise<void> {
    if (records.length === 0) return;
    const size = records.reduce((sum, record) => sum + recordBytes(record), 0);
    if (this.#offset + size + SEAL_BYTES > this.#segmentBytes) await this.#rotate();
    this.#current().write(encodeBatch(records, this.#offset), this.#offset);
    this.#offset += size;
    for (const record of records) this.#note(record);
    await (size <= SMALL ? this.#current().syncSoon() : this.#current().sync());
    if (this.#offset > this.#segmentBytes / 2) this.#prepareSpare();
  }

  /** Keeps in step with what the records say. */
  #note(record: LogRecord): void {
    if (record.kind === 'hardState') this.#hardState = record.hardState;
    if (record.kind === 'truncate') this.#lastIndex = Math.min(this.#lastIndex, record.from - 1) as LogIndex;
    if (record.kind !== 'entry') return;
    const { index } = record.entry;
    if (index !== this.#lastIndex + 1) throw new Error(`entry ${index} is appended after ${this.#lastIndex}`);
    this.#lastIndex = index;
    const current = this.#segments.at(-1)!;
    if (index > current.maxIndex) this.#segments.splice(-1, 1, { ...current, maxIndex: index });
  }

  async #resume(recovered: Recovered): Promise<void> {
    this.#segments = recovered.segments;
    const last = this.#segments.at(-1);
    if (last === undefined) return this.#begin(1);
    const file = await this.#disk.open(join(this.#directory, segmentName(last.segment)), false);
    this.#file = file;
    this.#offset = recovered.end;
    // Wiped, so that what is written next can't run into a record that was never acknowledged.
    if (recovered.tornTail) await file.truncate(recovered.end);
    // Even if nothing is torn: what was read may be in the page cache only, left by a process that died before its sync.
    await file.sync();
    await this.#disk.syncDirectory(this.#directory);
    if (!recovered.sealed) return;
    await file.close();
    await this.#begin(last.segment + 1);
  }

  async #rotate(): Promise<void> {
    const full = this.#current();
    full.write(encodeBatch([{ kind: 'seal' }], this.#offset), this.#offset);
    await full.sync();
    await full.close();
    this.#file = null;
    await this.#begin(this.#segments.at(-1)!.segment + 1);
  }

  /** The file gets its name when its header is durable. */
  async #begin(segment: number): Promise<void> {
    // What failed while nobody needed it, on a disk that was full for a while, may be possible by now.
    await (this.#spare ?? this.#fillSpare()).catch(() => this.#fillSpare());
    this.#spare = null;
    const spare = join(this.#directory, SPARE);
    const file = await this.#disk.open(spare, false);
    this.#file = file;
    const header = { kind: 'header', segment, previousIndex: this.#lastIndex, hardState: this.#hardState } as const;
    file.write(encodeBatch([header], 0), 0);
    this.#offset = recordBytes(header);
    await file.sync();
    await this.#disk.rename(spare, join(this.#directory, segmentName(segment)));
    await this.#disk.syncDirectory(this.#directory);
    this.#segments.push({ segment, maxIndex: 0 as LogIndex });
  }

  #prepareSpare(): void {
    if (this.#spare !== null) return;
    this.#spare = this.#fillSpare();
    // Whoever needs the spare awaits it, and tries again where it failed; until then that is nobody's.
    this.#spare.catch(() => undefined);
  }

  /** In pieces, each synced: one large flush would hold up the log's own syncs. */
  async #fillSpare(): Promise<void> {
    const file = await this.#disk.open(join(this.#directory, SPARE), true);
    try {
      for (let at = 0; at < this.#segmentBytes; at += ZEROS.length) {
        file.write(ZEROS.subarray(0, Math.min(ZEROS.length, this.#segmentBytes - at)), at);
        await file.sync();
      }
    } finally {
      await file.close();
    }
  }

  #current(): DiskFile {
    if (this.#file === null) throw new Error('the log store is closed');
    return this.#file;
  }
}

const NOTHING: AppendRequest = { hardState: null, truncateFrom: null, snapshot: null, entries: [] };

/** In the order that a crash may cut short anywhere: a term before the entries of that term. */
function recordsOf({ hardState, truncateFrom, entries }: AppendRequest): LogRecord[] {
  const records: LogRecord[] = [];
  if (hardState !== null) records.push({ kind: 'hardState', hardState });
  if (truncateFrom !== null) records.push({ kind: 'truncate', from: truncateFrom });
  for (const entry of entries) records.push({ kind: 'entry', entry });
  return records;
}
