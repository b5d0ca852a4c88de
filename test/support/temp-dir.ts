import { chmodSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

/** A new directory that PostgreSQL's user can pass through as well. */
export function makeTempDir(prefix: string): string {
  const dir = mkdtempSync(join(tmpdir(), `pgmm-test-${prefix}-`));
  chmodSync(dir, 0o755);
  return dir;
}

/** PGMM_TEST_KEEP=1 keeps the data and the logs, to look at after a failure. */
export function removeTempDir(dir: string): void {
  if (process.env['PGMM_TEST_KEEP'] === undefined) rmSync(dir, { recursive: true, force: true });
}
