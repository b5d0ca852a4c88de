import { setTimeout as sleep } from 'node:timers/promises';
import { DataDirectory } from '../../cluster/reclone/data-directory.ts';
import type { Config } from '../../config/schema.ts';
import type { Logger } from '../../runtime/log.ts';
import { takeIn } from '../adopt.ts';

/** Milliseconds for PostgreSQL to recover and accept connections, and between attempts. */
const START_TIMEOUT = 600_000;
const ATTEMPT_EVERY = 500;

/**
 * Puts a complete copy of another node's data in the place of this node's, if there is one, and makes it this node's own. To be called while no proxy
 * runs. May be called again after it failed or was interrupted at any point, and goes on. An incomplete copy is thrown away.
 */
export async function installCopy(config: Config, log: Logger): Promise<void> {
  const { dataDirectory, stop, start, keepOld } = config.reclone;
  if (dataDirectory === undefined || stop === undefined || start === undefined) return;
  const data = new DataDirectory(dataDirectory);
  if (!(await data.isDue())) return data.discardCopy();
  log.warn({ directory: data.path }, 'putting the copy of the data in place');
  const old = await data.install({ stop, start }, keepOld, new Date());
  if (old !== undefined) log.warn(`the former data are in ${old}`);
  const deadline = performance.now() + START_TIMEOUT;
  for (;;) {
    try {
      for (const line of await takeIn(config, false)) log.warn(line);
      break;
    } catch (error) {
      if (!isNotReady(error) || performance.now() > deadline) throw error;
      await sleep(ATTEMPT_EVERY);
    }
  }
  await data.settle();
}

/** PostgreSQL does not listen yet, or recovers. */
function isNotReady(error: unknown): boolean {
  const { code = '' } = error as { code?: string };
  return ['ECONNREFUSED', 'ENOENT', '57P03', '08001', '08006'].includes(code);
}
