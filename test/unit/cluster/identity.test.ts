import { describe, expect, it } from 'vitest';
import {
  judgeLog,
  judgePostgres,
  memoryOf,
  newIdentity,
  type FoundPostgres,
  type Identity,
} from '../../../src/cluster/identity.ts';
import { EMPTY } from '../../../src/consensus/core/types.ts';
import { logIndex, lsn, nodeId } from '../../../src/runtime/ids.ts';

const postgres = { systemIdentifier: '7', timeline: 1, committed: logIndex(100), flushed: lsn(5000n) };
const own: Identity = { ...newIdentity('dev', nodeId(2)), postgres, decided: logIndex(120) };
const mark = { cluster: 'dev', node: 2, log: own.log };
const found = (change: Partial<FoundPostgres> = {}): FoundPostgres => ({
  ...postgres,
  inRecovery: false,
  mark,
  ...change,
});
const judge = (identity: Identity, isNew: boolean, change: Partial<FoundPostgres> = {}) =>
  judgePostgres(identity, isNew, found(change), logIndex(130))?.code;

describe('the log that belongs to a node', () => {
  it('has everything that was ever decided here', () => {
    expect(judgeLog(own, logIndex(120), false)).toBeUndefined();
    expect(judgeLog(own, logIndex(119), false)?.code).toBe('log-lost');
    expect(judgeLog(own, logIndex(0), true)?.code).toBe('log-lost');
    expect(judgeLog(undefined, logIndex(0), true)).toBeUndefined();
  });

  it('is missed even before anything was decided, once its voice counts', () => {
    const fresh = newIdentity('dev', nodeId(2));
    expect(judgeLog(fresh, logIndex(0), true)).toBeUndefined();
    const counting = { ...fresh, voice: { counts: true, founders: null } };
    expect(judgeLog(counting, logIndex(0), false)).toBeUndefined();
    expect(judgeLog(counting, logIndex(0), true)?.code).toBe('log-lost');
  });

  it('counts from the first start of this version on, if an earlier one has used it', () => {
    const { voice, ...legacy } = newIdentity('dev', nodeId(2));
    expect(voice?.counts).toBe(false);
    expect(memoryOf(legacy, EMPTY)).toEqual({ name: legacy.log, counts: false, founders: null });
    const used = { ...EMPTY, hardState: { term: 1, votedFor: nodeId(1) } };
    expect(memoryOf(legacy, used).counts).toBe(true);
    expect(memoryOf(newIdentity('dev', nodeId(2)), used).counts).toBe(false);
  });
});

describe('the PostgreSQL that belongs to a node', () => {
  it('goes on from where it was', () => {
    expect(judge(own, false)).toBeUndefined();
    expect(judge(own, false, { committed: logIndex(110), flushed: lsn(6000n) })).toBeUndefined();
  });

  it('is any that was never part of a cluster, the first time', () => {
    const fresh = newIdentity('dev', nodeId(2));
    expect(judge(fresh, true, { mark: undefined, committed: logIndex(0) })).toBeUndefined();
    expect(judge(fresh, true, { mark: undefined })).toBe('other-server');
    // A crash between the two marks.
    expect(judge(fresh, false, { mark: { ...mark, log: fresh.log } })).toBeUndefined();
  });

  it.each([
    ['a standby', { inRecovery: true }, 'standby'],
    ['another cluster’s', { mark: { ...mark, cluster: 'other' } }, 'other-cluster'],
    ['another node’s', { mark: { ...mark, node: 3 } }, 'other-node'],
    ['that of another log', { mark: { ...mark, log: 'x' } }, 'other-log'],
    ['one without a mark', { mark: undefined }, 'other-server'],
    ['another server', { systemIdentifier: '8' }, 'other-server'],
    ['a promoted standby', { timeline: 2 }, 'other-timeline'],
    ['an old copy, by its commits', { committed: logIndex(99) }, 'went-back'],
    ['an old copy, by its WAL', { flushed: lsn(4999n) }, 'went-back'],
    ['one that is ahead of the log', { committed: logIndex(131) }, 'log-behind'],
  ] as const)('is not %s', (_, change, code) => {
    expect(judge(own, false, change)).toBe(code);
  });

  it('shows that the log is lost when it has a mark and data_dir has no identity', () => {
    expect(judge(newIdentity('dev', nodeId(2)), true)).toBe('log-lost');
  });
});
