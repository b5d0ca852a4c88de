import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { NodeIdentity } from '../../../src/cluster/node-identity.ts';
import { logIndex, lsn, nodeId } from '../../../src/runtime/ids.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

let directory: string;
beforeEach(() => (directory = makeTempDir('node-identity')));
afterEach(() => removeTempDir(directory));

test('that the log went back is news until it is noted down, and is found by the next run', async () => {
  const identity = new NodeIdentity(directory, 'test', nodeId(1));
  rmSync(directory, { recursive: true });
  await expect(identity.wentBack(logIndex(9))).rejects.toThrow('ENOENT');
  mkdirSync(directory);
  expect(await identity.wentBack(logIndex(9))).toBe(true);
  expect(await identity.wentBack(logIndex(9))).toBe(false);
  expect(readFileSync(join(directory, 'identity.json'), 'utf8')).toContain('"decided":9');
  const next = new NodeIdentity(directory, 'test', nodeId(1));
  expect(next.logRefusal(logIndex(8), false)?.code).toBe('log-lost');
  expect(next.logRefusal(logIndex(9), false)).toBeUndefined();
});

test('what could not be noted down is noted down the next time, though it has not changed since', async () => {
  const identity = new NodeIdentity(directory, 'test', nodeId(1));
  const none = { committed: logIndex(0), flushed: lsn(0x10n), mark: undefined };
  await identity.adopt({ systemIdentifier: '1', timeline: 1, inRecovery: false, ...none });
  const peers = {};
  const note = () => identity.note(logIndex(7), logIndex(5), lsn(0x20n), peers);
  rmSync(directory, { recursive: true });
  await expect(note()).rejects.toThrow('ENOENT');
  mkdirSync(directory);
  await note();
  expect(readFileSync(join(directory, 'identity.json'), 'utf8')).toContain('"decided":7');
});
