import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, describe, expect, test } from 'vitest';
import { Prng } from '../../../src/consensus/core/random.ts';
import type { Entry, HardState, Restored, Snapshot } from '../../../src/consensus/core/types.ts';
import { LogCorruption } from '../../../src/consensus/log-recovery.ts';
import { LogStore, type AppendRequest } from '../../../src/consensus/log-store.ts';
import { logIndex, nodeId } from '../../../src/runtime/ids.ts';
import { FakeDisk } from './fake-disk.ts';

const DIR = '/log';
const NONE: AppendRequest = { hardState: null, truncateFrom: null, snapshot: null, entries: [] };

const entry = (index: number, term: number, text = `e${index}`): Entry => ({
  index: logIndex(index),
  term,
  payload: new Uint8Array(Buffer.from(text)),
});
const range = (from: number, to: number, term: number): Entry[] =>
  Array.from({ length: to - from + 1 }, (_, i) => entry(from + i, term));
const hardState = (term: number, votedFor: number | null = null): HardState => ({
  term,
  votedFor: votedFor === null ? null : nodeId(votedFor),
});
const snapshotAt = (index: number, term: number): Snapshot => ({
  index: logIndex(index),
  term,
  state: new Uint8Array(Buffer.from(`state@${index}`)),
});

/** Readable, and equal exactly if two states are. */
const show = ({ hardState: { term, votedFor }, snapshot, entries }: Restored): string =>
  `term ${term} vote ${votedFor} snapshot ${snapshot?.index}/${snapshot?.term}/${snapshot && Buffer.from(snapshot.state).toString()} ` +
  entries.map((one) => `${one.index}/${one.term}:${Buffer.from(one.payload).toString()}`).join(' ');

async function reopen(disk: FakeDisk, segmentBytes = 1024): Promise<{ store: LogStore; restored: Restored }> {
  return LogStore.open(DIR, { disk, segmentBytes });
}

describe('on a real file system', () => {
  let directory = '';
  afterEach(() => rm(directory, { recursive: true, force: true }));

  test('gives back what was appended, truncated and compacted', async () => {
    directory = await mkdtemp(join(tmpdir(), 'pgmm-log-'));
    const path = join(directory, 'a', 'raft');
    const { store, restored } = await LogStore.open(path, { segmentBytes: 4096 });
    expect(restored).toEqual({ hardState: hardState(0), snapshot: null, entries: [] });
    await store.append({ ...NONE, hardState: hardState(1, 2), entries: range(1, 100, 1) });
    await store.append({ ...NONE, hardState: hardState(2), truncateFrom: logIndex(91), entries: range(91, 95, 2) });
    await store.compact(snapshotAt(50, 1));
    await store.close();

    const again = await LogStore.open(path, { segmentBytes: 4096 });
    const entries = [...range(51, 90, 1), ...range(91, 95, 2)];
    expect(show(again.restored)).toBe(show({ hardState: hardState(2), snapshot: snapshotAt(50, 1), entries }));
    await again.store.append({ ...NONE, entries: range(96, 300, 2) });
    await again.store.compact(snapshotAt(250, 2));
    await again.store.close();
    const files = (await readdir(path)).filter((name) => name !== 'spare.tmp');
    expect(files.filter((name) => name.startsWith('snapshot'))).toEqual(['snapshot-0000000000000250']);
    const third = await LogStore.open(path, { segmentBytes: 4096 });
    expect(third.restored.entries).toHaveLength(50);
    await third.store.close();
  });
});

test('requests of one turn share a sync, and so do those made while it runs', async () => {
  const disk = new FakeDisk(1);
  const { store } = await reopen(disk, 1 << 16);
  const before = disk.syncs;
  const first = [1, 2, 3].map((i) => store.append({ ...NONE, entries: [entry(i, 1)] }));
  const second = first[0].then(() => undefined);
  await Promise.resolve();
  await Promise.resolve();
  const late = [4, 5, 6].map((i) => store.append({ ...NONE, entries: [entry(i, 1)] }));
  await Promise.all([...first, second, ...late]);
  expect(disk.syncs - before).toBe(2);
});

test('a failed sync is final', async () => {
  const disk = new FakeDisk(1);
  const { store } = await reopen(disk);
  disk.failNextSync = true;
  await expect(store.append({ ...NONE, entries: [entry(1, 1)] })).rejects.toThrow('EIO');
  await expect(store.append({ ...NONE, entries: [entry(1, 1)] })).rejects.toThrow('EIO');
  await expect(store.compact(snapshotAt(1, 1))).rejects.toThrow('EIO');
});

