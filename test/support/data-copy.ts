import { execFile } from 'node:child_process';
import { renameSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { TestCluster } from './cluster.ts';

const run = promisify(execFile);

export const dataOf = (cluster: TestCluster, node: number): string => join(cluster.dir, `node${node}`, 'data');

/** As a file system would be copied: owners and modes stay. The server must be stopped. */
export async function copyDirectory(from: string, to: string): Promise<void> {
  rmSync(to, { recursive: true, force: true });
  await run('cp', ['-a', from, to]);
}

/** Puts a copy of one node's data in the place of another's; both servers must be stopped. */
export async function replaceData(cluster: TestCluster, node: number, donor: number): Promise<void> {
  const copy = `${dataOf(cluster, node)}.copy`;
  await copyDirectory(dataOf(cluster, donor), copy);
  rmSync(dataOf(cluster, node), { recursive: true });
  renameSync(copy, dataOf(cluster, node));
}

/** `pgmm adopt` for a node of the playground. Gives what it prints. */
export async function adopt(cluster: TestCluster, node: number, ...options: string[]): Promise<string> {
  const config = join(cluster.dir, `node${node}`, 'pgmm.yaml');
  const { stdout } = await run(process.execPath, ['dist/main.js', 'adopt', '--config', config, ...options]);
  return stdout;
}
