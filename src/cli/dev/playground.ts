import { chownSync, rmSync } from 'node:fs';
import { findBinaries } from './binaries.ts';
import type { PostgresBinaries } from './binaries.ts';
import { ControlServer, shortTempDirectory } from './control.ts';
import type { PlaygroundStatus, Reply, Request } from './control.ts';
import { DevError } from './dev-error.ts';
import { DevNode } from './dev-node.ts';
import { nodeIds, replaceFile } from './directory.ts';
import type { PlaygroundDirectory, PlaygroundSettings } from './directory.ts';
import { findLeftovers } from './leftovers.ts';
import { HOST, PortPlan, assertPortsFree } from './ports.ts';
import { PostgresServer, nodeSettings } from './postgres-server.ts';
import { proxyConfig } from './proxy-config.ts';
import { ProxyProcess } from './proxy-process.ts';
import { RelayMesh, assertPartition } from './relay-mesh.ts';
import type { Partition } from './relay-mesh.ts';
import { canReach } from './run-user.ts';
import type { RunUser } from './run-user.ts';

export interface PlaygroundOptions {
  readonly directory: PlaygroundDirectory;
  readonly nodes: number | undefined;
  readonly port: number | undefined;
  /** One more node that only votes. */
  readonly witness: boolean | undefined;
  /** The URL of a Redis with the third vote of two nodes. */
  readonly referee: string | undefined;
  readonly postgresBin: string | undefined;
  /** False: the nodes reach each other directly, which is quicker, and no partition can be made. */
  readonly relays: boolean;
  readonly proxyCommand: readonly string[];
  /** `pgmm` itself, for the proxies to call. */
  readonly program: readonly string[];
  readonly user: RunUser | undefined;
  readonly say: (line: string) => void;
}

const POSTGRES_START_TIMEOUT_MS = 60_000;
const PROXY_START_TIMEOUT_MS = 120_000;
/** How long the proxies may take to find each other and admit all nodes. */
const JOIN_TIMEOUT_MS = 120_000;

/** Owns the servers, the proxies and the network between them, and does what the other `dev` commands ask. */
export class Playground {
  readonly #options: PlaygroundOptions;
  readonly #settings: PlaygroundSettings;
  readonly #ports: PortPlan;
  readonly #control: ControlServer;
  readonly #mesh = new RelayMesh();
  /** Ends what is under way when the playground goes down. */
  readonly #stop = new AbortController();
  readonly #hurry = new AbortController();
  readonly #ended: Promise<void>;
  #resolveEnded: () => void = () => undefined;
  #phase: PlaygroundStatus['phase'] = 'starting';
  #nodes: readonly DevNode[] = [];
  #socketDir: string | undefined;
  #starting: Promise<void> = Promise.resolve();
  #goingDown: Promise<void> | undefined;

  constructor(options: PlaygroundOptions) {
    const { directory, nodes, port, witness, referee } = options;
    this.#options = options;
    this.#settings = directory.decideSettings({ nodes, port, witness, referee });
    this.#ports = new PortPlan(this.#settings.port, nodeIds(this.#settings).length);
    this.#ended = new Promise((resolve) => (this.#resolveEnded = resolve));
    this.#control = new ControlServer(directory, (request) => this.#handle(request));
  }

