import { Command, InvalidArgumentError } from 'commander';
import { WHATS, ask, askRunning } from './dev/control.ts';
import type { PlaygroundStatus, Request, What } from './dev/control.ts';
import { DevError } from './dev/dev-error.ts';
import { PlaygroundDirectory, defaultDirectory, nodeIds } from './dev/directory.ts';
import { endLeftovers, findLeftovers } from './dev/leftovers.ts';
import type { NodeCommand } from './dev/dev-node.ts';
import { Playground } from './dev/playground.ts';
import { poll } from './dev/poll.ts';
import { processInfo } from './dev/processes.ts';
import { runUser } from './dev/run-user.ts';

/** Where the commands' output goes and what becomes of a failure; the tests put their own in. */
export interface DevIo {
  print(line: string): void;
  fail(error: unknown): void;
}

const PROCESS_IO: DevIo = {
  print: (line) => console.log(line),
  fail: (error) => {
    // The stack of anything but a DevError is wanted: it is a bug.
    console.error(error instanceof DevError ? `pgmm dev: ${error.message}` : error);
    process.exitCode = 1;
  },
};

interface DirOption {
  dir?: string;
}

interface UpOptions extends DirOption {
  nodes?: number;
  port?: number;
  witness?: true;
  referee?: string;
  postgresBin?: string;
  relays: boolean;
}

/** `pgmm dev`: a cluster on this machine to try things on, and to break. */
export function devCommand(io: DevIo = PROCESS_IO): Command {
  const dev = new Command('dev').description('a cluster on this machine, to try things on and to break');

  withDir(dev.command('up'))
    .description('start N PostgreSQL servers and N proxies, and stay in the foreground until Ctrl-C')
    .option('--nodes <n>', 'how many nodes, 1 to 9 (default: as before, else 3)', integer)
    .option(
      '--port <first>',
      'first client port; all others are derived from it (default: as before, else 6001)',
      integer,
    )
    .option('--witness', 'one more node that only votes, without PostgreSQL: the third vote for --nodes 2')
    .option('--referee <url>', 'a Redis that runs already, redis://…, as the third vote for --nodes 2')
    .option('--postgres-bin <dir>', 'programs of an installed PostgreSQL 15 or newer (default: the one from npm)')
    .option('--no-relays', 'let the nodes reach each other directly: quicker, but nothing can be partitioned')
    .action(guarded(io, (options: UpOptions) => up(io, options)));

  withDir(dev.command('status'))
    .description('what runs, and where')
    .option('--json', 'as JSON')
    .action(
      guarded(io, async (options: DirOption & { json?: true }) => {
        const { status } = await ask(directoryOf(options), { command: 'status' });
        io.print(options.json === true ? JSON.stringify(status, null, 2) : describe(status));
      }),
    );

  nodeCommand(dev, io, 'kill', 'end a node with SIGKILL, as a crash would');
  nodeCommand(dev, io, 'start', 'start what was killed, and wait until it serves');
  nodeCommand(dev, io, 'pause', 'freeze a node with SIGSTOP: it is there and does not answer');
  nodeCommand(dev, io, 'resume', 'let a frozen node go on');

  withDir(dev.command('delay'))
    .description("make a node's network slow, in milliseconds each way, such as: delay 3 2000")
    .argument('<node>', 'number of the node', integer)
    .argument('<ms>', 'milliseconds; 0 undoes it', integer)
    .action(
      guarded(io, async (node: number, milliseconds: number, options: DirOption) => {
        await send(io, options, { command: 'delay', node, milliseconds });
      }),
    );
  withDir(dev.command('partition'))
    .description('cut the network between groups of nodes, such as: partition 1 2,3')
    .argument('<groups...>', 'node numbers separated by commas; a node in no group reaches all others')
    .option('--one-way', 'lose only what the first group sends to the second')
    .option('--reset', 'reset connections and refuse new ones, instead of silence')
    .action(
      guarded(io, async (groups: string[], options: DirOption & { oneWay?: true; reset?: true }) => {
        const { oneWay = false, reset = false } = options;
        await send(io, options, { command: 'partition', groups: groups.map(nodeList), oneWay, reset });
      }),
    );

  withDir(dev.command('heal'))
    .description('undo partitions and delays; what was held back arrives')
    .action(guarded(io, (options: DirOption) => send(io, options, { command: 'heal' })));

  withDir(dev.command('down'))
    .description('stop everything; the data stays')
    .action(guarded(io, (options: DirOption) => down(io, options)));

  return dev;
}

function withDir(command: Command): Command {
  return command.option('--dir <dir>', 'where the playground is (default: ./pgmm-dev)');
}

function nodeCommand(dev: Command, io: DevIo, name: NodeCommand, description: string): void {
  withDir(dev.command(name))
    .description(description)
    .argument('<node>', 'its number', integer)
    .argument('[what]', WHATS.join(', '), whatOf, 'both')
    .action(
      guarded(io, (node: number, what: What, options: DirOption) => send(io, options, { command: name, node, what })),
    );
}

