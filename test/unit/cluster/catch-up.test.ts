import { mkdirSync, rmSync } from 'node:fs';
import pino from 'pino';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CatchUp } from '../../../src/cluster/catch-up.ts';
import { HistoryClient } from '../../../src/cluster/history-client.ts';
import type { HistoryPiece, PeerMessage } from '../../../src/cluster/messages.ts';
import type { ChangeSource } from '../../../src/cluster/ports.ts';
import type { HistoryReaderOptions } from '../../../src/replication/history/history-reader.ts';
import { HistoryServer } from '../../../src/replication/history/history-server.ts';
import { TransactionSpool } from '../../../src/replication/spool.ts';
import { logIndex, nodeId, ZERO_LSN, type Gid, type LogIndex } from '../../../src/runtime/ids.ts';
import { makeTempDir, removeTempDir } from '../../support/temp-dir.ts';
import { waitFor } from '../../support/wait-for.ts';

const [reader, donor] = [nodeId(1), nodeId(2)];
const START = logIndex(100);
const PART = 64 * 1024;

interface Committed {
  readonly index: LogIndex;
  readonly gid: Gid;
  readonly parts: readonly Buffer[];
  /** Everything up to here has been read. */
  readonly after: LogIndex;
}

/** A transaction whose bytes tell where they belong. */
function transaction(index: number, size: number, after = index): Committed {
  const bytes = Buffer.alloc(size);
  for (let at = 0; at + 4 <= size; at += 4) bytes.writeUInt32BE((index * 1_000_003 + at) >>> 0, at);
  const parts = Array.from({ length: Math.ceil(size / PART) }, (_, i) => bytes.subarray(i * PART, (i + 1) * PART));
  return { index: logIndex(index), gid: `gid-${index}` as Gid, parts, after: logIndex(after) };
}

/** In the place of a HistoryReader, which needs a server. */
function readFrom(history: readonly Committed[], { after, handlers }: HistoryReaderOptions) {
  const ahead = history.filter(({ index }) => index > after);
  let part = 0;
  let isStopped = false;
  const resume = () => {
    for (let one = ahead.at(0); one !== undefined && !isStopped; one = ahead.at(0)) {
      while (part < one.parts.length) if (!handlers.piece(one.index, one.parts[part++])) return;
      handlers.committed(one.index, one.gid, 0, one.after);
      ahead.shift();
      part = 0;
    }
    if (!isStopped) handlers.caughtUp(ZERO_LSN);
  };
  const start = () => {
    resume();
    return Promise.resolve();
  };
  return { start, resume, stop: () => void (isStopped = true) };
}

