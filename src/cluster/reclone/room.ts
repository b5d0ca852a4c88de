import { stat, statfs } from 'node:fs/promises';

const MIB = 1024 * 1024;
/** Bytes for the WAL that comes with a copy, which donors don't count, and for what this node itself writes in the meantime. */
const RESERVE = 64 * MIB;

/**
 * Rejects where `bytes` have no room in these directories together. A copy that fills the disk takes what this node's PostgreSQL and decision log need to
 * go on, and is of no use afterwards.
 */
export async function checkRoom(bytes: number, directories: readonly string[]): Promise<void> {
  const free = new Map<number, number>();
  for (const directory of directories) {
    const { dev } = await stat(directory);
    const { bavail, bsize } = await statfs(directory);
    free.set(dev, bavail * bsize);
  }
  const room = [...free.values()].reduce((a, b) => a + b, 0);
  if (bytes + RESERVE <= room) return;
  throw new Error(
    `there is no room for it: ${mib(bytes)} MiB are to come and ${mib(RESERVE)} to be left, ${directories.join(' and ')} have ${mib(room)}`,
  );
}

const mib = (bytes: number): number => Math.floor(bytes / MIB);