  /** Resolves when all is stopped. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Brings everything up. On a failure all that was started is stopped before this throws. */
  async up(): Promise<void> {
    const { directory, user } = this.#options;
    directory.create(this.#ports.ids, user);
    await this.#control.listen();
    this.#starting = this.#start();
    try {
      await this.#starting;
    } catch (error) {
      const asked = this.#stop.signal.aborted;
      await this.down();
      if (!asked) throw error;
    }
  }

  /** Stops everything in good order: proxies, then the network, then the servers. Idempotent. */
  async down(): Promise<void> {
    await this.#servicesDown();
    await this.#ended;
  }

  /** Makes a stop that is under way a quick one. */
  hurry(): void {
    this.#hurry.abort();
  }

  get status(): PlaygroundStatus {
    return {
      phase: this.#phase,
      pid: process.pid,
      dir: this.#options.directory.path,
      partition: this.#mesh.partition ?? null,
      nodes: this.#nodes.map((node) => node.status()),
    };
  }

  async #start(): Promise<void> {
    const { directory, postgresBin, user, relays, say } = this.#options;
    const { signal } = this.#stop;
    signal.throwIfAborted(); // interrupted before this began
    const leftovers = findLeftovers(directory, this.#ports.ids);
    if (leftovers.length > 0) {
      const list = leftovers.map(({ name, process }) => `${name} (process ${process.pid})`).join(', ');
      throw new DevError(
        `an earlier playground in ${directory.path} was killed and left running: ${list}. End them with \`pgmm dev down\``,
      );
    }
    const binaries = await findBinaries({ bin: postgresBin, user, say });
    await assertPortsFree(this.#ports, relays);
    directory.saveSettings(this.#settings);
    if (relays) await this.#mesh.open(this.#ports);
    this.#socketDir = shortTempDirectory((path) => canReach(user, path));
    if (user !== undefined) chownSync(this.#socketDir, user.uid, user.gid);
    this.#nodes = this.#ports.ids.map((id) => this.#node(id, binaries));
    signal.throwIfAborted();

    const as = user === undefined ? '' : ` as user ${user.name}`;
    say(`starting ${this.#settings.nodes} PostgreSQL ${binaries.version} servers${as}, data in ${directory.path}`);
    await all(this.#nodes, async ({ id, postgres }) => {
      if (postgres === undefined) return;
      await postgres.init(signal);
      await postgres.start(POSTGRES_START_TIMEOUT_MS, signal);
      say(`node ${id}: PostgreSQL accepts connections on port ${postgres.port}`);
      this.#publish();
    });
    await all(this.#nodes, async ({ id, proxy }) => {
      this.#writeConfig(id);
      await proxy.start(PROXY_START_TIMEOUT_MS, signal);
      const isWitness = id === this.#witness;
      say(`node ${id}: ${isWitness ? 'the witness runs' : `the proxy listens on port ${this.#ports.client(id)}`}`);
      this.#publish();
    });
    await all(this.#nodes, async ({ id, proxy, postgres }) => {
      if (postgres === undefined) return;
      await proxy.writable(JOIN_TIMEOUT_MS, signal);
      say(`node ${id}: takes writes`);
    });
    signal.throwIfAborted();
    this.#phase = 'up';
  }

  /** The node that only votes. */
  get #witness(): number | undefined {
    return this.#settings.witness ? this.#ports.ids.at(-1) : undefined;
  }

  #node(id: number, binaries: PostgresBinaries): DevNode {
    const { proxyCommand, say, directory } = this.#options;
    const files = directory.node(id);
    const postgres = id === this.#witness ? undefined : this.#server(id, binaries);
    const proxy = new ProxyProcess({
      name: postgres === undefined ? `node ${id}, the witness,` : `node ${id}'s proxy`,
      command: proxyCommand,
      configFile: files.config,
      logFile: files.proxyLog,
      adminPort: this.#ports.admin(id),
    });
    for (const service of postgres === undefined ? [proxy] : [postgres, proxy]) {
      service.onUnexpectedEnd = (how, logTail) => {
        say(`${service.name} ended unexpectedly (${how}); the rest goes on. Its log ${service.logFile} ends:`);
        for (const line of logTail.split('\n')) say(`    ${line}`);
        this.#publish();
      };
    }
    return new DevNode(id, postgres, proxy, {
      uri: postgres === undefined ? null : `postgresql://postgres@${HOST}:${this.#ports.client(id)}/postgres`,
      metrics: `http://${HOST}:${this.#ports.admin(id)}/metrics`,
    });
  }

  #server(id: number, binaries: PostgresBinaries): PostgresServer {
    const { directory, user } = this.#options;
    const files = directory.node(id);
    return new PostgresServer({
      name: `node ${id}'s PostgreSQL`,
      binaries,
      user,
      dataDir: files.postgresData,
      logFile: files.postgresLog,
      port: this.#ports.postgres(id),
      socketDir: this.#socketDir,
      settings: nodeSettings(binaries.major),
    });
  }

