import { createCatalog, installCatalog } from '../../catalog/install.ts';
import type { NodeId } from '../../runtime/ids.ts';
import { literal, quote } from '../../runtime/sql-text.ts';
import type { ConnectionOptions, ServerConnection } from '../../wire/connection.ts';
import { ControlClient } from '../control-client.ts';
import { APPLICATION_NAME } from '../origins.ts';
import { markPostgres } from '../postgres-identity.ts';
import { connectForText } from '../text-settings.ts';
import { LARGE_OBJECT_PAGES } from './contents.ts';
import { copyIn, type CopyIn } from './copy-stream.ts';
import { FrameSplitter, type CopiedTable, type CopyFrame, type CopyHeader, type DatabaseDefinition } from './frames.ts';
import { judgeHeader } from './judge-header.ts';
import { copyName } from './names.ts';
import { findRoles } from './found-roles.ts';
import { refuseForeignPrepared } from './swap.ts';
import { grantStatements, missingRoles } from './roles.ts';

/** The server that is copied to. */
export interface TargetServer {
  /** Without database and application name. */
  readonly server: Omit<ConnectionOptions, 'database' | 'applicationName'>;
  readonly databases: readonly string[];
  /** Not one of them. */
  readonly maintenance: string;
  readonly node: NodeId;
  readonly cluster: string;
  readonly stride: number;
}

const PURPOSE = `${APPLICATION_NAME} copy`;

/**
 * Loads a logical copy into databases of their own beside those that it is to replace (names.ts). They are of no use before `finish`, and after a
 * failure at any point must be dropped.
 */
export class CopyLoader {
  readonly #target: TargetServer;
  readonly #splitter = new FrameSplitter();
  #header: CopyHeader | undefined;
  readonly #definitions: DatabaseDefinition[] = [];
  readonly #rest = new Map<string, string>();
  /** Of the database that is being loaded. */
  #data: ServerConnection | undefined;
  #loading: { readonly table: CopiedTable; readonly copy: CopyIn } | undefined;
  /** Whatever is open now: to be cut off when the copy is given up. */
  readonly #open = new Set<{ destroy(): void }>();
  #ended = false;
  #abandoned = false;

  constructor(target: TargetServer) {
    this.#target = target;
  }

  /** Resolves when more can be taken. Rejects with the reason why the copy can't be loaded. */
  async push(bytes: Buffer): Promise<void> {
    for (const frame of this.#splitter.push(bytes)) await this.#take(frame);
  }

  async #take(frame: CopyFrame): Promise<void> {
    switch (frame.type) {
      case 'header':
        return this.#begin(frame.header);
      case 'database':
        return this.#beginDatabase(frame.database);
      case 'sql':
        return this.#run(this.#current.name, frame.sql);
      case 'table':
        return this.#beginTable(frame.table);
      case 'data':
        return this.#loading?.copy.write(frame.bytes);
      case 'table-end':
        return this.#endTable(frame.rows);
      case 'rest':
        this.#rest.set(frame.database, frame.sql);
        return;
      case 'end':
        this.#ended = true;
    }
  }

