import { createHash } from 'node:crypto';
import { createReadStream, type Dirent } from 'node:fs';
import { open, readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';

export async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return false;
    throw error;
  }
}

/** Symbolic links are not followed. `directories` has the directory itself. */
export async function filesBelow(directory: string): Promise<{ files: string[]; directories: string[] }> {
  const entries = await readdir(directory, { recursive: true, withFileTypes: true });
  const path = (entry: Dirent): string => join(entry.parentPath, entry.name);
  return {
    files: entries.filter((entry) => entry.isFile()).map(path),
    directories: [...entries.filter((entry) => entry.isDirectory()).map(path), directory],
  };
}

/** SHA-256 of a file, in hexadecimal. */
export async function hashOf(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** Makes a file durable, or what a directory lists. */
export async function sync(path: string): Promise<void> {
  const handle = await open(path, 'r');
  try {
    await handle.sync();
  } finally {
    await handle.close();
  }
}
