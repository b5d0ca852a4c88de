import pg from 'pg';
import { Rng } from '../sim/rng.ts';
import type { TestCluster } from '../support/cluster.ts';

/** One fault: what it does, and how it is undone. `nodes` are those that it may keep from writing. */
export interface Fault {
  readonly kind: string;
  readonly nodes: readonly number[];
  begin(): Promise<unknown>;
  end(): Promise<unknown>;
}

const WHATS = ['proxy', 'postgres', 'both'] as const;
/** The proxy's own connections, by application name; and a client's. */
const BACKENDS = ['pgmm decoder', 'pgmm apply', 'pgmm committer', 'pgmm watch', ''];

/** Draws faults at random; each leaves a majority alone, except that now and then all nodes crash at once. */
export class Nemesis {
  readonly #cluster: TestCluster;
  readonly #rng: Rng;

  constructor(cluster: TestCluster, rng: Rng) {
    this.#cluster = cluster;
    this.#rng = rng;
  }

  draw(): Fault {
    const node = 1 + this.#rng.below(this.#cluster.nodes);
    const what = this.#rng.pick(WHATS);
    switch (this.#rng.below(8)) {
      case 0:
      case 1:
        return this.#kill(node, what);
      case 2:
        return this.#killBackend(node, this.#rng.pick(BACKENDS));
      case 3:
        return this.#pause(node, what);
      case 4:
        return this.#partition('cut off', [node], []);
      case 5:
        return this.#partition(this.#rng.below(2) === 0 ? 'deaf' : 'mute', [node], ['--one-way']);
      case 6:
        return this.#flap(node);
      default:
        return this.#killAll(what);
    }
  }

  #kill(node: number, what: (typeof WHATS)[number]): Fault {
    return {
      kind: `kill ${what}`,
      nodes: [node],
      begin: () => this.#cluster.dev('kill', String(node), what),
      end: () => this.#cluster.dev('start', String(node), what),
    };
  }

  #killAll(what: (typeof WHATS)[number]): Fault {
    const nodes = this.#nodes();
    const each = (command: string) => Promise.all(nodes.map((node) => this.#cluster.dev(command, String(node), what)));
    return { kind: `kill every ${what}`, nodes, begin: () => each('kill'), end: () => each('start') };
  }

  #pause(node: number, what: (typeof WHATS)[number]): Fault {
    return {
      kind: `pause ${what}`,
      nodes: [node],
      begin: () => this.#cluster.dev('pause', String(node), what),
      end: () => this.#cluster.dev('resume', String(node), what),
    };
  }

  /** What a signal does to one server process: PostgreSQL then ends all others and recovers. */
  #killBackend(node: number, name: string): Fault {
    return {
      kind: `kill backend ${name === '' ? 'of a client' : name}`,
      nodes: [node],
      begin: async () => {
        const client = new pg.Client({ connectionString: this.#cluster.node(node).postgresUri });
        client.on('error', () => undefined);
        await client.connect();
        const { rows } = await client.query<{ pid: number }>(
          `SELECT pid FROM pg_stat_activity WHERE application_name = $1 AND pid <> pg_backend_pid()
           AND backend_type IN ('client backend', 'walsender') ORDER BY random() LIMIT 1`,
          [name],
        );
        if (rows.length > 0) process.kill(rows[0].pid, 'SIGKILL');
        await client.end().catch(() => undefined);
      },
      end: () => Promise.resolve(),
    };
  }

  #partition(kind: string, nodes: readonly number[], options: readonly string[]): Fault {
    const others = this.#nodes().filter((node) => !nodes.includes(node));
    const groups = [nodes.join(','), others.join(',')];
    return {
      kind,
      nodes,
      begin: () => this.#cluster.dev('partition', ...(kind === 'deaf' ? groups.reverse() : groups), ...options),
      end: () => this.#cluster.dev('heal'),
    };
  }

  #flap(node: number): Fault {
    const cut = this.#partition('flapping', [node], []);
    // Of its own: how many times it flaps depends on the machine, and must not change which faults follow.
    const rng = new Rng(this.#rng.below(2 ** 31));
    let flapping: Promise<void> = Promise.resolve();
    let stopped = false;
    const flap = async () => {
      while (!stopped) {
        await cut.begin();
        await later(100 + rng.below(600));
        await cut.end();
        await later(100 + rng.below(600));
      }
    };
    return {
      ...cut,
      begin: () => {
        flapping = flap();
        return Promise.resolve();
      },
      end: async () => {
        stopped = true;
        await flapping;
      },
    };
  }

  #nodes(): number[] {
    return Array.from({ length: this.#cluster.nodes }, (_, i) => i + 1);
  }
}

export const later = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));
