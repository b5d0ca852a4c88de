import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { HistorySlot } from '../../../src/replication/history/history-slot.ts';
import * as durable from '../../../src/runtime/durable-file.ts';
import { logIndex } from '../../../src/runtime/ids.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';

vi.mock('../../../src/runtime/durable-file.ts', { spy: true });

const RETENTION = { wal: 1 << 30, time: 3_600_000 };

describe('the note of what a history slot has', () => {
  let directory: string;
  beforeEach(() => {
    directory = makeTempDir('history-slot');
  });
  afterEach(() => removeTempDir(directory));

  /** What becomes durable, and what the server is asked to do, in the order in which it ends. */
  async function setUp() {
    const done: string[] = [];
    const ends =
      <Args extends unknown[]>(what: string, act: (...args: Args) => Promise<void>) =>
      async (...args: Args) => {
        await act(...args);
        done.push(what);
      };
    const real = await vi.importActual<typeof durable>('../../../src/runtime/durable-file.ts');
    vi.mocked(durable.replaceDurably).mockImplementation(ends('note', real.replaceDurably));
    vi.mocked(durable.removeDurably).mockImplementation(ends('no note', real.removeDurably));
    const server = { hasSlot: false, position: '0/1000000' };
    const ask = (sql: string): Promise<{ rows: unknown[] }> => {
      if (sql.includes('pg_replication_slots'))
        return Promise.resolve({ rows: server.hasSlot ? [{ confirmed: '0/1000000', lost: false }] : [] });
      if (sql.includes('slot_advance')) done.push('moved on');
      return Promise.resolve({ rows: [{ position: server.position }] });
    };
    const options = {
      control: { ask } as never,
      make: () => {
        done.push('made');
        server.hasSlot = true;
        return Promise.resolve();
      },
      name: 'history',
      file: join(directory, 'history.json'),
      committed: () => Promise.resolve(logIndex(5)),
    };
    return { done, server, options };
  }

  it('is gone for good before the slot is made, and there for good before it moves on: never does it promise too much', async () => {
    const { done, server, options } = await setUp();
    const slot = await HistorySlot.open(options);
    expect(done.splice(0)).toEqual(['no note', 'made', 'note']);

    server.position = '0/9000000';
    await slot.advance(() => logIndex(8), options.committed, logIndex(9), RETENTION);
    expect(done).toEqual(['note', 'moved on']);
    expect((await HistorySlot.open(options)).from).toBe(8);
  });
});
