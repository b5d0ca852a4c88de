import { get } from 'node:http';
import { Child } from './child.ts';
import { HOST } from './ports.ts';
import { poll } from './poll.ts';
import { Service } from './service.ts';

export interface ProxyProcessOptions {
  readonly name: string;
  /** The program and its first arguments; `--config FILE` is added. */
  readonly command: readonly string[];
  readonly configFile: string;
  readonly logFile: string;
  readonly adminPort: number;
}

/** One proxy, run as a process of its own so that it can be killed and frozen like any other. */
export class ProxyProcess extends Service {
  readonly #options: ProxyProcessOptions;

  protected readonly stopSteps = [{ signal: 'SIGTERM', waitMs: 10_000 }] as const;

  constructor(options: ProxyProcessOptions) {
    super(options.name, options.logFile);
    this.#options = options;
  }

  protected async launch(): Promise<Child> {
    const { command, configFile, logFile } = this.#options;
    const [program, ...args] = [...command, '--config', configFile];
    return await Child.spawn({ command: program, args, env: process.env, logFile, cwd: process.cwd() });
  }

  protected async ready(): Promise<boolean> {
    const { status, body } = await fetchText(`http://${HOST}:${this.#options.adminPort}/healthz`);
    if (status === 200) return true;
    throw new Error(`/healthz answers ${status}: ${body.trim().slice(0, 300)}`);
  }

  /** Waits until it takes writes: it has joined the others. */
  async writable(timeoutMs: number, signal?: AbortSignal): Promise<void> {
    const probe = async (): Promise<boolean> => {
      const { status, body } = await fetchText(`http://${HOST}:${this.#options.adminPort}/readyz`);
      if (status === 200) return true;
      throw new Error(`/readyz answers ${status}: ${body.trim().slice(0, 300)}`);
    };
    await poll(`${this.name} takes writes`, probe, { timeoutMs, signal });
  }
}

async function fetchText(url: string): Promise<{ status: number; body: string }> {
  return await new Promise((resolve, reject) => {
    const request = get(url, { timeout: 2000, agent: false }, (response) => {
      let body = '';
      response.setEncoding('utf8');
      response.on('data', (text: string) => (body += text));
      response.on('end', () => resolve({ status: response.statusCode ?? 0, body }));
      response.on('error', reject);
    });
    request.on('timeout', () => request.destroy(new Error('/healthz does not answer')));
    request.on('error', reject);
  });
}