test('a disk that is full for a while, when the next segment is prepared, is nothing that stays', async () => {
  const disk = new FakeDisk(1);
  const { store } = await reopen(disk, 512);
  const begins = (): number => disk.files().filter((name) => name.includes('log-')).length;
  let index = 0;
  const append = () => store.append({ ...NONE, entries: [entry(++index, 1, 'y'.repeat(30))] });
  disk.isFull = true;
  // Over half of the segment, and not to its end.
  for (let i = 0; i < 5; i++) await append();
  disk.isFull = false;
  while (begins() < 2) await append();
  disk.isFull = true;
  await expect(
    (async () => {
      while (begins() < 3) await append();
    })(),
  ).rejects.toThrow('ENOSPC');
});

test('a torn tail is dropped, wiped and written over', async () => {
  const disk = new FakeDisk(1);
  const { store } = await reopen(disk, 4096);
  await store.append({ ...NONE, hardState: hardState(1), entries: range(1, 3, 1) });
  await store.append({ ...NONE, entries: [entry(4, 1, 'x'.repeat(400)), entry(5, 1, 'tail')] });
  await store.close();
  const bytes = disk.bytes(`${DIR}/log-0000000001`);
  // The batch's first record is broken, its second is sound: a crash in the middle of one write leaves that.
  bytes[bytes.indexOf('x'.repeat(400))] = 0;
  const again = await reopen(disk, 4096);
  expect(again.restored.entries).toEqual(range(1, 3, 1));
  await again.store.append({ ...NONE, entries: [entry(4, 2, 'new')] });
  await again.store.close();
  const third = await reopen(disk, 4096);
  expect(show(third.restored)).toContain('3/1:e3 4/2:new');
  expect(third.restored.entries).toHaveLength(4);
});

test('damage in the middle is refused, with file and offset', async () => {
  const disk = new FakeDisk(1);
  const { store } = await reopen(disk, 4096);
  for (let i = 1; i <= 5; i++) await store.append({ ...NONE, entries: [entry(i, 1, `payload-${i}`)] });
  await store.close();
  const bytes = disk.bytes(`${DIR}/log-0000000001`);
  const at = bytes.indexOf('payload-3');
  bytes[at] ^= 1;
  const error: unknown = await reopen(disk, 4096).catch((e: unknown) => e);
  expect(error).toBeInstanceOf(LogCorruption);
  // The record's frame, body head and integer fields come before the payload.
  expect(error).toMatchObject({ file: `${DIR}/log-0000000001`, offset: at - 32 });
});

test('damage of the last record of an earlier segment, and a missing segment, are refused', async () => {
  const disk = new FakeDisk(1);
  const { store } = await reopen(disk, 512);
  for (let i = 1; i <= 40; i++) await store.append({ ...NONE, entries: [entry(i, 1, 'y'.repeat(30))] });
  await store.close();
  const bytes = disk.bytes(`${DIR}/log-0000000002`);
  const at = bytes.lastIndexOf('y');
  bytes[at] ^= 1;
  await expect(reopen(disk, 512)).rejects.toThrow('ends early');
  bytes[at] ^= 1;
  await disk.remove(`${DIR}/log-0000000002`);
  await expect(reopen(disk, 512)).rejects.toThrow('is missing');
});

test('a damaged or missing snapshot is refused', async () => {
  const disk = new FakeDisk(1);
  const { store } = await reopen(disk, 512);
  for (let i = 1; i <= 40; i++) await store.append({ ...NONE, entries: [entry(i, 1, 'y'.repeat(30))] });
  await store.compact(snapshotAt(30, 1));
  await store.close();
  const path = `${DIR}/snapshot-0000000000000030`;
  disk.bytes(path)[50] ^= 1;
  await expect(reopen(disk, 512)).rejects.toThrow('snapshot is damaged');
  await disk.remove(path);
  await expect(reopen(disk, 512)).rejects.toThrow('is missing');
});

/** Makes random valid requests and lists every state that the disk may hold after a crash. */
class Model {
  states: Restored[];
  /** The state that the last acknowledged request led to. */
  acknowledged = 0;
  readonly #prng: Prng;

  constructor(prng: Prng, start: Restored) {
    this.#prng = prng;
    this.states = [start];
  }

  get now(): Restored {
    return this.states.at(-1)!;
  }

  get lastIndex(): number {
    return this.now.entries.at(-1)?.index ?? this.now.snapshot?.index ?? 0;
  }

