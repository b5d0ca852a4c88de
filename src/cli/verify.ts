import { setTimeout as sleep } from 'node:timers/promises';
import { Command, InvalidArgumentError } from 'commander';
import { parseDuration, parseSize } from '../config/values.ts';
import { compareOrder } from './verify/order.ts';
import { formatReport } from './verify/report.ts';
import type { Difference, VerifyReport } from './verify/report.ts';
import { compareSchemas } from './verify/schema.ts';
import { closeSnapshots, openSnapshots } from './verify/snapshot.ts';
import { checkState } from './verify/state.ts';
import { compareTables } from './verify/tables.ts';
import { targetsOfConfig, targetsOfPlayground, targetsOfUris } from './verify/targets.ts';
import type { Targets } from './verify/targets.ts';

export type { Difference, VerifyReport } from './verify/report.ts';
export { targetsOfConfig, targetsOfPlayground, targetsOfUris } from './verify/targets.ts';
export type { Target, Targets } from './verify/targets.ts';

export interface VerifyOptions {
  /** How long to wait for the nodes to have committed the same, and for differences to go away. */
  readonly waitMs: number;
  /** How far a slot of the proxy may be behind its server, in bytes of WAL. */
  readonly maxSlotLag: number;
  /** Differing rows to show of each table. */
  readonly rowLimit: number;
}

export const VERIFY_DEFAULTS: VerifyOptions = {
  waitMs: 10_000,
  maxSlotLag: 16 * 1024 * 1024,
  rowLimit: 10,
};

interface CommandOptions {
  readonly config?: string;
  readonly dir?: string;
  readonly wait: number;
  readonly maxSlotLag: number;
  readonly rows: number;
  readonly json?: true;
}

/** `pgmm verify`: whether all nodes have the same data and the same schema, asked of their PostgreSQL servers directly. */
export function verifyCommand(print: (line: string) => void = console.log): Command {
  return new Command('verify')
    .description('whether all nodes hold the same data and schema; connects to their PostgreSQL servers directly')
    .argument('[uri...]', 'PostgreSQL servers (not proxies), instead of --config or --dir')
    .option('--config <file>', 'the nodes of this configuration, each with a postgres address')
    .option('--dir <dir>', 'the nodes of this playground of pgmm dev')
    .option('--wait <duration>', 'how long the nodes may take to come to the same', duration, VERIFY_DEFAULTS.waitMs)
    .option('--max-slot-lag <size>', 'how far a replication slot may be behind', size, VERIFY_DEFAULTS.maxSlotLag)
    .option('--rows <n>', 'how many differing rows to show of each table', count, VERIFY_DEFAULTS.rowLimit)
    .option('--json', 'as JSON')
    .action(async (uris: string[], options: CommandOptions, command: Command) => {
      const report = await verify(chooseTargets(uris, options, command), {
        ...{ waitMs: options.wait, maxSlotLag: options.maxSlotLag, rowLimit: options.rows },
      });
      if (options.json) print(JSON.stringify(report, null, 2));
      else for (const line of formatReport(report)) print(line);
      if (!report.same) process.exitCode = 1;
    });
}

function chooseTargets(uris: readonly string[], { config, dir }: CommandOptions, command: Command): Targets {
  const ways = [uris.length > 0, config !== undefined, dir !== undefined].filter(Boolean).length;
  if (ways !== 1) command.error('error: give one of --config, --dir, or two or more URIs');
  if (config !== undefined) return targetsOfConfig(config);
  if (dir !== undefined) return targetsOfPlayground(dir);
  if (uris.length < 2) command.error('error: one server has nothing to be compared with');
  return targetsOfUris(uris);
}

/**
 * Compares all nodes. A difference counts only if it is still there after `waitMs`: commits reach the nodes one after the
 * other, and snapshots can't be taken at the same instant.
 */
export async function verify(targets: Targets, options: Partial<VerifyOptions> = {}): Promise<VerifyReport> {
  const settings = { ...VERIFY_DEFAULTS, ...options };
  const deadline = Date.now() + settings.waitMs;
  for (;;) {
    const report = await compareOnce(targets, settings, Math.max(0, deadline - Date.now()));
    if (report.same || Date.now() >= deadline) return report;
    await sleep(Math.min(500, Math.max(0, deadline - Date.now())));
  }
}

async function compareOnce(
  { targets, databases }: Targets,
  options: VerifyOptions,
  waitMs: number,
): Promise<VerifyReport> {
  const differences: Difference[] = [];
  const notes: string[] = [];
  const compared: VerifyReport['databases'][number][] = [];
  for (const [index, name] of databases.entries()) {
    const snapshots = await openSnapshots(targets, name, waitMs);
    try {
      const schema = await compareSchemas(snapshots);
      const data = await compareTables(snapshots, options.rowLimit);
      differences.push(...[...schema.differences, ...data.differences].map((one) => ({ ...one, database: name })));
      notes.push(...[...schema.notes, ...data.notes].map((note) => `${name}: ${note}`));
      const order = await compareOrder(targets, name);
      differences.push(...order.differences.map((one) => ({ ...one, database: name })));
      notes.push(...order.notes.map((note) => `${name}: ${note}`));
      compared.push({ name, tables: data.tables, rows: data.rows, objects: schema.objects, commits: order.commits });
      // Prepared transactions, slots and origins are the server's, whichever database they are seen from.
      if (index === databases.length - 1) differences.push(...(await checkState(snapshots, options.maxSlotLag)));
    } finally {
      await closeSnapshots(snapshots);
    }
  }
  return {
    same: differences.length === 0,
    nodes: targets.map(({ name }) => name),
    databases: compared,
    differences,
    notes,
  };
}

function duration(text: string): number {
  const value = text === '0' ? 0 : parseDuration(text);
  if (value === undefined) throw new InvalidArgumentError('A duration such as 500ms or 10s.');
  return value;
}

function size(text: string): number {
  const value = parseSize(text);
  if (value === undefined) throw new InvalidArgumentError('A size such as 16MB.');
  return value;
}

function count(text: string): number {
  if (!/^\d{1,6}$/.test(text)) throw new InvalidArgumentError('A whole number.');
  return Number(text);
}
