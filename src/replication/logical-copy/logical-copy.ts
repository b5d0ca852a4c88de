import type { NodeId } from '../../runtime/ids.ts';
import { ControlClient } from '../control-client.ts';
import { APPLICATION_NAME } from '../origins.ts';
import { UnlikeServer, type CopyPiece, type CopySource } from '../copy-source.ts';
import {
  LARGE_OBJECT_PAGES,
  largeObjects,
  NOTES,
  readDatabase,
  readExtensions,
  readGlobals,
  sequencePositions,
  type SourceTable,
} from './contents.ts';
import { copyOut } from './copy-stream.ts';
import { releaseSchema, releaseTable, takeCut, type Cut, type CutDatabase, type CutOptions } from './cut.ts';
import { COPY_FORMAT, encodeData, encodeFrame } from './frames.ts';
import { dumpSchema, type LibpqEnvironment, type SchemaDump } from './schema-dump.ts';
import { findTools, toolPlaces, type DumpTools } from './tools.ts';

export interface LogicalCopyOptions extends CutOptions {
  readonly node: NodeId;
  /** Where pg_dump is, if the configuration says so; and how it reaches the server. */
  readonly toolsDirectory: string | undefined;
  readonly environment: LibpqEnvironment;
  /** The major version of the server that is copied to. */
  readonly forMajor: number;
  /** Bytes per second at most. */
  readonly rate: number;
}

/** Milliseconds between looks whether somebody waits for what is being copied. */
const WATCH_INTERVAL = 500;
const WAITS = `SELECT EXISTS (SELECT FROM pg_catalog.pg_locks
  WHERE NOT granted AND pg_catalog.pg_blocking_pids(pid) && $1::pg_catalog.int4[]) AS waits`;

/**
 * The contents of a running PostgreSQL's databases as they are at one index of the log, for a server of the same major version or a later one (frames.ts). A
 * donor's work comes first: as soon as anything waits for a table that is still to be read, the copy fails.
 */
export class LogicalCopy implements CopySource {
  readonly #options: LogicalCopyOptions;
  readonly #tools: DumpTools;
  readonly #cut: Cut;
  readonly #control: ControlClient;
  readonly #frames: AsyncGenerator<Buffer, void>;
  readonly #stopping = new AbortController();
  readonly #watch: NodeJS.Timeout;
  readonly #began = performance.now();
  #total = 0;
  #sent = 0;
  #rest = Buffer.alloc(0);
  #error: Error | undefined;

  /** Rejects with the reason when no such copy can be made. */
  static async begin(options: LogicalCopyOptions): Promise<LogicalCopy> {
    const { server, databases, toolsDirectory, forMajor } = options;
    const applicationName = `${APPLICATION_NAME} logical copy`;
    const control = new ControlClient({ ...server, database: databases[0], applicationName });
    // A connection that breaks shows in the next question.
    control.on('error', () => undefined);
    try {
      await control.connect();
      const { rows } = await control.ask<{ major: number; programs: string | null }>(
        `SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000 AS major,
           (SELECT setting FROM pg_catalog.pg_config WHERE name = 'BINDIR') AS programs`,
      );
      const [{ major, programs }] = rows;
      if (major > forMajor)
        throw new UnlikeServer(`it runs PostgreSQL ${major}, whose contents PostgreSQL ${forMajor} may not understand`);
      const tools = await findTools(toolPlaces(toolsDirectory, programs), major, forMajor);
      return new LogicalCopy(options, { tools, control, cut: await takeCut(options) }, major);
    } catch (error) {
      await control.end();
      throw error;
    }
  }

  private constructor(
    options: LogicalCopyOptions,
    { tools, control, cut }: { tools: DumpTools; control: ControlClient; cut: Cut },
    major: number,
  ) {
    this.#options = options;
    this.#tools = tools;
    this.#control = control;
    this.#cut = cut;
    this.#total = cut.databases.flatMap(({ tables }) => tables.map(({ size }) => size)).reduce((a, b) => a + b, 0);
    this.#frames = this.#produce(major);
    this.#watch = setInterval(() => void this.#giveWay(), WATCH_INTERVAL);
  }