  #writeConfig(id: number): void {
    const { directory, relays, program } = this.#options;
    const { config, proxyData, postgresData } = directory.node(id);
    const tell = (command: string) =>
      [...program, 'dev', command, String(id), 'postgres', '--dir', directory.path].map(quoted).join(' ');
    const text = proxyConfig({
      node: id,
      ports: this.#ports,
      secret: this.#settings.secret,
      dataDir: proxyData,
      postgresHost: this.#socketDir ?? HOST,
      relays,
      witness: this.#witness,
      referee: this.#settings.referee,
      // A crash is good enough for data that are thrown away.
      reclone: { dataDirectory: postgresData, stop: tell('kill'), start: tell('start') },
    });
    replaceFile(config, text, 0o600);
  }

  /** For whoever watches from outside: addresses and process numbers as they are now. */
  #publish(): void {
    const nodes = this.#nodes.flatMap(({ id, addresses, postgres, proxy }) =>
      postgres === undefined
        ? []
        : [{ id, ...addresses, postgresPort: postgres.port, pids: { proxy: proxy.pid, postgres: postgres.pid } }],
    );
    const witnesses = this.#nodes
      .filter(({ postgres }) => postgres === undefined)
      .map(({ id, addresses, proxy }) => ({ id, metrics: addresses.metrics, pids: { proxy: proxy.pid } }));
    replaceFile(this.#options.directory.clusterFile, `${JSON.stringify({ nodes, witnesses }, null, 2)}\n`);
  }

  async #handle(request: Request): Promise<Reply> {
    if (request.command === 'down') {
      await this.#servicesDown();
      return this.#reply('the playground is down; its data stays');
    }
    if (request.command !== 'status' && this.#phase !== 'up') {
      throw new DevError(`the playground is ${this.#phase}: try again when it is up`);
    }
    return this.#reply(await this.#do(request));
  }

  async #do(request: Request): Promise<string> {
    switch (request.command) {
      case 'status':
      case 'down':
        return '';
      case 'partition':
        if (!this.#options.relays) throw new DevError('this playground was started with --no-relays');
        assertPartition(request, this.#ports.ids);
        this.#mesh.apply({ groups: request.groups, oneWay: request.oneWay, reset: request.reset });
        return describePartition(request);
      case 'delay': {
        const { node, milliseconds } = request;
        if (!this.#options.relays) throw new DevError('this playground was started with --no-relays');
        if (!this.#ports.ids.includes(node))
          throw new DevError(`there is no node ${node}; the nodes are ${this.#ports.ids.join(', ')}`);
        this.#mesh.delay(node, milliseconds);
        return `what node ${node} sends and gets takes ${milliseconds} ms`;
      }
      case 'heal':
        this.#mesh.apply(undefined);
        return 'healed: every node reaches every other, without delay';
      case 'kill':
      case 'start':
      case 'pause':
      case 'resume': {
        const node = this.#nodes.find(({ id }) => id === request.node);
        if (node === undefined) {
          throw new DevError(`there is no node ${request.node}; the nodes are ${this.#ports.ids.join(', ')}`);
        }
        try {
          return await node.run(request.command, request.what, this.#stop.signal);
        } finally {
          this.#publish();
        }
      }
    }
  }

  #reply(text: string): Reply {
    return { ok: true, text, status: this.status };
  }

  async #servicesDown(): Promise<void> {
    this.#goingDown ??= this.#bringDown();
    await this.#goingDown;
  }

  async #bringDown(): Promise<void> {
    const starting = this.#phase === 'starting';
    this.#phase = 'stopping';
    this.#stop.abort(new DevError('the playground is going down'));
    // What was under way has been aborted; once it has ended nothing starts any more.
    await this.#starting.catch(() => undefined);
    await Promise.all(this.#nodes.map((node) => node.idle()));
    if (!starting) this.#options.say('stopping');
    const failures: unknown[] = [];
    const each = async (action: (node: DevNode) => Promise<void>): Promise<void> => {
      const results = await Promise.allSettled(this.#nodes.map(action));
      failures.push(...results.filter((result) => result.status === 'rejected').map(({ reason }) => reason as unknown));
    };
    await each(({ proxy }) => proxy.stop(this.#hurry.signal));
    await this.#mesh.close();
    await each(async ({ postgres }) => await postgres?.stop(this.#hurry.signal));
    if (this.#nodes.length > 0) this.#publish();
    if (this.#socketDir !== undefined) rmSync(this.#socketDir, { recursive: true, force: true });
    // Not awaited here: the one who asked for this may be waiting for its answer, and closing waits for that.
    void this.#control.close().then(this.#resolveEnded);
    if (failures.length > 0) throw new AggregateError(failures, 'not everything could be stopped');
  }
}

/** For /bin/sh. */
const quoted = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

function describePartition({ groups, oneWay, reset }: Partition): string {
  const sides = groups.map((group) => group.join(','));
  if (oneWay) return `cut: what ${sides[0]} sends to ${sides[1]} is lost`;
  return `cut between ${sides.join(' | ')}${reset ? ', connections are reset' : ''}`;
}

/** Waits for all of them even if one fails, so that nothing is still starting when the stopping begins. */
async function all<T>(items: readonly T[], action: (item: T) => Promise<void>): Promise<void> {
  const results = await Promise.allSettled(items.map(action));
  const failed = results.find((result) => result.status === 'rejected');
  if (failed !== undefined) throw failed.reason;
}
