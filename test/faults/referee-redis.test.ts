/** The referee's script and connection against a real Redis. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { generate } from 'selfsigned';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { checkReferee } from '../../src/cli/check/referee.ts';
import { Prng } from '../../src/consensus/core/random.ts';
import type { LogPosition, RefereeRequest } from '../../src/consensus/core/referee.ts';
import { nameOf, RefereeConnection, type RefereeServer } from '../../src/consensus/referee/connection.ts';
import type { RefereeCommand } from '../../src/consensus/referee/script.ts';
import { logIndex } from '../../src/runtime/ids.ts';
import { TestRedis } from '../support/redis.ts';
import { freePort } from '../support/free-ports.ts';
import { RefereeModel } from '../unit/consensus/referee-model.ts';

const KEY = 'pgmm:test:referee';
const START: LogPosition = { term: 1, lastTerm: 1, lastIndex: logIndex(1) };
const SETUP: readonly RefereeCommand[] = [
  { op: 'create', id: 'a', replaces: null, position: START },
  { op: 'seal', id: 'a' },
  { op: 'join', id: 'a', position: START },
  { op: 'seal', id: 'a' },
];

const serverOf = (redis: TestRedis, more: Partial<RefereeServer> = {}): RefereeServer => ({
  ...{ url: redis.url, timeout: 5000, trustSettings: false },
  ...more,
});

/** Numbers near those of the last answer, so that all comparisons come out in every way. */
function randomCommand(prng: Prng, { term: now, lastTerm, lastIndex }: LogPosition): RefereeCommand {
  const id = ['a', 'b'][prng.below(12) === 0 ? 1 : 0];
  const near = (value: number): number => Math.max(0, value + prng.below(4) - 1);
  const term = Math.max(1, near(now));
  const last = { lastTerm: Math.min(term, near(lastTerm)), lastIndex: logIndex(near(lastIndex)) };
  const position: LogPosition = { term, ...last };
  const node = prng.below(2) + 1;
  // Either no leader keeps candidates away, or one that was heard from does for as long as the test runs.
  const lease = prng.below(40) === 0 ? 3_600_000 : 0;
  const raft = { op: 'raft', id, node, lease } as const;
  switch (prng.below(60)) {
    case 0:
      return { op: 'create', id, replaces: [null, 'a', 'b'][prng.below(3)], position };
    case 1:
      return { op: 'join', id, position };
    case 2:
    case 3:
    case 4:
      return { op: 'seal', id };
    case 5:
      return prng.below(4) === 0 ? { op: 'discard', id } : { op: 'look' };
    default:
      return { ...raft, request: randomRequest(prng, term, last) };
  }
}

function randomRequest(prng: Prng, term: number, last: Omit<LogPosition, 'term'>): RefereeRequest {
  switch (prng.below(3)) {
    case 0:
      return { op: 'preVote', term, ...last };
    case 1:
      return { op: 'vote', term, ...last, transfer: prng.below(3) === 0 };
    default:
      return { op: 'lead', term, index: last.lastIndex, round: 0 };
  }
}