describe('a node that comes back', () => {
  let directory: string;
  const stops: (() => void)[] = [];
  beforeEach(() => {
    directory = makeTempDir('catch-up');
  });
  afterEach(() => {
    for (const stop of stops.splice(0)) stop();
    removeTempDir(directory);
  });

  function startDonor(histories: Readonly<Record<string, readonly Committed[]>>): HistoryServer {
    const source = (database: string) => ({
      from: START,
      committed: () => Promise.resolve({ index: START, position: ZERO_LSN }),
      readerOptions: () => ({ connection: {} as never, slot: database, publication: '' }),
    });
    const server = new HistoryServer(source, (options) => readFrom(histories[options.slot], options));
    stops.push(() => server.stop());
    return server;
  }

  interface Setting {
    /** Whether the n-th answer gets lost on its way. */
    readonly isLost?: (n: number) => boolean;
    /** The donor does not know of requests that have to begin anew. */
    readonly isOld?: boolean;
    /** What a replay waits for. */
    readonly before?: (gid: Gid) => Promise<void>;
  }

  /** A proxy that reads from this donor what the log commits, and commits it in log order. */
  async function startReader(
    server: HistoryServer,
    log: readonly (readonly [database: string, Committed])[],
    { isLost = () => false, isOld = false, before = () => Promise.resolve() }: Setting = {},
  ) {
    const spool = await TransactionSpool.open({ directory: `${directory}/spool`, inline: PART, memory: 1 << 20 });
    const replayed = new Map<Gid, Buffer>();
    const begun: Gid[] = [];
    const position = { committed: START };
    let answers = 0;
    const history = new HistoryClient({
      send: (_to, message) => {
        void answer(message as Extract<PeerMessage, { t: 'history' }>);
        return true;
      },
      donors: () => [donor],
      timeout: 100,
    });
    const answer = async (request: Extract<PeerMessage, { t: 'history' }>) => {
      const found = await server.read(reader, { ...request, ...(isOld && { fresh: false }) });
      if (!isLost(answers++)) history.onAnswer(donor, { id: request.id, ...found });
    };
    const catchUp: CatchUp = new CatchUp({
      databases: ['a', 'b'],
      history,
      spool,
      log: pino({ level: 'silent' }),
      committed: () => position.committed,
      apply: (gid, _database, source) => {
        begun.push(gid);
        void before(gid).then(() => replay(gid, source));
      },
      caughtUp: (_gid, index) => {
        position.committed = index;
        next();
      },
      gapFilled: () => undefined,
      hopeless: () => undefined,
    });
    stops.push(() => catchUp.stop());
    const replay = async (gid: Gid, source: ChangeSource) => {
      try {
        replayed.set(gid, await readAll(source));
      } catch (error) {
        catchUp.onApplied(gid, { sqlstate: 'XX000', message: (error as Error).message });
        return;
      }
      catchUp.onApplied(gid, undefined);
    };
    const next = () => {
      const entry = log.find(([, { index }]) => index > position.committed);
      if (entry !== undefined) catchUp.need(entry[1].index, entry[1].gid, entry[0]);
    };
    next();
    const isDone = () => replayed.size === log.length;
    const hasAll = () =>
      log.every(([, { gid, parts }]) => replayed.get(gid)?.equals(Buffer.concat(parts as Buffer[])) === true);
    return { catchUp, begun, position, isDone, hasAll, next, answers: () => answers };
  }

  const inOne = (history: readonly Committed[]) => history.map((one) => ['a', one] as const);

  describe('and loses an answer', () => {
    const history = [
      transaction(101, 1000),
      transaction(102, 40 * PART),
      transaction(103, 1000),
      transaction(104, 20 * PART),
    ];

    it.each([0, 1, 2, 3])('the one with the number %d, gets every byte all the same', async (lost) => {
      const proxy = await startReader(startDonor({ a: history }), inOne(history), { isLost: (n) => n === lost });
      await waitFor('everything is replayed', proxy.isDone);
      expect(proxy.hasAll()).toBe(true);
    });

    it.each([0, 1, 2, 3])('the one with the number %d, of a donor of an earlier version', async (lost) => {
      const proxy = await startReader(startDonor({ a: history }), inOne(history), {
        isOld: true,
        isLost: (n) => n === lost,
      });
      await waitFor('everything is replayed', proxy.isDone);
      expect(proxy.hasAll()).toBe(true);
    });

    it('with whole transactions, of a donor that commits in the order "relaxed"', async () => {
      // What is passed lags behind what is given out, so the donor can't tell from that.
      const relaxed = [101, 102, 103].map((index) => transaction(index, 20 * PART, 100));
      const proxy = await startReader(startDonor({ a: relaxed }), inOne(relaxed), { isLost: (n) => n === 1 });
      await waitFor('everything is replayed', proxy.isDone);
      expect(proxy.hasAll()).toBe(true);
    });
  });

  it('reads what comes next in one database, however much of another one is read ahead', async () => {
    const a = Array.from({ length: 1500 }, (_, i) => transaction(i === 0 ? 101 : 102 + i, 16));
    const b = [transaction(102, 16)];
    const log = [['a', a[0]] as const, ['b', b[0]] as const, ...inOne(a.slice(1))];
    let release = (): void => undefined;
    const isReadAhead = new Promise<void>((resolve) => (release = resolve));
    const proxy = await startReader(startDonor({ a, b }), log, { before: () => isReadAhead });
    await waitFor('all of one database is read', () => proxy.catchUp.bytesRead === 16 * a.length);
    release();
    await waitFor('everything is replayed', proxy.isDone);
    expect(proxy.hasAll()).toBe(true);
  });

  it('replays again what was under way when the connection to PostgreSQL was lost', async () => {
    const history = [transaction(101, 16), transaction(102, 16)];
    let first = true;
    const lost = () => {
      if (!first) return Promise.resolve();
      first = false;
      return new Promise<never>(() => undefined);
    };
    const proxy = await startReader(startDonor({ a: history }), inOne(history), { before: lost });
    await waitFor('a replay is under way', () => proxy.begun.length === 1);
    proxy.catchUp.reset();
    proxy.next();
    await waitFor('everything is replayed', proxy.isDone);
    expect(proxy.begun).toEqual(['gid-101', 'gid-101', 'gid-102']);
    expect(proxy.hasAll()).toBe(true);
  });

  it('reads again what the disk did not take', async () => {
    const history = [transaction(101, 10 * PART)];
    const spool = `${directory}/spool`;
    const isLost = (n: number) => {
      if (n === 0) rmSync(spool, { recursive: true });
      return false;
    };
    const proxy = await startReader(startDonor({ a: history }), inOne(history), { isLost });
    await waitFor('it is noticed', () => proxy.catchUp.problem?.includes('could not keep the changes'));
    mkdirSync(spool);
    await waitFor('everything is replayed', proxy.isDone);
    expect(proxy.hasAll()).toBe(true);
  });

  it('gets a row of any size in answers of the size that it asked for', async () => {
    const row = Buffer.from('a row that is too large for one answer');
    const server = startDonor({ a: [{ ...transaction(101, 0), parts: [row] }] });
    const request = { database: 'a', after: START, limit: 10, headersOnly: false };
    const pieces: HistoryPiece[] = [];
    while (pieces.at(-1)?.last !== true) pieces.push(...(await server.read(reader, request)).pieces);
    expect(pieces.map(({ offset, bytes }) => [offset, Buffer.from(bytes).toString()])).toEqual([
      [0, 'a row that'],
      [10, ' is too la'],
      [20, 'rge for on'],
      [30, 'e answer'],
      [38, ''],
    ]);
  });

  it('is told again what the donor knows to be lost', async () => {
    const server = startDonor({ a: [transaction(101, 3 * PART)] });
    const request = { database: 'a', after: START, limit: PART, headersOnly: false };
    const offset = async () => (await server.read(reader, request)).pieces.at(0)?.offset;
    expect([await offset(), await offset()]).toEqual([0, PART]);
    server.forget(reader, 'a');
    expect([await offset(), await offset()]).toEqual([0, PART]);
  });

  it('in a new process does not go on in the middle of what its last one has read', async () => {
    const history = [transaction(101, 60 * PART)];
    const server = startDonor({ a: history });
    const first = await startReader(server, inOne(history), { isLost: (n) => n > 0 });
    await waitFor('a part is read', () => first.answers() > 1);
    first.catchUp.stop();
    const second = await startReader(server, inOne(history));
    await waitFor('everything is replayed', second.isDone);
    expect(second.hasAll()).toBe(true);
  });
});

async function readAll(source: ChangeSource): Promise<Buffer> {
  if (source.type === 'inline') return Buffer.from(source.data);
  const pieces: Uint8Array[] = [];
  for (let offset = 0; ;) {
    const { bytes, last } = await source.read(offset, 256 * 1024);
    pieces.push(bytes);
    offset += bytes.length;
    if (last) return Buffer.concat(pieces);
  }
}
