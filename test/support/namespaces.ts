import { execFile, execFileSync, spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { promisify } from 'node:util';

const run = promisify(execFile);
let count = 0;

/** Why network namespaces can't be used here; undefined if they can. */
export function namespacesMissing(): string | undefined {
  const name = `pgmm-probe-${process.pid}`;
  try {
    execFileSync('ip', ['netns', 'add', name], { stdio: 'pipe' });
    execFileSync('ip', ['-n', name, 'link', 'add', 'probe0', 'type', 'veth', 'peer', 'name', 'probe1'], {
      stdio: 'pipe',
    });
    return undefined;
  } catch (error) {
    return (error as Error).message.replaceAll('\n', ' ');
  } finally {
    try {
      execFileSync('ip', ['netns', 'del', name], { stdio: 'pipe' });
    } catch {
      // It was never made.
    }
  }
}

/** Two machines and a cable between them, as network namespaces. Pulled out, nothing arrives and nobody is told. */
export class Cable {
  static readonly HERE = '10.199.7.1';
  static readonly THERE = '10.199.7.2';
  readonly here: string;
  readonly there: string;
  readonly #children: ChildProcess[] = [];

  private constructor(here: string, there: string) {
    this.here = here;
    this.there = there;
  }

  static async lay(): Promise<Cable> {
    const suffix = `${process.pid}-${++count}`;
    const cable = new Cable(`pgmm-a-${suffix}`, `pgmm-b-${suffix}`);
    const { here, there } = cable;
    for (const name of [here, there]) await run('ip', ['netns', 'add', name]);
    await run('ip', ['link', 'add', 'cable', 'netns', here, 'type', 'veth', 'peer', 'name', 'cable', 'netns', there]);
    for (const [name, address] of [
      [here, Cable.HERE],
      [there, Cable.THERE],
    ]) {
      await run('ip', ['-n', name, 'addr', 'add', `${address}/24`, 'dev', 'cable']);
      await run('ip', ['-n', name, 'link', 'set', 'lo', 'up']);
      await run('ip', ['-n', name, 'link', 'set', 'cable', 'up']);
    }
    return cable;
  }

  /** The words that run a command on one of the machines. */
  static on(machine: string): string[] {
    return ['ip', 'netns', 'exec', machine];
  }

  /** Starts a command on the other machine. */
  start(command: readonly string[], stdin: 'ignore' | 'pipe' = 'ignore'): ChildProcess {
    const [program, ...args] = [...Cable.on(this.there), ...command];
    const child = spawn(program, args, { stdio: [stdin, 'pipe', 'inherit'] });
    this.#children.push(child);
    return child;
  }

  /** Passes connections to a port of the other machine on to a unix socket, or to a host and port. */
  async forward(port: number, ...target: string[]): Promise<void> {
    const script = new URL('./forwarder.ts', import.meta.url).pathname;
    const tsx = ['--import', import.meta.resolve('tsx')];
    const child = this.start([process.execPath, ...tsx, script, '0.0.0.0', String(port), ...target]);
    await once(child.stdout!, 'data');
  }

  async pull(): Promise<void> {
    await run('ip', ['-n', this.there, 'link', 'set', 'cable', 'down']);
  }

  async plug(): Promise<void> {
    await run('ip', ['-n', this.there, 'link', 'set', 'cable', 'up']);
  }

  async remove(): Promise<void> {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
    for (const name of [this.here, this.there]) await run('ip', ['netns', 'del', name]);
  }
}
