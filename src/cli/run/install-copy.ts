import { existsSync } from 'node:fs';
import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { DataDirectory } from '../../cluster/reclone/data-directory.ts';
import pg from 'pg';
import { LOGICAL_COPY_NOTE } from '../../cluster/reclone/logical-target.ts';
import { REQUEST_FILE } from '../../cluster/reclone/recloner.ts';
import { isWitness, type Config } from '../../config/schema.ts';
import { oldName } from '../../replication/logical-copy/names.ts';
import { dropFormer, putInPlace } from '../../replication/logical-copy/swap.ts';
import { faultPoint } from '../../runtime/fault-points.ts';
import type { Logger } from '../../runtime/log.ts';
import { connect, takeIn } from '../adopt.ts';
import { OwnSequences } from './own-sequences.ts';
import { createLogicalTarget } from './reclone-parts.ts';

/** Milliseconds for PostgreSQL to recover and accept connections, and between attempts. */
const START_TIMEOUT = 600_000;
const ATTEMPT_EVERY = 500;

/**
 * Puts a complete copy of another node's data in the place of this node's, if there is one, and makes it this node's own. To be called while no proxy
 * runs. May be called again after it failed or was interrupted at any point, and goes on. An incomplete copy is thrown away.
 */
export async function installCopy(config: Config, log: Logger): Promise<void> {
  if (isWitness(config)) return;
  await installDirectory(config, log);
  await installDatabases(config, log);
}

async function installDirectory(config: Config, log: Logger): Promise<void> {
  const { dataDirectory, stop, start, keepOld } = config.reclone;
  if (dataDirectory === undefined || stop === undefined || start === undefined) return;
  const data = new DataDirectory(dataDirectory);
  if (!(await data.isDue())) return data.discardCopy();
  log.warn({ directory: data.path }, 'putting the copy of the data in place');
  await noteSequences(config, log);
  const old = await data.install({ stop, start }, keepOld, new Date());
  if (old !== undefined) log.warn(`the former data are in ${old}`);
  await whenReady(() => adopt(config, log));
  await data.settle();
}

/** As for a directory: the note of a logical copy tells what is to be done. */
async function installDatabases(config: Config, log: Logger): Promise<void> {
  if (!existsSync(join(config.dataDir, LOGICAL_COPY_NOTE))) return;
  const target = createLogicalTarget(config);
  const note = await target.note();
  if (note === undefined || note.state === 'loading') return target.discard();
  const { header, time, state } = note;
  if (state === 'complete') {
    log.warn({ donor: header.node, index: header.index }, 'putting the copied databases in place');
    await noteSequences(config, log);
    await putInPlace(target.server, header, time);
    await target.placed(note);
  }
  await adopt(config, log);
  faultPoint('copy.adopted');
  try {
    for (const line of await dropFormer(target.server, header, time, config.reclone.keepOld)) log.warn(line);
  } catch (error) {
    // What PostgreSQL refuses it will refuse again; where it has gone, it is asked again later.
    if (!(error instanceof pg.DatabaseError) || error.code?.startsWith('57P') === true) throw error;
    log.error({ err: error }, `the former databases are still there (${oldName('…', time)}): ${error.message}`);
  }
  await target.settle();
}

/** Data that can't be asked any more are replaced all the same: often that is why. */
async function noteSequences(config: Config, log: Logger): Promise<void> {
  const sequences = new OwnSequences(config, (database) => connect(config, database));
  try {
    await whenReady(() => sequences.note(), IS_STARTING);
  } catch (error) {
    const { message } = error as Error;
    log.warn(
      `how far this node's sequences have come can't be asked any more, so they go on from the copy: ${message}`,
    );
  }
}

/** Whoever has asked for a copy has got it, also where that could not be noted down any more when it was complete. */
async function adopt(config: Config, log: Logger): Promise<void> {
  for (const line of await takeIn(config, false)) log.warn(line);
  await rm(join(config.dataDir, REQUEST_FILE), { force: true });
}

/** PostgreSQL recovers. */
const IS_STARTING = ['57P03'];
/** The same, or it does not listen yet. */
const NOT_READY = [...IS_STARTING, 'ECONNREFUSED', 'ENOENT', '08001', '08006'];

/** Tries until PostgreSQL accepts connections. */
async function whenReady(work: () => Promise<void>, retried = NOT_READY): Promise<void> {
  const deadline = performance.now() + START_TIMEOUT;
  for (;;) {
    try {
      await work();
      return;
    } catch (error) {
      const { code = '' } = error as { code?: string };
      if (!retried.includes(code) || performance.now() > deadline) throw error;
      await sleep(ATTEMPT_EVERY);
    }
  }
}
