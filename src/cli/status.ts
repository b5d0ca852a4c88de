import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command, InvalidArgumentError } from 'commander';
import type { ClusterStatus } from '../admin/status.ts';
import { loadConfig } from '../config/load.ts';
import { formatStatus } from './status/format.ts';

interface Options {
  readonly config?: string;
  readonly dir?: string;
  readonly json?: true;
}

/** Milliseconds that a node may take to answer. */
const TIMEOUT = 3000;

/** `pgmm status`: what nodes know of themselves, the others and the transactions in doubt, as their admin ports tell it. */
export function statusCommand(print: (line: string) => void = console.log): Command {
  return new Command('status')
    .description('state, members, lag and transactions in doubt, as running nodes tell it')
    .argument('[url...]', 'admin addresses such as http://10.0.0.1:6434, instead of --config or --dir')
    .option('--config <file>', 'the node of this configuration')
    .option('--dir <dir>', 'all nodes of this playground of pgmm dev')
    .option('--json', 'as JSON, one object a node')
    .action(async (urls: string[], options: Options) => {
      const answers = await Promise.all(addresses(urls, options).map(ask));
      for (const { url, status, failure } of answers) {
        if (options.json) print(JSON.stringify({ url, ...(status ?? { failure }) }));
        else for (const line of status === undefined ? [`${url}: ${failure ?? ''}`] : formatStatus(status)) print(line);
      }
      if (answers.some(({ status }) => status === undefined)) process.exitCode = 1;
    });
}

function addresses(urls: readonly string[], { config, dir }: Options): string[] {
  if ([urls.length > 0, config !== undefined, dir !== undefined].filter(Boolean).length !== 1)
    throw new InvalidArgumentError('Give one of --config, --dir, or addresses.');
  if (config !== undefined) {
    const { admin } = loadConfig(config);
    return [`http://${['0.0.0.0', '::'].includes(admin.host) ? '127.0.0.1' : admin.host}:${admin.port}`];
  }
  if (dir === undefined) return [...urls];
  const { nodes, witnesses } = JSON.parse(readFileSync(join(dir, 'cluster.json'), 'utf8')) as Record<
    'nodes' | 'witnesses',
    { metrics: string }[]
  >;
  return [...nodes, ...witnesses].map(({ metrics }) => new URL('/', metrics).href);
}

async function ask(url: string): Promise<{ url: string; status?: ClusterStatus; failure?: string }> {
  try {
    const response = await fetch(new URL('/status', url), { signal: AbortSignal.timeout(TIMEOUT) });
    if (!response.ok) return { url, failure: `answers ${response.status}` };
    return { url, status: (await response.json()) as ClusterStatus };
  } catch (error) {
    const { message, cause } = error as Error;
    return { url, failure: `does not answer: ${cause instanceof Error ? cause.message : message}` };
  }
}
