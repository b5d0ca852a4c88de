import pg from 'pg';
import { runOrder, stepsOf, type Seat, type SessionEnd } from './run-order.ts';
import type { Level, Scenario } from './scenario.ts';

/** What one run came to. */
export interface Outcome {
  readonly ends: readonly SessionEnd[];
  /** By node; all alike where nothing is wrong. */
  readonly states: readonly string[];
  readonly waited: boolean;
}

const SCHEMA = 'scenario';
/** Sessions on nodes in turn. */
const MOST_SESSIONS = 4;

/** One server, or the nodes of a cluster, with a client for each session of a scenario. */
export class Target {
  readonly #seats: readonly Seat[];
  /** A reader of every node, which waits for all that is decided. */
  readonly #readers: readonly pg.Client[];
  readonly #admin: pg.Client;
  readonly #clients: readonly pg.Client[];

  private constructor(seats: readonly Seat[], readers: readonly pg.Client[], admin: pg.Client) {
    this.#seats = seats;
    this.#readers = readers;
    this.#admin = admin;
    this.#clients = [...seats.flatMap(({ client, observer }) => [client, observer]), ...readers, admin];
  }

  /** `nodes`: of each the address that applications use, and that of its PostgreSQL. */
  static async connect(nodes: readonly { uri: string; postgresUri: string }[]): Promise<Target> {
    const isCluster = nodes.length > 1;
    const seats = await Promise.all(
      Array.from({ length: MOST_SESSIONS }, async (_, i) => {
        const { uri, postgresUri } = nodes[i % nodes.length];
        const client = await open(uri);
        const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
        return { client, pid: rows[0].pid, observer: await open(postgresUri) };
      }),
    );
    const readers = await Promise.all(nodes.map(({ uri }) => open(uri)));
    const admin = await open(nodes[0].uri);
    if (isCluster) {
      for (const reader of readers) await reader.query("SET multimaster.read_level = 'strict'");
      await admin.query('SET synchronous_commit = remote_apply');
    }
    return new Target(seats, readers, admin);
  }

  async prepare(scenario: Scenario): Promise<void> {
    const tables = [`DROP SCHEMA IF EXISTS ${SCHEMA} CASCADE`, `CREATE SCHEMA ${SCHEMA}`, ...scenario.tables];
    await this.#admin.query(tables.join('; '));
  }

  /** From the same rows each time. */
  async run(scenario: Scenario, level: Level, order: readonly number[]): Promise<Outcome> {
    if (scenario.changesSchema === true) await this.prepare(scenario);
    await this.#admin.query(scenario.rows);
    const { ends, waited } = await runOrder(this.#seats, scenario.sessions, level, order);
    const states = await Promise.all(this.#readers.map((reader) => read(reader, scenario.state)));
    return { ends, states, waited };
  }

  async end(): Promise<void> {
    await Promise.all(this.#clients.map((client) => client.end()));
  }
}

async function open(connectionString: string): Promise<pg.Client> {
  const client = new pg.Client({ connectionString });
  await client.connect();
  await client.query(`SET search_path = ${SCHEMA}`);
  return client;
}

async function read(client: pg.Client, sql: string): Promise<string> {
  const { rows } = await client.query<unknown[]>({ text: sql, rowMode: 'array' });
  return JSON.stringify(rows);
}

export function stepCounts({ sessions }: Scenario): number[] {
  return sessions.map(stepsOf);
}
