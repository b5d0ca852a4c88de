import { describe, expect, it } from 'vitest';
import { PeerLogs } from '../../../src/cluster/peer-logs.ts';
import { logIndex, nodeId } from '../../../src/runtime/ids.ts';

const three = nodeId(3);
const shown = (name: string, last: number) => ({ name, last: logIndex(last) });

function remembering(): PeerLogs {
  const logs = new PeerLogs();
  logs.met(three, shown('a', 100));
  logs.heard(three, logIndex(120), true);
  return logs;
}

describe("what a node remembers of its peers' decision logs", () => {
  it('takes any log of a peer that it has never heard of', () => {
    expect(new PeerLogs().remember(three)(shown('a', 0))).toBeUndefined();
  });

  it('refuses a log that ends before what its node knew to be decided', () => {
    const logs = remembering();
    expect(logs.remember(three)(shown('a', 120))).toBeUndefined();
    expect(logs.remember(three)(shown('a', 119))).toMatchObject({ had: 120 });
  });

  it('does not count upon entries that were shown and may not have been decided', () => {
    const logs = new PeerLogs();
    logs.met(three, shown('a', 500));
    logs.heard(three, logIndex(400), true);
    expect(logs.remember(three)(shown('a', 400))).toBeUndefined();
  });

  it('holds nothing against a log that was heard of only after it was to be shown', () => {
    const logs = remembering();
    const judge = logs.remember(three);
    logs.heard(three, logIndex(500), true);
    expect(judge(shown('a', 130))).toBeUndefined();
    expect(judge(shown('a', 119))).toMatchObject({ had: 120 });
  });

  it('takes a new log in the place of one that was lost, and then the old one no more', () => {
    const logs = remembering();
    expect(logs.remember(three)(shown('b', 0))).toBeUndefined();
    logs.met(three, shown('b', 0));
    logs.heard(three, logIndex(0), true);
    expect(logs.remember(three)(shown('b', 1))).toBeUndefined();
    // Its own notes must not find that log whole any more, so what it has had lies beyond its end.
    expect(logs.remember(three)(shown('a', 119))).toMatchObject({ had: 120 });
    logs.heard(three, logIndex(300), true);
    expect(logs.remember(three)(shown('a', 119))).toMatchObject({ had: 300 });
    expect(logs.remember(three)(shown('b', 299))).toMatchObject({ had: 300 });
  });

  it('keeps to the log that counts while a new one only learns', () => {
    const logs = remembering();
    logs.met(three, shown('b', 0));
    logs.heard(three, logIndex(500), false);
    expect(logs.remember(three)(shown('a', 120))).toBeUndefined();
    expect(logs.remember(three)(shown('a', 119))).toMatchObject({ had: 120 });
  });

  it('goes on from what was noted down', () => {
    const notes: unknown = JSON.parse(JSON.stringify(remembering().notes));
    expect(new PeerLogs(notes as PeerLogs['notes']).remember(three)(shown('a', 7))).toMatchObject({ had: 120 });
  });

  it('gives the same notes until there is news', () => {
    const logs = remembering();
    const { notes } = logs;
    logs.met(three, shown('a', 130));
    logs.heard(three, logIndex(110), true);
    expect(logs.notes).toBe(notes);
    logs.heard(three, logIndex(121), true);
    expect(logs.notes).not.toBe(notes);
  });
});
