import { describe, expect, it } from 'vitest';
import { Committer } from '../../../src/commit/committer.ts';
import { CommitLanes } from '../../../src/commit/core/commit-lanes.ts';
import { COMMIT_WINDOW } from '../../../src/commit/core/commit-progress.ts';
import type { DecidedCommit } from '../../../src/commit/core/commit-queue.ts';
import { logIndex, type Gid } from '../../../src/runtime/ids.ts';

const entry = (index: number, database = 'app'): DecidedCommit => ({
  index: logIndex(index),
  gid: `g${index}` as Gid,
  database,
  time: 0,
  dependsOn: logIndex(0),
  notify: false,
});

describe('lanes', () => {
  it('report in log order, whichever commit ends first', () => {
    const lanes = new CommitLanes(4);
    expect([6, 7, 9].flatMap((index) => lanes.add(entry(index))).map(({ lane }) => lane)).toEqual([2, 3, 1]);
    expect(lanes.done(logIndex(9)).reported).toEqual([]);
    expect(lanes.done(logIndex(6)).reported).toEqual([6]);
    expect(lanes.done(logIndex(7)).reported).toEqual([7, 9]);
  });

  it('let nothing begin too far ahead of the oldest', () => {
    const lanes = new CommitLanes(2);
    expect(lanes.add(entry(1))).toHaveLength(1);
    expect(lanes.add(entry(COMMIT_WINDOW))).toHaveLength(1);
    expect(lanes.add(entry(COMMIT_WINDOW + 1))).toHaveLength(0);
    // Not past one that has to wait, even if its own lane is free.
    expect(lanes.add(entry(COMMIT_WINDOW + 2))).toHaveLength(0);
    expect(lanes.done(logIndex(1)).assigned.map((one) => one.entry.index)).toEqual([
      COMMIT_WINDOW + 1,
      COMMIT_WINDOW + 2,
    ]);
  });

  it('hold nothing back where there is one', () => {
    const lanes = new CommitLanes(1);
    expect([1, 500, 1000].flatMap((index) => lanes.add(entry(index)))).toHaveLength(3);
  });
});

/** Commits when it is told to. */
class Held {
  readonly batches: { indexes: number[]; done: (index: number) => void; end: (error?: Error) => void }[] = [];

  commit(entries: readonly DecidedCommit[], done: (index: DecidedCommit['index']) => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.batches.push({
        indexes: entries.map(({ index }) => index),
        done: (index) => done(logIndex(index)),
        end: (error) => (error === undefined ? resolve() : reject(error)),
      });
    });
  }
}

const turns = async () => {
  for (let i = 0; i < 5; i++) await Promise.resolve();
};

function setUp(lanes: number) {
  const connections = new Map<string, Held>();
  const reported: number[] = [];
  const failures: Error[] = [];
  const committer = new Committer({
    connection: (database, lane) => {
      const key = `${database} ${lane}`;
      const known = connections.get(key) ?? new Held();
      connections.set(key, known);
      return known;
    },
    committed: (index) => reported.push(index),
    failed: (error) => failures.push(error),
  });
  committer.reset(lanes);
  const batches = (key: string) => connections.get(key)?.batches.map(({ indexes }) => indexes);
  return { committer, connections, reported, failures, batches };
}

describe('the committer', () => {
  it('commits strictly one after the other with one lane, over several databases', async () => {
    const { committer, connections, reported, batches } = setUp(1);
    for (const one of [entry(1), entry(2), entry(3, 'other'), entry(4)]) committer.commit(one);
    await turns();
    expect(batches('app 0')).toEqual([[1, 2]]);
    expect(batches('other 0')).toBeUndefined();
    const first = connections.get('app 0')!.batches[0];
    first.done(1);
    first.done(2);
    first.end();
    await turns();
    expect(reported).toEqual([1, 2]);
    expect(batches('other 0')).toEqual([[3]]);
    expect(batches('app 0')).toEqual([[1, 2]]);
  });

  it('held, ends what was begun and begins nothing more, then goes on from there', async () => {
    const { committer, connections, reported, batches } = setUp(2);
    for (const index of [1, 2]) committer.commit(entry(index));
    await turns();
    const hold = committer.hold();
    let isQuiet = false;
    void hold.quiet.then(() => (isQuiet = true));
    committer.commit(entry(3));
    const end = (key: string, batch: number, index: number) => {
      const one = connections.get(key)!.batches[batch];
      one.done(index);
      one.end();
    };
    end('app 1', 0, 1);
    await turns();
    expect(isQuiet).toBe(false);
    end('app 0', 0, 2);
    await turns();
    expect(isQuiet).toBe(true);
    expect(reported).toEqual([1, 2]);
    expect(batches('app 1')).toEqual([[1]]);
    expect(hold.release()).toBe(true);
    await turns();
    expect(batches('app 1')).toEqual([[1], [3]]);
  });

  it('tells that a hold was in vain when it was stopped meanwhile, and is held no more', async () => {
    const { committer, batches } = setUp(1);
    const hold = committer.hold();
    await committer.stop();
    expect(hold.release()).toBe(false);
    committer.reset(1);
    expect(hold.release()).toBe(false);
    committer.commit(entry(1));
    await turns();
    expect(batches('app 0')).toEqual([[1]]);
  });

  it('lets several lanes commit at once, and reports in order', async () => {
    const { committer, connections, reported, batches } = setUp(2);
    for (const index of [1, 2, 3, 4]) committer.commit(entry(index));
    await turns();
    expect([batches('app 1'), batches('app 0')]).toEqual([[[1, 3]], [[2, 4]]]);
    connections.get('app 0')!.batches[0].done(2);
    expect(reported).toEqual([]);
    connections.get('app 1')!.batches[0].done(1);
    expect(reported).toEqual([1, 2]);
  });

  it('begins nothing more in any lane once one has failed, and waits for what is under way', async () => {
    const { committer, connections, reported, failures, batches } = setUp(2);
    for (const index of [1, 2]) committer.commit(entry(index));
    await turns();
    committer.commit(entry(3));
    connections.get('app 1')!.batches[0].end(new Error('broken'));
    await turns();
    expect(failures.map(({ message }) => message)).toEqual(['broken']);
    expect(batches('app 1')).toEqual([[1]]);
    let stopped = false;
    const stopping = committer.stop().then(() => (stopped = true));
    await turns();
    expect(stopped).toBe(false);
    expect(() => committer.reset(2)).toThrow('still running');
    connections.get('app 0')!.batches[0].done(2);
    connections.get('app 0')!.batches[0].end();
    await stopping;
    expect(reported).toEqual([]);
    committer.reset(2);
    committer.commit(entry(1));
    await turns();
    connections.get('app 1')!.batches[1].done(1);
    expect(reported).toEqual([1]);
  });
});