/** Commander calls actions with the arguments, the options and the command; a failure goes to `io`. */
function guarded<Args extends unknown[]>(io: DevIo, action: (...args: Args) => Promise<void>) {
  return async (...args: Args): Promise<void> => {
    try {
      await action(...args);
    } catch (error) {
      io.fail(error);
    }
  };
}

function directoryOf({ dir }: DirOption): PlaygroundDirectory {
  return new PlaygroundDirectory(dir ?? defaultDirectory(runUser()).path);
}

async function send(io: DevIo, options: DirOption, request: Request): Promise<void> {
  io.print((await ask(directoryOf(options), request)).text);
}

async function up(io: DevIo, options: UpOptions): Promise<void> {
  if (process.platform === 'win32')
    throw new DevError('the playground needs signals that Windows does not have: use WSL');
  const user = runUser();
  const usual = options.dir === undefined ? defaultDirectory(user) : undefined;
  if (usual?.elsewhere === true) {
    io.print(`user ${user?.name ?? ''} can't reach the current directory, so the playground is in ${usual.path}`);
  }
  const playground = new Playground({
    directory: new PlaygroundDirectory(options.dir ?? usual!.path),
    nodes: options.nodes,
    port: options.port,
    witness: options.witness,
    referee: options.referee,
    postgresBin: options.postgresBin,
    relays: options.relays,
    program: program(),
    proxyCommand: proxyCommand(),
    user,
    say: (line) => io.print(line),
  });
  let asked = 0;
  const onSignal = (): void => {
    asked += 1;
    if (asked > 1) playground.hurry();
    else playground.down().catch((error: unknown) => io.fail(error));
  };
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;
  for (const signal of signals) process.on(signal, onSignal);
  try {
    await playground.up();
    if (playground.status.phase === 'up') io.print(welcome(playground.status, options.dir));
    await playground.ended;
  } finally {
    for (const signal of signals) process.off(signal, onSignal);
  }
}

/** The proxies are this same program, run in the same way; the tests of the playground put a stand-in here. */
function proxyCommand(): string[] {
  const replaced = process.env['PGMM_DEV_PROXY_COMMAND'];
  if (replaced !== undefined) return JSON.parse(replaced) as string[];
  return [...program(), 'run'];
}

/** This program, as it was started. */
function program(): string[] {
  return [process.execPath, ...process.execArgv, process.argv[1]];
}

async function down(io: DevIo, options: DirOption): Promise<void> {
  const directory = directoryOf(options);
  const reply = await askRunning(directory, { command: 'down' });
  if (reply?.ok === true) {
    await poll('the playground ends', () => processInfo(reply.status.pid) === undefined, { timeoutMs: 10_000 });
    io.print(reply.text);
    return;
  }
  if (reply !== undefined) throw new DevError(reply.error);
  const settings = directory.settings();
  const leftovers = findLeftovers(directory, settings === undefined ? [] : nodeIds(settings));
  if (leftovers.length === 0) throw new DevError(`no playground is running in ${directory.path}`);
  await endLeftovers(leftovers);
  io.print(`ended what a killed playground had left: ${leftovers.map(({ name }) => name).join(', ')}`);
}

function welcome({ nodes }: PlaygroundStatus, dir: string | undefined): string {
  const where = dir === undefined ? '' : ` --dir ${dir}`;
  const count = nodes.filter(({ uri }) => uri !== null).length;
  return [
    '',
    `${count === 1 ? 'One node is' : `${count} nodes are`} up; what is committed on one is on all.`,
    ...nodes.map(({ id, uri, metrics }) =>
      uri === null
        ? `  node ${id}   a witness   metrics ${metrics}`
        : `  node ${id}   psql ${uri}   metrics ${metrics}`,
    ),
    '',
    `Stop with Ctrl-C here, or \`pgmm dev down${where}\` elsewhere. Try: pgmm dev kill 2${where}`,
  ].join('\n');
}

function describe({ phase, dir, partition, nodes }: PlaygroundStatus): string {
  const cut =
    partition === null
      ? 'none'
      : `${partition.groups.map((group) => group.join(',')).join(partition.oneWay ? ' → ' : ' | ')}${partition.reset ? ' (reset)' : ''}`;
  return [
    `playground ${dir}: ${phase}, partition: ${cut}`,
    ...nodes.map(({ id, proxy, postgres, uri, metrics }) =>
      postgres === null
        ? `  node ${id}   witness ${proxy.padEnd(8)} ${metrics}`
        : `  node ${id}   proxy ${proxy.padEnd(8)} PostgreSQL ${postgres.padEnd(8)} ${uri ?? ''}   ${metrics}`,
    ),
  ].join('\n');
}

function integer(text: string): number {
  if (!/^\d+$/.test(text)) throw new InvalidArgumentError('it must be a whole number');
  return Number(text);
}

function nodeList(text: string): number[] {
  if (!/^\d+(,\d+)*$/.test(text)) throw new DevError(`"${text}" is not a list of node numbers such as 2,3`);
  return text.split(',').map(Number);
}

function whatOf(text: string): What {
  const what = WHATS.find((known) => known === text);
  if (what === undefined) throw new InvalidArgumentError(`it must be one of ${WHATS.join(', ')}`);
  return what;
}
