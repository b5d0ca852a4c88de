import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { PgError } from '../../src/runtime/errors.ts';
import { cancelRequest } from '../../src/wire/startup-packet.ts';
import { connectToServer } from '../../src/session/connect.ts';
import { waitFor } from '../support/wait-for.ts';
import { startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';
import { RawClient, describe as lines, send } from './session-raw.ts';

describe('read levels of a session', () => {
  let proxy: SessionProxy;
  let admin: pg.Client;
  let client: pg.Client;
  let raw: RawClient;

  beforeAll(async () => {
    proxy = await startSessionProxy();
    admin = await proxy.postgres.connect();
    await admin.query('CREATE TABLE t (n int); INSERT INTO t VALUES (0)');
  });
  afterAll(async () => {
    await admin.end();
    await proxy.stop();
  });
  beforeEach(async () => {
    const { reads } = proxy.commits;
    reads.failing = undefined;
    reads.level = 'local';
    reads.release();
    await admin.query('UPDATE t SET n = 0');
    client = await proxy.connect();
    raw = await RawClient.connect(proxy.port);
    reads.asked.length = 0;
  });
  afterEach(() => raw.destroy());

  /** How many waits there were. */
  const waits = (): number => proxy.commits.reads.asked.splice(0).length;
  const level = async (): Promise<string> =>
    (await client.query<{ v: string }>(`SELECT current_setting('multimaster.read_level') AS v`)).rows[0].v;

  /** What `read` shows when the row it reads changes while it waits: 1 when it waited before it took its snapshot. */
  async function whileWaiting<T>(read: () => Promise<T>): Promise<T> {
    const { reads } = proxy.commits;
    reads.holds = true;
    const answer = read();
    await waitFor('the read waits', () => reads.waiting > 0);
    await admin.query('UPDATE t SET n = 1');
    reads.release();
    return await answer;
  }
  const n = async (): Promise<number> => (await client.query<{ n: number }>('SELECT n FROM t')).rows[0].n;

  it('waits for nothing unless it is told to', async () => {
    await client.query('SELECT 1');
    await client.query('BEGIN; SELECT n FROM t; COMMIT');
    await client.query('SET search_path = public');
    await client.query('INSERT INTO t SELECT n FROM t WHERE false');
    expect(await level()).toBe('local');
    expect((await client.query('SHOW multimaster.read_level')).rows).toEqual([{ 'multimaster.read_level': 'local' }]);
    expect(waits()).toBe(0);
  });

  it('waits before each read, and not for SET, COMMIT and their like', async () => {
    await client.query('SET multimaster.read_level = strict');
    expect(waits()).toBe(0);
    expect(await whileWaiting(n)).toBe(1);
    await client.query('SELECT $1::int', [1]);
    await client.query({ name: 'named', text: 'SELECT n FROM t' });
    await client.query({ name: 'named', text: 'SELECT n FROM t' });
    expect(waits()).toBe(4);
    await client.query('BEGIN');
    await client.query('SAVEPOINT a');
    await client.query('SET work_mem = 100');
    await client.query('COMMIT');
    expect(waits()).toBe(0);
    await client.query('INSERT INTO t SELECT 1 WHERE false');
    expect(waits()).toBe(1);
    await client.query("SET Multimaster.Read_Level TO 'local'");
    await n();
    expect(waits()).toBe(0);
  });

  it.each([
    ['RESET', 'RESET multimaster.read_level'],
    ['RESET ALL', 'RESET ALL'],
    ['DISCARD ALL', 'DISCARD ALL'],
    ['SET TO DEFAULT', 'SET multimaster.read_level TO DEFAULT'],
    ['set_config()', `SELECT set_config('multimaster.read_level', 'local', false)`],
  ])('goes back to the default after %s', async (_name, sql) => {
    await client.query(`SELECT set_config('multimaster.read_level', $1, false)`, ['strict']);
    await n();
    expect(waits()).toBe(1);
    await client.query(sql);
    waits();
    await n();
    expect(waits()).toBe(0);
    proxy.commits.reads.level = 'strict';
    await client.query('RESET multimaster.read_level');
    await n();
    expect(waits()).toBe(1);
    expect(await level()).toBe('strict');
  });

  it('follows PostgreSQL through transactions and savepoints', async () => {
    await client.query('BEGIN');
    await client.query('SET LOCAL multimaster.read_level = strict');
    expect(await whileWaiting(n)).toBe(1);
    await n();
    expect(waits()).toBe(2);
    await client.query('COMMIT');
    await n();
    expect(waits()).toBe(0);

    await client.query('BEGIN');
    await client.query('SAVEPOINT a');
    await client.query('SET multimaster.read_level = strict');
    await n();
    expect(waits()).toBe(1);
    await client.query('ROLLBACK TO a');
    await n();
    expect(waits()).toBe(0);
    await client.query('SET multimaster.read_level = strict');
    await client.query('ROLLBACK');
    await n();
    expect(waits()).toBe(0);

    await client.query('BEGIN; SET multimaster.read_level = strict; COMMIT');
    await n();
    expect(waits()).toBe(1);
  });

  it.each(['REPEATABLE READ', 'SERIALIZABLE'])('waits once in a %s block, before its snapshot', async (isolation) => {
    await client.query('SET multimaster.read_level = strict');
    for (const last of ['COMMIT', 'ROLLBACK']) {
      await admin.query('UPDATE t SET n = 0');
      await client.query(`BEGIN ISOLATION LEVEL ${isolation}`);
      expect(await whileWaiting(n)).toBe(1);
      expect(await n()).toBe(1);
      await client.query(last);
      expect(waits()).toBe(1);
    }
    await client.query(`BEGIN ISOLATION LEVEL ${isolation}`);
    await client.query('SET LOCAL multimaster.read_level = local');
    await n();
    await client.query('COMMIT');
    expect(waits()).toBe(0);
    await client.query(`SET default_transaction_isolation = '${isolation}'`);
    await admin.query('UPDATE t SET n = 0');
    await client.query('BEGIN');
    expect(
      await whileWaiting(async () => (await client.query<{ n: number }>('SELECT n FROM t WHERE n >= $1', [0])).rows),
    ).toEqual([{ n: 1 }]);
    await client.query('COMMIT');
  });

  it('waits before a cursor is opened', async () => {
    await client.query('SET multimaster.read_level = strict');
    await client.query('BEGIN');
    await whileWaiting(() => client.query('DECLARE c CURSOR FOR SELECT n FROM t'));
    expect((await client.query('FETCH c')).rows).toEqual([{ n: 1 }]);
    await client.query('COMMIT');
  });

  const SET = 'SET multimaster.read_level = strict';
  const SET_CONFIG = `SELECT set_config('multimaster.read_level', 'strict', false)`;
  it.each([
    ['one Query', send.query(`${SET}; SELECT n FROM t`)],
    ['one Query with set_config', send.query(`${SET_CONFIG}; SELECT n FROM t`)],
    ['one Query with a block', send.query(`BEGIN; SET LOCAL multimaster.read_level = strict; SELECT n FROM t; COMMIT`)],
    ['two Queries at once', Buffer.concat([send.query(SET), send.query('SELECT n FROM t')])],
    ['one batch', Buffer.concat([send.run(SET), send.run('SELECT n FROM t'), send.sync()])],
    ['one batch with set_config', Buffer.concat([send.run(SET_CONFIG), send.run('SELECT n FROM t'), send.sync()])],
    ['two batches', Buffer.concat([send.run(SET), send.sync(), send.run('SELECT n FROM t'), send.sync()])],
    [
      'a batch with a block',
      Buffer.concat([
        ...['BEGIN ISOLATION LEVEL REPEATABLE READ', SET, 'SELECT n FROM t', 'COMMIT'].map((sql) => send.run(sql)),
        send.sync(),
      ]),
    ],
    [
      'a batch in a block',
      Buffer.concat([
        send.query('BEGIN'),
        ...[SET, 'SELECT n FROM t', 'COMMIT'].map((sql) => send.run(sql)),
        send.sync(),
      ]),
    ],
    [
      'a savepoint that takes it back',
      Buffer.concat([
        send.query(`BEGIN; ${SET}; SAVEPOINT a`),
        ...['SET multimaster.read_level = local', 'ROLLBACK TO a', 'SELECT n FROM t'].map((sql) => send.run(sql)),
        send.sync(),
      ]),
    ],
  ])('reads at the new level behind SET in %s', async (_name, bytes) => {
    const answers = await whileWaiting(async () => {
      raw.send(bytes);
      return lines(await raw.until((messages) => lines(messages).some((line) => /^D .*\|[01]$|^E/.test(line))));
    });
    expect(answers.filter((line) => line.startsWith('E'))).toEqual([]);
    expect(answers.filter((line) => /^D .*\|[01]$/.test(line)).map((line) => line.at(-1))).toEqual(['1']);
  });

  it('takes a batch in pieces', async () => {
    raw.send(send.query(SET));
    await raw.ready();
    const answers = await whileWaiting(async () => {
      await raw.sendInPieces(Buffer.concat([send.run('SELECT n FROM t'), send.sync()]), () => 3);
      return lines(await raw.ready());
    });
    expect(answers.filter((line) => line.startsWith('D'))[0].at(-1)).toBe('1');
  });

  it('refuses values that there are not', async () => {
    const refusal = { code: '22023', message: 'invalid value for parameter "multimaster.read_level": "quorum"' };
    await expect(client.query('SET multimaster.read_level = quorum')).rejects.toMatchObject(refusal);
    await client.query('SET multimaster.read_level = session');
    await client.query(`SELECT set_config('multimaster.read_level', 'quorum', false)`);
    await expect(n()).rejects.toMatchObject(refusal);
    expect(await level()).toBe('session');
    await client.query('BEGIN');
    await client.query(`SELECT set_config('multimaster.read_level', 'quorum', false)`);
    await expect(n()).rejects.toMatchObject(refusal);
    await expect(n()).rejects.toMatchObject({ code: '25P02' });
    await client.query('ROLLBACK');
    expect(await level()).toBe('session');
    await client.query(`SET multimaster.read_after = 'other:5'`);
    await expect(n()).rejects.toMatchObject({ code: '22023' });
    expect(await n()).toBe(0);
  });

  it('takes them from the role, the database and the options of the connection', async () => {
    await admin.query('CREATE ROLE strict LOGIN; GRANT SELECT ON t TO strict');
    await admin.query('ALTER ROLE strict SET multimaster.read_level = strict');
    const strict = await proxy.connect({ user: 'strict' });
    waits();
    await strict.query('SELECT n FROM t');
    expect(waits()).toBe(1);
    await strict.query('SET multimaster.read_level = local');
    await strict.query('SELECT n FROM t');
    expect(waits()).toBe(0);
    await strict.query('DISCARD ALL');
    await strict.query('SELECT n FROM t');
    expect(waits()).toBe(1);
    const optioned = await proxy.connect({ options: '-c multimaster.read_after=test:3' });
    await optioned.query('SELECT n FROM t');
    expect(proxy.commits.reads.asked.splice(0)).toEqual([{ strict: false, after: 3 }]);
    await admin.query('ALTER DATABASE postgres SET multimaster.read_level = nonsense');
    const warned = await RawClient.connect(proxy.port);
    warned.send(send.query('SHOW multimaster.read_level'));
    const answer = lines(await warned.ready());
    expect(answer.join('\n')).toMatch(/WARNING 22023 .*"nonsense"[^]*local/);
    await admin.query('ALTER DATABASE postgres RESET multimaster.read_level');
    warned.destroy();
  });

  it('waits once for a token, which stays valid over a rollback', async () => {
    await client.query(`SET multimaster.read_after = 'test:12'`);
    expect(await whileWaiting(n)).toBe(1);
    await n();
    expect(proxy.commits.reads.asked.splice(0)).toEqual([{ strict: false, after: 12 }]);
    await client.query('BEGIN');
    await client.query(`SET multimaster.read_after = 'test:13'`);
    await n();
    await client.query('ROLLBACK');
    await n();
    expect(proxy.commits.reads.asked.splice(0)).toEqual([{ strict: false, after: 13 }]);
    await client.query(`SET multimaster.read_after = ''`);
    await n();
    expect(waits()).toBe(0);
  });

  it('ends a wait for a cancel request, a timeout and a lost conflict', async () => {
    const { reads } = proxy.commits;
    raw.send(send.query(SET));
    await raw.ready();
    reads.holds = true;
    raw.send(send.query('SELECT n FROM t'));
    await waitFor('the read waits', () => reads.waiting > 0);
    const canceller = await connectToServer({ host: '127.0.0.1', port: proxy.port });
    canceller.write(cancelRequest(raw.backendPid, raw.backendKey));
    expect(lines(await raw.ready())).toEqual(['E ERROR 57014 canceling statement due to user request', 'Z I']);
    canceller.destroy();
    reads.release();

    reads.failing = new PgError('55P03', 'too late');
    raw.send(send.query('BEGIN'), send.query('SELECT n FROM t'), send.query('SELECT n FROM t'), send.query('ROLLBACK'));
    expect(lines(await raw.ready(4)).filter((line) => /^[EZ]/.test(line))).toEqual([
      'Z T',
      'E ERROR 55P03 too late',
      'Z E',
      'E ERROR 25P02 current transaction is aborted, commands ignored until end of transaction block',
      'Z E',
      'Z I',
    ]);
    reads.failing = undefined;

    raw.send(send.query('BEGIN'), send.query('INSERT INTO t SELECT 5 WHERE false'));
    await raw.ready(2);
    reads.holds = true;
    raw.send(send.query('SELECT n FROM t'));
    await waitFor('the read waits', () => reads.waiting > 0);
    proxy.victims.get(raw.backendPid)?.abort(new PgError('40001', 'lost'));
    expect(lines(await raw.ready())).toEqual(['E ERROR 40001 lost', 'Z E']);
    reads.release();
    raw.send(send.query('ROLLBACK'));
    await raw.ready();
  });

  it('reports the token of a commit at level session', async () => {
    raw.send(send.query('INSERT INTO t VALUES (5)'));
    expect((await raw.ready()).filter(({ type }) => type === 'S')).toEqual([]);
    raw.send(send.query('SET multimaster.read_level = session'), send.query('SELECT 1'));
    await raw.ready(2);
    raw.send(send.query('DELETE FROM t WHERE n = 5'));
    const [status] = (await raw.ready()).filter(({ type }) => type === 'S');
    expect(status.body.toString()).toMatch(/^multimaster\.token\0test:\d+\0$/);
    expect(waits()).toBe(0);
  });
});