describe('a Redis that will do', () => {
  let redis: TestRedis;
  let connection: RefereeConnection;
  beforeAll(async () => {
    redis = await TestRedis.start();
    connection = await RefereeConnection.open(serverOf(redis));
  });
  afterAll(async () => {
    connection.close('the test is over');
    await redis.stop();
  });

  it('carries out the script as the model does', async () => {
    const verdicts = new Map<string, number>();
    for (let seed = 1; seed <= 60; seed++) {
      const prng = new Prng(seed);
      const model = new RefereeModel();
      await redis.ask('DEL', KEY);
      let last: LogPosition = START;
      for (let n = 0; n < 100; n++) {
        const command = SETUP[n] ?? randomCommand(prng, last);
        const owner = prng.below(30) === 0 ? 'other' : 'owner';
        const answer = await connection.run(KEY, owner, command);
        expect(answer, `seed ${seed}, step ${n}: ${JSON.stringify(command)}`).toEqual(
          model.run(owner, command, Date.now()),
        );
        last = answer.found;
        const name = `${command.op === 'raft' ? command.request.op : command.op} ${answer.verdict}`;
        verdicts.set(name, (verdicts.get(name) ?? 0) + 1);
      }
    }
    for (const name of ['create yes', 'create moved', 'join yes', 'seal yes', 'seal no', 'discard yes', 'vote foreign'])
      expect(verdicts.get(name), name).toBeGreaterThan(3);
    for (const op of ['vote', 'preVote'])
      for (const verdict of ['yes', 'no', 'held', 'moved'])
        expect(verdicts.get(`${op} ${verdict}`), op).toBeGreaterThan(10);
    for (const verdict of ['yes', 'no', 'moved']) expect(verdicts.get(`lead ${verdict}`)).toBeGreaterThan(10);
  });

  it('has what it answered after a kill', async () => {
    await redis.ask('DEL', KEY);
    const position = { term: 3, lastTerm: 2, lastIndex: logIndex(7) };
    await connection.run(KEY, 'owner', { op: 'create', id: 'a', replaces: null, position });
    await connection.run(KEY, 'owner', { op: 'join', id: 'a', position });
    await connection.run(KEY, 'owner', { op: 'seal', id: 'a' });
    const request = { op: 'vote', term: 4, lastTerm: 2, lastIndex: logIndex(7), transfer: false } as const;
    const asked = { op: 'raft', id: 'a', node: 1, request, lease: 0 } as const;
    expect((await connection.run(KEY, 'owner', asked)).verdict).toBe('yes');
    await redis.kill();
    await redis.start();
    expect(connection.endedBecause).toBeDefined();
    connection = await RefereeConnection.open(serverOf(redis));
    // The script is not in a new server's cache: it is sent again.
    expect((await connection.run(KEY, 'owner', { ...asked, node: 2 })).verdict).toBe('no');
    expect((await connection.run(KEY, 'owner', asked)).verdict).toBe('yes');
  });

  it('is given up when it does not answer in time', async () => {
    const impatient = await RefereeConnection.open(serverOf(redis, { timeout: 200 }));
    redis.pause();
    try {
      await expect(impatient.run(KEY, 'owner', { op: 'look' })).rejects.toThrow(
        'no answer within referee.timeout (200 ms)',
      );
      expect(impatient.endedBecause).toContain('no answer');
      await expect(RefereeConnection.open(serverOf(redis, { timeout: 200 }))).rejects.toThrow('200 ms');
    } finally {
      redis.resume();
    }
  });

  it('is found right by pgmm check, and what is wrong is told with its cure', async () => {
    const settings = { url: redis.url, timeout: 1000, trustSettings: false };
    expect(await checkReferee({ referee: settings })).toMatchObject([{ name: 'referee', status: 'ok' }]);
    await redis.ask('CONFIG', 'SET', 'appendfsync', 'no');
    try {
      expect(await checkReferee({ referee: settings })).toMatchObject([
        { status: 'failed', cure: 'redis-cli CONFIG SET appendfsync always, and CONFIG REWRITE to keep it.' },
      ]);
    } finally {
      await redis.ask('CONFIG', 'SET', 'appendfsync', 'always');
    }
    const elsewhere = `redis://127.0.0.1:${await freePort()}`;
    expect(await checkReferee({ referee: { ...settings, url: elsewhere } })).toMatchObject([
      { status: 'warning', found: expect.stringContaining('ECONNREFUSED') as string },
    ]);
    expect(await checkReferee({})).toEqual([]);
  });

  it('is refused once its settings are changed', async () => {
    await redis.ask('CONFIG', 'SET', 'appendfsync', 'everysec');
    try {
      await expect(connection.examine(true)).rejects.toThrow('appendfsync is everysec: a crash would lose votes');
    } finally {
      await redis.ask('CONFIG', 'SET', 'appendfsync', 'always');
    }
    await connection.examine(true);
  });
});

