/**
 * A snapshot is one file: magic, crc32 of the rest, version, index and term as decimal text in a fixed width, state. It
 * gets its name only when it is durable, so a file with that name that isn't sound is damaged.
 */
import { join } from 'node:path';
import { crc32 } from 'node:zlib';
import type { LogIndex } from '../runtime/ids.ts';
import type { Snapshot } from './core/types.ts';
import type { Disk } from './disk.ts';
import { LogCorruption } from './log-recovery.ts';

const NAME = /^snapshot-(\d{16})$/;
const MAGIC = Buffer.from('PGMMSNP1');
const HEAD = 48;

const nameOf = (index: LogIndex): string => `snapshot-${String(index).padStart(16, '0')}`;

/** Durable when the promise resolves; older snapshots are removed only then. */
export async function writeSnapshot(disk: Disk, directory: string, snapshot: Snapshot): Promise<void> {
  const path = join(directory, nameOf(snapshot.index));
  const file = await disk.open(`${path}.tmp`, true);
  try {
    file.write(encode(snapshot), 0);
    await file.sync();
  } finally {
    await file.close();
  }
  await disk.rename(`${path}.tmp`, path);
  await disk.syncDirectory(directory);
  for (const name of await disk.list(directory)) {
    if (NAME.test(name) && name < nameOf(snapshot.index)) await disk.remove(join(directory, name));
  }
}

/** The newest snapshot in the directory. */
export async function readSnapshot(disk: Disk, directory: string): Promise<Snapshot | null> {
  const name = (await disk.list(directory))
    .filter((one) => NAME.test(one))
    .sort()
    .at(-1);
  if (name === undefined) return null;
  const path = join(directory, name);
  const snapshot = decode(Buffer.from(await disk.read(path)));
  if (snapshot === null || nameOf(snapshot.index) !== name) throw new LogCorruption(path, 0, 'the snapshot is damaged');
  return snapshot;
}

function encode({ index, term, state }: Snapshot): Buffer {
  const bytes = Buffer.alloc(HEAD + state.length);
  MAGIC.copy(bytes);
  bytes.write(String(index).padStart(16, '0') + String(term).padStart(16, '0'), 16, 'latin1');
  bytes.set(state, HEAD);
  bytes.writeUInt32LE(crc32(bytes.subarray(16)), 8);
  return bytes;
}

function decode(bytes: Buffer): Snapshot | null {
  if (bytes.length < HEAD || !bytes.subarray(0, 8).equals(MAGIC)) return null;
  if (bytes.readUInt32LE(8) !== crc32(bytes.subarray(16))) return null;
  const index = Number(bytes.toString('latin1', 16, 32)) as LogIndex;
  return { index, term: Number(bytes.toString('latin1', 32, 48)), state: new Uint8Array(bytes.subarray(HEAD)) };
}