  random(): { readonly append: AppendRequest } | { readonly compact: Snapshot } {
    const { entries, snapshot, hardState: old } = this.now;
    const dice = this.#prng.below(20);
    if (dice < 2 && entries.length > 0) {
      const { index, term } = entries[this.#prng.below(entries.length)];
      this.#become({ snapshot: snapshotAt(index, term), entries: entries.filter((one) => one.index > index) });
      return { compact: snapshotAt(index, term) };
    }
    const changed = this.#prng.below(3) === 0 ? hardState(old.term + 1, 1 + this.#prng.below(3)) : null;
    if (changed !== null) this.#become({ hardState: changed });
    if (dice === 2) return { append: this.#install((snapshot?.index ?? 0) + 1 + this.#prng.below(30), changed) };
    let truncateFrom = null;
    if (dice < 6 && entries.length > 0) {
      const from = entries[this.#prng.below(entries.length)].index;
      truncateFrom = from;
      this.#become({ entries: entries.filter((one) => one.index < from) });
    }
    return { append: { ...NONE, hardState: changed, truncateFrom, entries: this.#entries() } };
  }

  #install(index: number, changed: HardState | null): AppendRequest {
    const received = snapshotAt(index, this.now.hardState.term);
    this.#become({ entries: this.now.entries.filter((one) => one.index <= index) });
    this.#become({ snapshot: received, entries: [] });
    return { ...NONE, hardState: changed, snapshot: received, entries: this.#entries() };
  }

  #entries(): Entry[] {
    const made: Entry[] = [];
    for (let n = this.#prng.below(5); n > 0; n--) {
      const payload = 'z'.repeat(this.#prng.below(this.#prng.below(10) === 0 ? 1500 : 60));
      made.push(entry(this.lastIndex + 1, this.now.hardState.term, payload));
      this.#become({ entries: [...this.now.entries, made.at(-1)!] });
    }
    return made;
  }

  #become(change: Partial<Restored>): void {
    this.states.push({ ...this.now, ...change });
  }
}

test('after a loss of power the log is what some prefix of the requests made it, and all that was acknowledged', async () => {
  for (let seed = 1; seed <= Number(process.env['SEEDS'] ?? 150); seed++) {
    const prng = new Prng(seed);
    const disk = new FakeDisk(seed);
    let start: Restored = { hardState: hardState(0), snapshot: null, entries: [] };
    for (let life = 1; life <= 5; life++) {
      const model = new Model(prng, start);
      disk.budget = prng.below(150);
      await liveUntilPowerLoss(disk, model, prng);
      disk.restart();
      const { store, restored } = await reopen(disk).catch((error: unknown) => {
        throw new Error(`SEED=${seed} life ${life}: ${String(error)}`, { cause: error });
      });
      const allowed = model.states.slice(model.acknowledged).map(show);
      expect(allowed, `SEED=${seed} life ${life}`).toContain(show(restored));
      await store.close();
      start = restored;
    }
  }
});

async function liveUntilPowerLoss(disk: FakeDisk, model: Model, prng: Prng): Promise<void> {
  const { store } = await reopen(disk).catch(() => ({ store: null }));
  if (store === null) return;
  for (let round = 0; round < 30; round++) {
    const waiting: Promise<void>[] = [];
    for (let n = prng.below(4); n >= 0; n--) {
      const request = model.random();
      const reached = model.states.length - 1;
      const done = 'append' in request ? store.append(request.append) : store.compact(request.compact);
      waiting.push(
        done.then(
          () => void (model.acknowledged = Math.max(model.acknowledged, reached)),
          () => undefined,
        ),
      );
    }
    await Promise.all(waiting);
  }
  await store.close();
}

test('a flipped bit is noticed, or lies in the last batch, or in nothing that counts', async () => {
  for (let seed = 1; seed <= 150; seed++) {
    const prng = new Prng(seed);
    const disk = new FakeDisk(seed);
    const model = new Model(prng, { hardState: hardState(0), snapshot: null, entries: [] });
    const { store } = await reopen(disk);
    for (let i = 0; i < 12; i++) {
      const request = model.random();
      await ('append' in request ? store.append(request.append) : store.compact(request.compact));
    }
    const beforeLast = model.states.length - 1;
    const last = entry(model.lastIndex + 1, model.now.hardState.term);
    model.states.push({ ...model.now, entries: [...model.now.entries, last] });
    await store.append({ ...NONE, entries: [last] });
    await store.close();
    const files = disk.files().filter((name) => !name.endsWith('.tmp'));
    const bytes = disk.bytes(files[prng.below(files.length)]);
    bytes[prng.below(bytes.length)] ^= 1 << prng.below(8);
    const outcome = await reopen(disk).catch((error: unknown) => error);
    if (outcome instanceof LogCorruption) continue;
    const { restored } = outcome as { restored: Restored };
    expect(model.states.slice(beforeLast).map(show), `SEED=${seed}`).toContain(show(restored));
  }
});
