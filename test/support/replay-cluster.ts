import pg from 'pg';
import { expect } from 'vitest';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { formatReport } from '../../src/cli/verify/report.ts';
import { Backend } from '../../src/wire/codes.ts';
import { ServerConnection } from '../../src/wire/connection.ts';
import { FrontendWriter } from '../../src/wire/frontend.ts';
import { startCluster } from './cluster.ts';
import type { ClusterOptions, TestCluster } from './cluster.ts';
import { waitFor } from './wait-for.ts';

type Row = Record<string, unknown>;

/** Values are compared as the server wrote them, not as node-postgres reads them. */
const AS_TEXT: pg.CustomTypesConfig = { getTypeParser: () => String };

/**
 * A cluster with a client on each node. What one of them has committed the next one sees (`remote_apply`), so statements
 * may go to the nodes in turn and still follow one another.
 */
export class ReplayCluster {
  readonly cluster: TestCluster;
  readonly clients: readonly pg.Client[];
  #turn = 0;

  private constructor(cluster: TestCluster, clients: readonly pg.Client[]) {
    this.cluster = cluster;
    this.clients = clients;
  }

  static async start(options: ClusterOptions = {}): Promise<ReplayCluster> {
    const cluster = await (await startCluster({ relays: false, ...options })).ready();
    const nodes = Array.from({ length: cluster.nodes }, (_, i) => cluster.node(i + 1));
    // A proxy that serves need not be a member yet.
    await waitFor('every node takes writes', async () => {
      const ready = await Promise.all(nodes.map(({ metrics }) => fetch(new URL('/readyz', metrics))));
      return ready.every(({ ok }) => ok);
    });
    // None of these tests is about a loss of power, and every commit flushes three times on each node.
    await Promise.all(nodes.map(({ postgresUri }) => turnFsyncOff(postgresUri)));
    return new ReplayCluster(cluster, await Promise.all(nodes.map(({ uri }) => connect(uri))));
  }

  /** Numbered from 1, as nodes are. */
  client(node: number): pg.Client {
    return this.clients[node - 1];
  }

  /** One more client of a node's proxy; its owner ends it. */
  async connect(node: number): Promise<pg.Client> {
    return await connect(this.cluster.node(node).uri);
  }

  /** The statements as one transaction, on the next node. */
  async run(...statements: readonly string[]): Promise<pg.QueryResult<Row>> {
    return await this.on(this.next(), ...statements);
  }

  /** The statements as one transaction on this node. */
  async on(node: number, ...statements: readonly string[]): Promise<pg.QueryResult<Row>> {
    const client = this.client(node);
    if (statements.length === 1) return await client.query<Row>(statements[0]);
    await client.query('BEGIN');
    try {
      let last!: pg.QueryResult<Row>;
      for (const sql of statements) last = await client.query<Row>(sql);
      await client.query('COMMIT');
      return last;
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    }
  }

  next(): number {
    return (this.#turn++ % this.clients.length) + 1;
  }

  /** Each statement as a transaction of its own, on the nodes in turn. */
  async each(...statements: readonly string[]): Promise<void> {
    for (const sql of statements) await this.run(sql);
  }

  /** COPY … FROM STDIN on this node, over a connection of its own. Gives the number of rows. */
  async copyIn(node: number, sql: string, data: Iterable<Buffer>): Promise<number> {
    const connection = await this.#rawConnection(node);
    const write = new FrontendWriter();
    let rows = 0;
    const answered = new Promise<void>((resolve, reject) => {
      connection.request(write.query(sql).take(), {
        message: (type, bytes, start, end) => {
          if (type === Backend.commandComplete) rows = Number(bytes.toString('latin1', start + 10, end - 1));
        },
        done: (error) => (error === undefined ? resolve() : reject(error)),
      });
    });
    // A refusal is the answer, whatever is still being sent.
    answered.catch(() => undefined);
    for (const piece of data) if (!connection.write(write.copyData(piece).take())) await connection.drained();
    connection.write(write.copyDone().take());
    try {
      await answered;
      return rows;
    } finally {
      connection.end();
    }
  }

  /** COPY … TO STDOUT on this node. */
  async copyOut(node: number, sql: string): Promise<Buffer> {
    const connection = await this.#rawConnection(node);
    const pieces: Buffer[] = [];
    await new Promise<void>((resolve, reject) => {
      connection.request(new FrontendWriter().query(sql).take(), {
        message: (type, bytes, start, end) => {
          if (type === Backend.copyData) pieces.push(Buffer.from(bytes.subarray(start + 5, end)));
        },
        done: (error) => (error === undefined ? resolve() : reject(error)),
      });
    });
    connection.end();
    return Buffer.concat(pieces);
  }

  async #rawConnection(node: number): Promise<ServerConnection> {
    const { hostname: host, port } = new URL(this.cluster.node(node).uri);
    return await ServerConnection.connect({
      ...{ host, port: Number(port), user: 'postgres', database: 'postgres', applicationName: 'copy' },
      settings: { synchronous_commit: 'remote_apply' },
    });
  }

  /** The SQLSTATE and hint with which a node refuses these statements, one transaction; undefined when it doesn't. */
  async refusal(node: number, ...statements: readonly string[]): Promise<pg.DatabaseError | undefined> {
    try {
      await this.on(node, ...statements);
      return undefined;
    } catch (error) {
      if (error instanceof pg.DatabaseError) return error;
      throw error;
    }
  }

  /** What a query gives on each node's own PostgreSQL, which must be the same: rows as lists of text. */
  async rows(sql: string): Promise<(string | null)[][]> {
    const all = await Promise.all(
      this.clients.map(async (client) => {
        const { rows } = await client.query<(string | null)[]>({ text: sql, rowMode: 'array', types: AS_TEXT });
        return rows;
      }),
    );
    for (const rows of all) expect(rows).toEqual(all[0]);
    return all[0];
  }

  /** That all nodes have the same data and schema, and nothing left over. */
  async expectSame(waitMs = 20_000): Promise<void> {
    const report = await verify(targetsOfPlayground(this.cluster.dir), { waitMs });
    expect(report.same ? [] : formatReport(report)).toEqual([]);
  }

  async stop(): Promise<void> {
    await Promise.all(this.clients.map((client) => client.end().catch(() => undefined)));
    await this.cluster.stop();
  }
}

async function turnFsyncOff(uri: string): Promise<void> {
  const client = new pg.Client({ connectionString: uri });
  await client.connect();
  await client.query('ALTER SYSTEM SET fsync = off');
  await client.query('SELECT pg_reload_conf()');
  await client.end();
}

async function connect(uri: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString: uri });
  // Some tests end a client's server or proxy under it.
  client.on('error', () => undefined);
  await client.connect();
  await client.query('SET synchronous_commit = remote_apply');
  return client;
}
