import { access, constants, mkdtemp, open, rm, statfs } from 'node:fs/promises';
import { connect } from 'node:net';
import { dirname, join } from 'node:path';
import type { Config, NodeConfig } from '../../config/schema.ts';
import { failed, ok, warning } from './result.ts';
import type { CheckResult } from './result.ts';

const PEER_TIMEOUT_MS = 2000;
/** A disk slower than this bounds commits of one client to fewer than fifty a second. */
const SLOW_FSYNC_MS = 20;
const FSYNC_ROUNDS = 5;
/** File systems that are gone after a power failure, by statfs(2)'s type: tmpfs and ramfs. */
const VOLATILE = new Set([0x0102_1994, 0x8584_58f6]);

/** What concerns this machine and its surroundings rather than PostgreSQL. */
export async function checkMachine(config: Config): Promise<CheckResult[]> {
  const others = config.nodes.filter(({ id }) => id !== config.node);
  return [await checkDataDir(config.dataDir), ...(await Promise.all(others.map(checkPeer)))];
}

async function checkDataDir(dataDir: string): Promise<CheckResult> {
  const existing = await nearestExisting(dataDir);
  try {
    await access(existing, constants.W_OK | constants.X_OK);
    const { type } = await statfs(existing);
    if (VOLATILE.has(type)) {
      return failed(
        'data_dir',
        `${dataDir} is in memory: a power failure would lose the decision log`,
        'Use a directory on a disk.',
      );
    }
    const ms = await measureFsync(existing);
    const found = `${dataDir}${existing === dataDir ? '' : ' (will be created)'}, fsync takes ${ms.toFixed(1)} ms`;
    if (ms <= SLOW_FSYNC_MS) return ok('data_dir', found);
    return warning('data_dir', found, 'Every commit waits for one fsync or more here: use a quicker disk.');
  } catch (error) {
    const user = process.env['USER'] ?? 'the user of pgmm';
    const cure = `mkdir -p ${dataDir} && chown ${user} ${dataDir}`;
    return failed('data_dir', error instanceof Error ? error.message : String(error), cure);
  }
}

async function nearestExisting(path: string): Promise<string> {
  try {
    await access(path);
    return path;
  } catch {
    const parent = dirname(path);
    return parent === path ? path : await nearestExisting(parent);
  }
}

/** The median of a few. Fails where the file system can't make data durable. */
async function measureFsync(parent: string): Promise<number> {
  const folder = await mkdtemp(join(parent, '.pgmm-check-'));
  try {
    const file = await open(join(folder, 'fsync'), 'w');
    const times: number[] = [];
    try {
      for (let round = 0; round < FSYNC_ROUNDS; round++) {
        const start = performance.now();
        await file.write('x'.repeat(512));
        await file.datasync();
        times.push(performance.now() - start);
      }
    } finally {
      await file.close();
    }
    return times.sort((a, b) => a - b)[Math.floor(FSYNC_ROUNDS / 2)];
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Only a warning: the other nodes may not have been started yet. */
async function checkPeer({ id, peer }: NodeConfig): Promise<CheckResult> {
  const title = `node ${id}`;
  const at = `${peer.host}, port ${peer.port}`;
  const problem = await new Promise<string | undefined>((resolve) => {
    const socket = connect({ host: peer.host, port: peer.port, timeout: PEER_TIMEOUT_MS });
    const settle = (result: string | undefined): void => {
      socket.destroy();
      resolve(result);
    };
    socket.once('connect', () => settle(undefined));
    socket.once('timeout', () => settle('no answer'));
    socket.once('error', (error) => settle(error.message || 'not reachable'));
  });
  if (problem === undefined) return ok(title, `reachable at ${at}`);
  return warning(
    title,
    `${problem} (${at})`,
    'Start pgmm there, open the port in the firewall, or correct nodes[].peer.',
  );
}