describe('a Redis that will not do', () => {
  let redis: TestRedis | undefined;
  const others: TestRedis[] = [];
  afterEach(async () => {
    await redis?.stop();
    for (const other of others.splice(0)) await other.stop();
  });

  it.each([
    [{ appendonly: 'no' }, 'appendonly is off'],
    [{ appendfsync: 'everysec' }, 'appendfsync is everysec'],
    [{ appendfsync: 'no' }, 'appendfsync is no'],
    [{ 'no-appendfsync-on-rewrite': 'yes' }, 'no-appendfsync-on-rewrite is yes'],
    [{ maxmemory: '100mb', 'maxmemory-policy': 'allkeys-lru' }, 'maxmemory-policy is allkeys-lru'],
    [{ 'cluster-enabled': 'yes' }, 'this is a node of a Redis Cluster'],
    [{ requirepass: 'secret' }, 'NOAUTH'],
  ] as [Record<string, string>, string][])('with %o is refused: %s', async (settings, reason) => {
    redis = await TestRedis.start(settings);
    await expect(RefereeConnection.open(serverOf(redis))).rejects.toThrow(reason);
  });

  it('is taken with settings that cannot be asked for only on the operator’s word', async () => {
    redis = await TestRedis.start({}, ['--rename-command', 'CONFIG', '']);
    await expect(RefereeConnection.open(serverOf(redis))).rejects.toThrow(
      "does not let CONFIG GET be used, so its settings can't be checked",
    );
    const connection = await RefereeConnection.open(serverOf(redis, { trustSettings: true }));
    connection.close('the test is over');
  });

  it('is a replica, or watched by a Sentinel, or a Sentinel', async () => {
    redis = await TestRedis.start();
    const replica = await TestRedis.start({}, ['--replicaof', '127.0.0.1', String(redis.port)]);
    others.push(replica);
    await expect(RefereeConnection.open(serverOf(replica))).rejects.toThrow('this is a replica');

    const dir = mkdtempSync(join(tmpdir(), 'pgmm-sentinel-'));
    const file = join(dir, 'sentinel.conf');
    const port = await freePort();
    writeFileSync(file, `port ${port}\nbind 127.0.0.1\nsentinel monitor referee 127.0.0.1 ${redis.port} 1\n`);
    try {
      const sentinel = await TestRedis.startSentinel(file, port);
      others.push(sentinel);
      await expect(RefereeConnection.open(serverOf(sentinel))).rejects.toThrow('this is a Redis Sentinel');
      const master = redis;
      await expect
        .poll(
          () => RefereeConnection.open(serverOf(master)).then(String, (error: unknown) => (error as Error).message),
          {
            timeout: 30_000,
          },
        )
        .toContain('a Redis Sentinel watches this server');
    } finally {
      rmSync(dir, { recursive: true });
    }
  });
});

describe('a Redis with a password and TLS', () => {
  it('is reached with both, and not without', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'pgmm-redis-tls-'));
    const pem = await generate([{ name: 'commonName', value: 'localhost' }], {
      keySize: 2048,
      extensions: [{ name: 'subjectAltName', altNames: [{ type: 7, ip: '127.0.0.1' }] }],
    });
    const [cert, key] = ['cert.pem', 'key.pem'].map((name) => join(dir, name));
    writeFileSync(cert, pem.cert);
    writeFileSync(key, pem.private);
    const tlsPort = await freePort();
    const redis = await TestRedis.start({
      ...{ requirepass: 'pass word', 'tls-port': String(tlsPort), 'tls-cert-file': cert, 'tls-key-file': key },
      ...{ 'tls-ca-cert-file': cert, 'tls-auth-clients': 'no' },
    });
    try {
      const url = `rediss://127.0.0.1:${tlsPort}/3`;
      const open = async (more: Partial<RefereeServer>): Promise<void> => {
        (await RefereeConnection.open(serverOf(redis, { url, ...more }))).close('the test is over');
      };
      await open({ password: 'pass word', caFile: cert });
      await open({ url: url.replace('//', '//default:pass%20word@'), caFile: cert });
      await expect(open({ password: 'wrong', caFile: cert })).rejects.toMatchObject({
        name: 'RefereeRefused',
        cure: expect.stringContaining('referee.password_file') as string,
      });
      await expect(open({ password: 'pass word' })).rejects.toThrow(/certificate/);
      expect(nameOf(url.replace('//', '//default:pass%20word@'))).toBe(`127.0.0.1:${tlsPort}/3`);
    } finally {
      await redis.stop();
      rmSync(dir, { recursive: true });
    }
  });
});