  async #giveWay(): Promise<void> {
    const pids = this.#cut.databases.map(({ reader }) => reader.pid);
    try {
      const { rows } = await this.#control.ask<{ waits: boolean }>(WAITS, [pids]);
      if (rows[0].waits) this.#fail(new Error('a table is to be changed that was still to be copied'));
    } catch (error) {
      this.#fail(error as Error);
    }
  }

  async *#produce(major: number): AsyncGenerator<Buffer, void> {
    const { index, databases } = this.#cut;
    const { node } = this.#options;
    const names = databases.map(({ name }) => name);
    const dumps: SchemaDump[] = [];
    for (const { name, snapshot } of databases) dumps.push(await this.#dump(name, snapshot));
    const extensions = (await Promise.all(databases.map(({ reader }) => readExtensions(reader)))).flat();
    const globals = await readGlobals(databases[0].reader, names);
    const header = { format: COPY_FORMAT, node, major, index, databases: names, extensions, ...globals } as const;
    yield encodeFrame({ type: 'header', header });
    for (const [at, database] of databases.entries()) yield* this.#database(database, dumps[at]);
    for (const [at, { after }] of dumps.entries()) yield encodeFrame({ type: 'rest', database: names[at], sql: after });
    yield encodeFrame({ type: 'end' });
  }

  #dump(database: string, snapshot: string): Promise<SchemaDump> {
    const { signal } = this.#stopping;
    return dumpSchema(this.#tools, this.#options.environment, { database, snapshot, signal });
  }

  async *#database(database: CutDatabase, { before }: SchemaDump): AsyncGenerator<Buffer, void> {
    const { name, reader, tables } = database;
    yield encodeFrame({ type: 'database', database: await readDatabase(reader, name) });
    yield encodeFrame({ type: 'sql', sql: before });
    for (const notes of NOTES) yield* this.#table(database, notes);
    const objects = await largeObjects(reader);
    if (objects !== '') {
      yield encodeFrame({ type: 'sql', sql: objects });
      yield* this.#table(database, LARGE_OBJECT_PAGES);
    }
    await releaseSchema(database);
    for (const [at, table] of tables.entries()) {
      yield* this.#table(database, table);
      await releaseTable(database, at);
    }
    yield encodeFrame({ type: 'sql', sql: await sequencePositions(reader) });
    await reader.query('COMMIT');
  }

  async *#table({ reader }: CutDatabase, table: SourceTable): AsyncGenerator<Buffer, void> {
    const { schema, name, kind, columns, query } = table;
    yield encodeFrame({ type: 'table', table: { schema, name, kind, columns } });
    const data = copyOut(reader, `COPY (${query}) TO STDOUT`);
    for (;;) {
      const { value, done } = await data.next();
      if (done === true) {
        yield encodeFrame({ type: 'table-end', rows: value });
        return;
      }
      yield encodeData(value);
    }
  }

  async take(limit: number): Promise<CopyPiece> {
    const taken: Buffer[] = [this.#rest];
    let size = this.#rest.length;
    let end = false;
    while (size < limit && !end) {
      const bytes = await this.#next();
      if (bytes === undefined) end = true;
      else taken.push(bytes);
      size += bytes?.length ?? 0;
    }
    const all = Buffer.concat(taken);
    const bytes = all.subarray(0, limit);
    this.#rest = all.subarray(limit);
    this.#sent += bytes.length;
    await this.#keepPace();
    if (this.#error !== undefined) throw this.#error;
    // What is left over is for the next piece, which ends then.
    const isLast = end && this.#rest.length === 0;
    if (isLast) this.#close();
    return { bytes, end: isLast, total: this.#total };
  }

  async #next(): Promise<Buffer | undefined> {
    if (this.#error !== undefined) throw this.#error;
    try {
      const { value, done } = await this.#frames.next();
      return done === true ? undefined : value;
    } catch (error) {
      throw this.#fail(error as Error);
    }
  }

  async #keepPace(): Promise<void> {
    const ahead = (this.#sent / this.#options.rate) * 1000 - (performance.now() - this.#began);
    if (ahead > 0) await new Promise((resolve) => setTimeout(resolve, ahead));
  }

  stop(): void {
    this.#fail(new Error('nobody takes the copy any more'));
  }

  /** The first reason counts: why it was given up tells more than that a connection is gone then. */
  #fail(error: Error): Error {
    this.#error ??= error;
    this.#close();
    return this.#error;
  }

  #close(): void {
    clearInterval(this.#watch);
    this.#stopping.abort();
    for (const { reader } of this.#cut.databases) reader.destroy();
    // It may be broken, which is no news.
    this.#control.end().catch(() => undefined);
  }
}
