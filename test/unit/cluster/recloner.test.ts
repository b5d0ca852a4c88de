import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { BypassRecord, forgetBypasses } from '../../../src/cluster/bypass-record.ts';
import { CloneClient } from '../../../src/cluster/reclone/clone-client.ts';
import type { CopyTarget } from '../../../src/cluster/reclone/copy-target.ts';
import { DataDirectory } from '../../../src/cluster/reclone/data-directory.ts';
import { PhysicalTarget } from '../../../src/cluster/reclone/physical-target.ts';
import { Recloner, REQUEST_FILE, type RecloneOptions } from '../../../src/cluster/reclone/recloner.ts';
import { nodeId, type LogIndex, type NodeId } from '../../../src/runtime/ids.ts';
import { createLogger } from '../../../src/runtime/log.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';
import { waitFor as waitInTime } from '../../support/wait-for.ts';

const [TWO, THREE] = [nodeId(2), nodeId(3)];
const STANDS_AT = 7 as LogIndex;
const LOG = createLogger('silent', 1);
/** More than the recloner lets pass between two looks. */
const LOOK = 1000;

/** The recloner's clock runs with the waiting. */
const waitFor = (what: string, probe: () => boolean) =>
  waitInTime(what, () => {
    vi.advanceTimersByTime(LOOK);
    return probe();
  });

describe('when a copy is made', () => {
  let root: string;
  let recloner: Recloner | undefined;
  /** Which donors were asked for one; none has any. */
  let asked: NodeId[];

  beforeEach(() => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    root = makeTempDir('recloner');
    mkdirSync(join(root, 'pg'));
    writeFileSync(join(root, 'pg', 'PG_VERSION'), '15\n');
    asked = [];
  });
  afterEach(async () => {
    vi.restoreAllMocks();
    vi.useRealTimers();
    await recloner?.stop();
    removeTempDir(root);
  });

  function start(options: Partial<RecloneOptions> = {}): Recloner {
    const client: CloneClient = new CloneClient((to, message) => {
      if (message.t !== 'clone') return false;
      asked.push(to);
      const answer = { id: message.id, clone: new Uint8Array(0), end: true, total: 0, error: 'nothing to give' };
      queueMicrotask(() => client.onAnswer(to, answer));
      return true;
    });
    recloner = new Recloner({
      automatic: true,
      targets: [
        new PhysicalTarget(new DataDirectory(join(root, 'pg')), ['postgres'], (found) => Promise.resolve(found)),
      ],
      unusable: 'nothing is set',
      wait: 0,
      directory: root,
      others: [TWO, THREE],
      client,
      hopeless: () => ({ gone: new Set([TWO, THREE]), since: 0 }),
      donors: () => [{ node: TWO, committed: STANDS_AT, bypassed: false }],
      worthKeeping: () => undefined,
      isMember: () => false,
      complete: () => undefined,
      log: LOG,
      ...options,
    });
    recloner.start();
    return recloner;
  }

  const held = async (about: string): Promise<void> => {
    await waitFor(`held because ${about}`, () => recloner?.status?.problem?.includes(about) === true);
    expect(recloner?.status?.state).toBe('held');
    expect(asked).toEqual([]);
  };
  const isAsked = (node: NodeId) => waitFor(`node ${node} is asked`, () => asked.includes(node));
  const request = () => writeFileSync(join(root, REQUEST_FILE), '');

  it('is by itself where that is set, and nothing is lost', async () => {
    start();
    await isAsked(TWO);
    await waitFor('it fails', () => recloner?.status?.state === 'failed');
    expect(recloner?.status?.problem).toContain('nothing to give');
  });

  it('is on request only, where the data have something that would be lost, and says so', async () => {
    start({ worthKeeping: () => 'it has pearls' });
    await held('it has pearls');
    request();
    await isAsked(TWO);
  });

  it('is on request only, where that is set', async () => {
    start({ automatic: false });
    await held('pgmm reclone');
    request();
    await isAsked(TWO);
  });

  it('is not of data that have what no other node has, unless somebody asks for it and there are no others', async () => {
    start({ donors: () => [{ node: TWO, committed: STANDS_AT, bypassed: true }] });
    await held('past the proxy of node 2');
    request();
    await isAsked(TWO);
  });

  it('is rather of data that all have, even on request', async () => {
    request();
    start({
      donors: () => [
        { node: TWO, committed: STANDS_AT, bypassed: true },
        { node: THREE, committed: STANDS_AT, bypassed: false },
      ],
    });
    await isAsked(THREE);
    expect(asked).toEqual([THREE]);
  });

  it('keeps what comes after it in the histories of the others, until it is in place or has failed', async () => {
    let answer: (() => void) | undefined;
    const client: CloneClient = new CloneClient((to, message) => {
      if (message.t !== 'clone') return false;
      const failed = { id: message.id, clone: new Uint8Array(0), end: true, total: 0, error: 'nothing to give' };
      answer = () => client.onAnswer(to, failed);
      return true;
    });
    const one = start({ client });
    await waitFor('a donor is asked', () => answer !== undefined);
    expect(one.standsAt).toBe(STANDS_AT);
    answer?.();
    await waitFor('it fails', () => one.status?.state === 'failed');
    expect(one.standsAt).toBeUndefined();
  });

  it('ends when the proxy stops, whatever it is at', async () => {
    let request: (() => void) | undefined;
    const target = new PhysicalTarget(new DataDirectory(join(root, 'pg')), ['postgres'], (found) =>
      Promise.resolve(found),
    );
    const held: CopyTarget = {
      ...{
        method: 'physical',
        place: 'nowhere',
        isDue: () => Promise.resolve(false),
        isReady: () => Promise.resolve(true),
      },
      request: async () => {
        await new Promise<void>((resolve) => (request = resolve));
        return target.request();
      },
      begin: () => Promise.reject(new Error('it was not to be begun')),
      discard: () => Promise.resolve(),
    };
    const client = new CloneClient(() => true);
    const one = start({ client, targets: [held] });
    await waitFor('it is asked for', () => request !== undefined);
    const stopped = one.stop();
    request?.();
    await stopped;
    expect(one.status?.problem).toContain('stopped');
  });

  it('is not any more when the reason has gone', async () => {
    let lost = true;
    start({ automatic: false, hopeless: () => (lost ? { gone: new Set([TWO, THREE]), since: 0 } : undefined) });
    await held('pgmm reclone');
    lost = false;
    await waitFor('nothing is held', () => recloner?.status === null);
  });

  it('is of another kind where the donor is too different for the first one, and held where that is so of all', async () => {
    let difference: (method: unknown) => string | undefined = (method) =>
      method === 'physical' ? 'is older' : undefined;
    const target = new PhysicalTarget(new DataDirectory(join(root, 'pg')), ['postgres'], (found) =>
      Promise.resolve(found),
    );
    const other: CopyTarget = {
      method: 'logical',
      place: 'nowhere',
      isDue: () => Promise.resolve(false),
      isReady: () => Promise.resolve(true),
      request: async () => ({ ...(await target.request()), method: 'logical' }),
      begin: () => Promise.reject(new Error('no room')),
      discard: () => Promise.resolve(),
    };
    const methods: unknown[] = [];
    const client: CloneClient = new CloneClient((to, message) => {
      if (message.t !== 'clone') return false;
      methods.push(message.method);
      const error = difference(message.method);
      const answer = { id: message.id, clone: new Uint8Array(0), end: true, total: 0 };
      queueMicrotask(() => client.onAnswer(to, { ...answer, ...(error !== undefined && { error, unlike: true }) }));
      return true;
    });
    const one = start({ client, targets: [target, other] });
    await waitFor('the second kind fails in its own way', () => one.status?.problem === 'no room');
    expect(methods).toEqual(['physical', 'logical']);
    difference = () => 'is newer';
    vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 5000);
    await waitFor('it is held', () => one.status?.state === 'held');
    expect(one.status?.problem).toContain('can be copied here: node 2: is newer');
  });

  it('asks another donor when one has failed, after a while', async () => {
    start({ donors: () => [TWO, THREE].map((node) => ({ node, committed: STANDS_AT, bypassed: false })) });
    await isAsked(TWO);
    await waitFor('it fails', () => recloner?.status?.state === 'failed');
    const later = performance.now() + 5000;
    vi.spyOn(performance, 'now').mockReturnValue(later);
    await isAsked(THREE);
  });
});

