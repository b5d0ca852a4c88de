import type { NodeStatus, What } from './control.ts';
import { DevError } from './dev-error.ts';
import type { PostgresServer } from './postgres-server.ts';
import type { ProxyProcess } from './proxy-process.ts';
import type { Service } from './service.ts';

export type NodeCommand = 'kill' | 'start' | 'pause' | 'resume';

/** What each command needs to find, and what it leaves behind. */
const COMMANDS = {
  kill: { from: ['running', 'paused'], past: 'killed' },
  start: { from: ['stopped'], past: 'started' },
  pause: { from: ['running'], past: 'paused' },
  resume: { from: ['paused'], past: 'resumed' },
} as const;

/** Crash recovery and catching up take their time. */
const START_TIMEOUT_MS = 120_000;

export interface NodeAddresses {
  readonly uri: string | null;
  readonly metrics: string;
}

/** One node: a PostgreSQL and the proxy beside it; or a witness, which is a proxy alone. */
export class DevNode {
  readonly id: number;
  readonly postgres: PostgresServer | undefined;
  readonly proxy: ProxyProcess;
  readonly addresses: NodeAddresses;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(id: number, postgres: PostgresServer | undefined, proxy: ProxyProcess, addresses: NodeAddresses) {
    this.id = id;
    this.postgres = postgres;
    this.proxy = proxy;
    this.addresses = addresses;
  }

  status(): NodeStatus {
    const { id, addresses, postgres, proxy } = this;
    const server = { postgresPort: postgres?.port ?? null, postgres: postgres?.state ?? null };
    return { id, ...addresses, ...server, proxy: proxy.state };
  }

  /** Returns what was done, in words. Commands to one node run one after another; nodes don't wait for each other. */
  async run(command: NodeCommand, what: What, signal: AbortSignal): Promise<string> {
    const turn = this.#queue.then(() => this.#run(command, what, signal));
    this.#queue = turn.catch(() => undefined);
    return await turn;
  }

  /** Resolves when the commands given so far have ended. */
  async idle(): Promise<void> {
    await this.#queue;
  }

  async #run(command: NodeCommand, what: What, signal: AbortSignal): Promise<string> {
    const named = this.#services(what);
    const { from, past } = COMMANDS[command];
    const fit = named.filter((service) => (from as readonly string[]).includes(service.state));
    if (fit.length === 0) {
      throw new DevError(
        `can't ${command}: ${named.map((service) => `${service.name} is ${service.state}`).join(', ')}`,
      );
    }
    signal.throwIfAborted();
    if (command === 'start') for (const service of fit) await service.start(START_TIMEOUT_MS, signal);
    // All at once, as the machine below them would.
    else await Promise.all(fit.map((service) => service[command]()));
    return `${past} ${fit.map((service) => service.name).join(' and ')}`;
  }

  /** In the order in which they start. */
  #services(what: What): Service[] {
    switch (what) {
      case 'proxy':
        return [this.proxy];
      case 'postgres':
        if (this.postgres === undefined) throw new DevError(`node ${this.id} is a witness: it has no PostgreSQL`);
        return [this.postgres];
      case 'both':
        return this.postgres === undefined ? [this.proxy] : [this.postgres, this.proxy];
    }
  }
}