  async #begin(header: CopyHeader): Promise<void> {
    const { databases, maintenance } = this.#target;
    await this.#control(maintenance, async (client) => {
      const found = await findRoles(client);
      const { rows } = await client.ask<{ name: string }>('SELECT name FROM pg_catalog.pg_available_extensions');
      const extensions = new Set(rows.map(({ name }) => name));
      const objection = judgeHeader(header, { major: found.major, databases, extensions });
      if (objection !== undefined) throw new Error(objection);
      await refuseForeignPrepared(client, databases);
      for (const statement of missingRoles(header.roles, found)) await client.ask(statement);
    });
    this.#header = header;
  }

  get #current(): DatabaseDefinition {
    const last = this.#definitions.at(-1);
    if (last === undefined) throw new Error('the donor sends a part of no database');
    return last;
  }

  async #beginDatabase(definition: DatabaseDefinition): Promise<void> {
    const { name, options, hasPublic } = definition;
    this.#closeData();
    const settings = options.map(([option, value]) => `${option} ${value}`).join(' ');
    await this.#control(this.#target.maintenance, async (client) => {
      await client.ask(`CREATE DATABASE ${quote(copyName(name))} WITH TEMPLATE template0 ${settings}`);
    });
    await this.#control(copyName(name), async (client) => {
      if (!hasPublic) await client.ask('DROP SCHEMA public');
      await createCatalog(client);
    });
    this.#definitions.push(definition);
    this.#data = await this.#connect(name);
  }

  /** As the replay does, nothing fires; and nothing is lost by a crash, which ends the copy as a whole. */
  async #connect(database: string): Promise<ServerConnection> {
    const { server } = this.#target;
    const connection = await connectForText({
      ...{ ...server, database: copyName(database), applicationName: PURPOSE },
      settings: {
        ...{ session_replication_role: 'replica', synchronous_commit: 'off', row_security: 'off' },
        ...{ default_transaction_read_only: 'off', statement_timeout: '0', lock_timeout: '0' },
      },
    });
    this.#keep(connection);
    return connection;
  }

  #keep(connection: { destroy(): void }): void {
    if (this.#abandoned) {
      connection.destroy();
      throw new Error('the copy was given up');
    }
    this.#open.add(connection);
  }

  /** In one transaction, in a session of its own: a dump changes settings. */
  async #run(database: string, sql: string): Promise<void> {
    const connection = await this.#connect(database);
    try {
      await connection.query(sql);
    } finally {
      this.#open.delete(connection);
      connection.end();
    }
  }

  async #beginTable(table: CopiedTable): Promise<void> {
    if (this.#data === undefined) throw new Error('the donor sends a table of no database');
    const { schema, name, kind, columns } = table;
    const whole = `${quote(schema)}.${quote(name)}`;
    if (isPages(table)) await this.#data.query(`CREATE UNLOGGED TABLE ${whole} (${PAGE_COLUMNS})`);
    await this.#data.query('BEGIN');
    if (kind === 'materialized view') await this.#data.query(changeKind(whole, 'm', 'r'));
    const list = columns.length === 0 ? '' : `(${columns.map(quote).join(', ')})`;
    this.#loading = { table, copy: copyIn(this.#data, `COPY ${whole} ${list} FROM STDIN`) };
  }

  async #endTable(expected: number): Promise<void> {
    const { table, copy } = this.#loading ?? {};
    if (table === undefined || copy === undefined || this.#data === undefined)
      throw new Error('the donor ends a table that it did not begin');
    this.#loading = undefined;
    const whole = `${quote(table.schema)}.${quote(table.name)}`;
    const rows = await copy.finish().catch((error: unknown) => {
      throw new Error(`table ${whole}: ${(error as Error).message}`, { cause: error });
    });
    if (rows !== expected) throw new Error(`${rows} of ${expected} rows of ${whole} have come`);
    if (table.kind === 'materialized view') await this.#data.query(changeKind(whole, 'r', 'm'));
    if (isPages(table)) await this.#data.query(`${PUT_PAGES}; DROP TABLE ${whole}`);
    await this.#data.query('COMMIT');
  }

  /**
   * All has come: makes what is made after the data, and the databases this node's. Gives what is to be known of the copy; it is on disk then. Rejects when
   * it is not complete.
   */
  async finish(): Promise<CopyHeader> {
    this.#closeData();
    const header = this.#header;
    if (header === undefined || !this.#ended || !this.#splitter.isEmpty || this.#rest.size !== this.#definitions.length)
      throw new Error('the copy ended before it was complete');
    for (const [database, sql] of this.#rest) await this.#run(database, sql);
    for (const definition of this.#definitions) await this.#finishDatabase(definition, header);
    return header;
  }

  async #finishDatabase({ name, owner, acl, comment }: DatabaseDefinition, { node }: CopyHeader): Promise<void> {
    const { databases, node: self, cluster, stride } = this.#target;
    const object = `DATABASE ${quote(copyName(name))}`;
    await this.#run(name, 'ANALYZE');
    await this.#control(copyName(name), async (client) => {
      await client.ask(`SET synchronous_commit = on`);
      for (const statement of grantStatements(object, owner, acl)) await client.ask(statement);
      if (comment !== null) await client.ask(`COMMENT ON ${object} IS ${literal(comment)}`);
      await installCatalog(client, { nodeId: self, stride });
      // As a copy of the data directory would have it; and this commit makes all before it durable.
      await client.ask('SET session_replication_role = replica');
      if (name === databases[0]) await markPostgres(client, { cluster, node, log: 'copy' });
      else await client.ask('SELECT pg_catalog.pg_current_xact_id()');
    });
  }

  async #control(database: string, work: (client: ControlClient) => Promise<void>): Promise<void> {
    const client = new ControlClient({ ...this.#target.server, database, applicationName: PURPOSE });
    client.on('error', () => undefined);
    await client.connect();
    const { connection } = client as unknown as { connection: { stream: { destroy(): void } } };
    this.#keep(connection.stream);
    try {
      await work(client);
    } finally {
      this.#open.delete(connection.stream);
      await client.end();
    }
  }

  #closeData(): void {
    if (this.#data === undefined) return;
    this.#open.delete(this.#data);
    this.#data.end();
    this.#data = undefined;
  }

  /** It is not to be finished: what is under way fails. */
  abandon(): void {
    this.#abandoned = true;
    for (const connection of this.#open) connection.destroy();
  }
}

const PAGE_COLUMNS = 'loid pg_catalog.oid, pageno pg_catalog.int4, data pg_catalog.bytea';
/** A page holds a quarter of a block. */
const PUT_PAGES = `SELECT pg_catalog.count(pg_catalog.lo_put(loid,
  pageno * pg_catalog.current_setting('block_size')::pg_catalog.int8 / 4, data)) FROM multimaster.copied_page`;

const isPages = ({ schema, name }: CopiedTable): boolean =>
  schema === LARGE_OBJECT_PAGES.schema && name === LARGE_OBJECT_PAGES.name;

/** The rows of a materialized view are not to be computed anew: on the other nodes they are as old as its last refresh. */
function changeKind(relation: string, from: string, to: string): string {
  return `UPDATE pg_catalog.pg_class SET relkind = ${literal(to)}, relispopulated = true
    WHERE oid = ${literal(relation)}::pg_catalog.regclass AND relkind = ${literal(from)}`;
}