describe('the record of writes past the proxy', () => {
  let root: string;
  beforeEach(() => (root = makeTempDir('bypasses')));
  afterEach(() => {
    removeTempDir(root);
  });
  const bypass = { database: 'app', xid: 7, tables: ['public.t'], at: '2026-01-02T03:04:05.678Z' };

  it('outlives the proxy, the first at once, until the data are replaced', () => {
    const record = new BypassRecord(root, LOG);
    expect(record.isEmpty).toBe(true);
    record.add(bypass);
    expect(new BypassRecord(root, LOG).current).toEqual({ count: 1, last: bypass, unseen: [] });
    record.add({ ...bypass, xid: 8 });
    record.stop();
    expect(new BypassRecord(root, LOG).current).toMatchObject({ count: 2, last: { xid: 8 } });
    forgetBypasses(root);
    expect(new BypassRecord(root, LOG).isEmpty).toBe(true);
  });

  it('knows of WAL that nobody looked at, of each database since when', () => {
    const [at, later] = ['2026-01-01T00:00:00.000Z', '2026-01-02T00:00:00.000Z'];
    new BypassRecord(root, LOG).addUnseen({ database: 'app', from: '0/16B3748', at });
    const record = new BypassRecord(root, LOG);
    expect(record.isEmpty).toBe(false);
    record.addUnseen({ database: 'app', from: null, at: later });
    record.add(bypass);
    expect(new BypassRecord(root, LOG).current).toEqual({
      count: 1,
      last: bypass,
      unseen: [{ database: 'app', from: '0/16B3748', at }],
    });
  });

  it('of an earlier version is understood', () => {
    writeFileSync(join(root, 'bypasses.json'), JSON.stringify({ count: 3, last: bypass }));
    expect(new BypassRecord(root, LOG).current).toEqual({ count: 3, last: bypass, unseen: [] });
  });

  it('is not taken for a clean one when it is damaged', () => {
    const record = new BypassRecord(root, LOG);
    record.add(bypass);
    writeFileSync(join(root, 'bypasses.json'), readFileSync(join(root, 'bypasses.json')).subarray(0, 9));
    expect(() => new BypassRecord(root, LOG)).toThrow('damaged');
  });
});
