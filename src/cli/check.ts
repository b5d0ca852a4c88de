import { Command } from 'commander';
import pg from 'pg';
import { clientConfig } from '../config/client-config.ts';
import { ConfigError, loadConfig } from '../config/load.ts';
import { isWitness, type Config } from '../config/schema.ts';
import { checkDatabase } from './check/database.ts';
import { connectionCure } from './check/connection.ts';
import { checkMachine } from './check/machine.ts';
import { checkReferee } from './check/referee.ts';
import { failed, ok } from './check/result.ts';
import type { CheckResult } from './check/result.ts';
import { checkServer } from './check/server.ts';

export type { CheckResult } from './check/result.ts';

/** `pgmm check`: whether this machine and the PostgreSQL server beside it can be a node, and what to do if not. */
export function checkCommand(print: (line: string) => void = console.log): Command {
  return new Command('check')
    .description('whether this machine and its PostgreSQL server can be a node, with the cure for what is wrong')
    .requiredOption('--config <file>', 'the configuration file')
    .option('--json', 'as JSON')
    .action(async (options: { config: string; json?: true }) => {
      let results: CheckResult[];
      try {
        const config = loadConfig(options.config);
        results = [
          ok('configuration', options.config),
          ...(await checkMachine(config)),
          ...(await checkReferee(config)),
          ...(isWitness(config) ? [ok('PostgreSQL', 'none: a witness needs no server')] : await checkPostgres(config)),
        ];
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        results = [failed('configuration', error.message, 'Correct the settings named above.')];
      }
      if (options.json) print(JSON.stringify(results, null, 2));
      else for (const line of formatResults(results)) print(line);
      if (results.some(({ status }) => status === 'failed')) process.exitCode = 1;
    });
}

/** Everything about the PostgreSQL server: its settings, what the proxy may do there, and the coordinated databases. */
export async function checkPostgres(config: Config): Promise<CheckResult[]> {
  const client = new pg.Client(clientConfig(config.postgres));
  client.on('error', () => undefined);
  const { host, port, user, database } = config.postgres;
  try {
    await client.connect();
  } catch (error) {
    return [failed('connection', message(error), connectionCure(error, config.postgres, database))];
  }
  try {
    const results = [ok('connection', `${user} at ${host}, port ${port}`), ...(await checkServer(client, config))];
    for (const name of config.databases) results.push(...(await checkDatabase(client, config, name)));
    return results;
  } finally {
    await client.end();
  }
}

/** One line per check, and one more for its cure. */
export function formatResults(results: readonly CheckResult[]): string[] {
  const width = Math.max(...results.map(({ name }) => name.length));
  const marks = { ok: 'ok     ', warning: 'WARNING', failed: 'FAILED ' };
  const lines = results.flatMap(({ name, status, found, cure }) => [
    `${marks[status]}  ${name.padEnd(width)}  ${found}`,
    ...(cure === undefined ? [] : cure.split('\n').map((line) => `${' '.repeat(9)}${line}`)),
  ]);
  const count = (wanted: CheckResult['status']): number => results.filter(({ status }) => status === wanted).length;
  return [...lines, '', `${count('ok')} ok, ${count('warning')} to look at, ${count('failed')} failed`];
}

const message = (error: unknown): string => (error instanceof Error ? error.message || error.name : String(error));
