import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type pg from 'pg';
import { Turns, type Turn, type TurnEnd } from '../../src/commit/turns.ts';
import type { Gid } from '../../src/runtime/ids.ts';
import { PgError } from '../../src/runtime/errors.ts';
import { waitFor } from '../support/wait-for.ts';
import { startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';
import { RawClient, describe as lines, extended, send } from './session-raw.ts';

const LOST = new PgError('40001', 'another node was first', { detail: 'node 2' });

describe('a client whose transaction is in the way of another node', () => {
  let proxy: SessionProxy;
  let admin: pg.Client;

  beforeAll(async () => {
    proxy = await startSessionProxy();
    admin = await proxy.postgres.connect();
    await admin.query('CREATE TABLE t (a int PRIMARY KEY, b int)');
  });

  afterAll(async () => {
    await proxy.stop();
  });

  beforeEach(async () => {
    await admin.query('TRUNCATE t; INSERT INTO t VALUES (1, 0), (2, 0)');
    proxy.commits.prepared.length = 0;
    proxy.commits.decide = () => Promise.resolve(undefined);
    proxy.commits.turns = new Turns(60_000);
  });

  async function connect(): Promise<{ client: pg.Client; lose: () => void }> {
    const client = await proxy.connect();
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    return { client, lose: () => proxy.victims.get(rows[0].pid)!.abort(LOST) };
  }

  /** The row is free again: nobody waits for the victim. */
  async function expectFree(): Promise<void> {
    await admin.query("SET lock_timeout = '2s'");
    await admin.query('UPDATE t SET b = 7 WHERE a = 1');
  }

  async function blocked(): Promise<void> {
    await waitFor('a statement that waits for a lock', async () => {
      const { rows } = await admin.query("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
      return rows.length > 0;
    });
  }

  it('finds the error at its next statement, then a failed transaction', async () => {
    const { client, lose } = await connect();
    await client.query('BEGIN');
    await client.query('SAVEPOINT s');
    await client.query('UPDATE t SET b = 1 WHERE a = 1');
    lose();
    lose();
    await expectFree();
    await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '40001', detail: 'node 2' });
    await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '25P02' });
    await expect(client.query('ROLLBACK TO s')).rejects.toMatchObject({ code: '40001' });
    await client.query('ROLLBACK');
    await client.query('UPDATE t SET b = 2 WHERE a = 1');
    expect(proxy.commits.prepared).toHaveLength(1);
  });

  it('keeps the priority of the first transaction that lost until one commits', async () => {
    const { client, lose } = await connect();
    const { commits } = proxy;
    const seniors = () => commits.prepared.map((gid) => commits.seniors.get(gid));
    const error = new PgError('40001', 'lost against node 2');
    await client.query('BEGIN');
    await client.query('UPDATE t SET b = 1 WHERE a = 1');
    lose();
    await expect(client.query('COMMIT')).rejects.toMatchObject({ code: '40001' });
    commits.decide = () => Promise.resolve({ type: 'aborted', error });
    await expect(client.query('UPDATE t SET b = 1 WHERE a = 1')).rejects.toMatchObject({ code: '40001' });
    await expect(client.query('UPDATE t SET b = 1 WHERE a = 1')).rejects.toMatchObject({ code: '40001' });
    commits.decide = () => Promise.resolve(undefined);
    await client.query('UPDATE t SET b = 1 WHERE a = 1');
    await client.query('UPDATE t SET b = 1 WHERE a = 1');
    const [first, ...others] = seniors();
    expect(first).toBeDefined();
    expect(others).toEqual([first, first, undefined]);
  });

  it('waits for its turn to try again, and tells how that ended', async () => {
    const { client } = await connect();
    const { commits } = proxy;
    const turns: { senior: Gid; grant: () => void; ends: TurnEnd[] }[] = [];
    commits.turns = {
      enter: (senior, wake) => {
        const turn = { granted: false, end: (how: TurnEnd) => void ends.push(how) };
        const ends: TurnEnd[] = [];
        const grant = () => {
          turn.granted = true;
          wake();
        };
        turns.push({ senior, ends, grant });
        return turn;
      },
    };
    await client.query('UPDATE t SET b = 1 WHERE a = 1');
    expect(turns).toHaveLength(0);
    commits.decide = () => Promise.resolve({ type: 'aborted', error: new PgError('40001', 'lost') });
    await expect(client.query('UPDATE t SET b = 2 WHERE a = 1')).rejects.toMatchObject({ code: '40001' });
    const tried = commits.prepared.length;
    const lost = commits.prepared.at(-1);

    const again = client.query('UPDATE t SET b = 3 WHERE a = 1').catch((error: unknown) => error);
    await waitFor('it asks for its turn', () => turns.length === 1);
    // The others are not held up, and it has not begun.
    await admin.query('SELECT');
    expect(commits.prepared).toHaveLength(tried);
    turns[0].grant();
    expect(await again).toMatchObject({ code: '40001' });
    expect(turns).toMatchObject([{ senior: lost, ends: ['lost'] }]);

    commits.decide = () => Promise.resolve(undefined);
    const block = client.query('BEGIN');
    await waitFor('it asks again', () => turns.length === 2);
    turns[1].grant();
    await block;
    await client.query('UPDATE t SET b = 4 WHERE a = 1');
    await client.query('COMMIT');
    expect(turns[1]).toMatchObject({ senior: lost, ends: ['committed'] });
    await client.query('UPDATE t SET b = 5 WHERE a = 1');
    expect(turns).toHaveLength(2);
  });

  it('gives its turn up when it leaves', async () => {
    const { client } = await connect();
    const { commits } = proxy;
    commits.turns = new Turns(60_000);
    commits.decide = () => Promise.resolve({ type: 'aborted', error: new PgError('40001', 'lost') });
    const others: Turn[] = [];
    // Only one may try at a time, and somebody does.
    for (let n = 0; n < 10; n++) others.push(commits.turns.enter(commits.allocate(''), () => undefined));
    for (const turn of others) turn.end('lost');
    await expect(client.query('UPDATE t SET b = 1 WHERE a = 1')).rejects.toMatchObject({ code: '40001' });
    const holder = commits.turns.enter(commits.allocate(''), () => undefined);
    client.query('UPDATE t SET b = 2 WHERE a = 1').catch(() => undefined);
    const turns = commits.turns as Turns;
    await waitFor('it waits', () => turns.waiting === 1);
    client.on('error', () => undefined);
    await client.end();
    await waitFor('it does not wait any more', () => turns.waiting === 0);
    holder.end('other');
  });

  it('finds it at COMMIT, in both protocols', async () => {
    const { client, lose } = await connect();
    for (const commit of ['COMMIT', extended('COMMIT')]) {
      await client.query('BEGIN');
      await client.query('UPDATE t SET b = 1 WHERE a = 1');
      lose();
      await expect(client.query(commit)).rejects.toMatchObject({ code: '40001' });
      await client.query('SELECT 1');
      await client.query('BEGIN');
      await client.query('UPDATE t SET b = 1 WHERE a = 1');
      lose();
      await client.query('ROLLBACK');
    }
    expect(proxy.commits.prepared).toHaveLength(0);
  });

  it('is interrupted in a statement that waits', async () => {
    const { client, lose } = await connect();
    const other = await proxy.postgres.connect();
    await other.query('BEGIN; UPDATE t SET b = 3 WHERE a = 2');
    for (const values of [undefined, []]) {
      await client.query('BEGIN');
      await client.query('UPDATE t SET b = 1 WHERE a = 1');
      const waiting = client.query({ text: 'UPDATE t SET b = 1 WHERE a = 2', ...(values && { values }) });
      const failure = expect(waiting).rejects.toMatchObject({ code: '40001' });
      await blocked();
      lose();
      await failure;
      await expectFree();
      await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '25P02' });
      await client.query('ROLLBACK');
      await client.query('SELECT 1');
    }
    await other.query('ROLLBACK');
  });

  it('is interrupted in an implicit transaction, and the next one is not', async () => {
    const { client, lose } = await connect();
    const other = await proxy.postgres.connect();
    await other.query('BEGIN; UPDATE t SET b = 3 WHERE a = 2');
    for (const values of [undefined, []]) {
      const waiting = client.query({ text: 'UPDATE t SET b = 1', ...(values && { values }) });
      const failure = expect(waiting).rejects.toMatchObject({ code: '40001' });
      await blocked();
      lose();
      await failure;
      for (let i = 0; i < 20; i++) await client.query('SELECT 1');
      await expectFree();
    }
    await other.query('ROLLBACK');
    await client.query('UPDATE t SET b = 9');
    expect(proxy.commits.prepared).toHaveLength(1);
  });

  it('is interrupted while its batch has no Sync yet', async () => {
    const raw = await RawClient.connect(proxy.port);
    for (const begin of ['BEGIN', undefined]) {
      if (begin !== undefined) {
        raw.send(send.query(begin));
        await raw.ready();
      }
      raw.send(send.run('UPDATE t SET b = 1 WHERE a = 1'), send.flush());
      await raw.until((messages) => messages.some(({ type }) => type === 'C'));
      proxy.victims.get(raw.backendPid)!.abort(LOST);
      await raw.until((messages) => messages.some(({ type }) => type === 'E'));
      await expectFree();
      raw.send(send.run('SELECT 1'), send.sync());
      expect(lines(await raw.ready())).toEqual([begin === undefined ? 'Z I' : 'Z E']);
      raw.send(send.query('ROLLBACK'));
      await raw.ready();
    }
    raw.destroy();
  });

  it('is interrupted in COPY', async () => {
    const raw = await RawClient.connect(proxy.port);
    for (const before of [[], [send.query('BEGIN')]]) {
      raw.send(...before, send.query('COPY t FROM STDIN'));
      await raw.until((messages) => messages.some(({ type }) => type === 'G'));
      raw.send(send.copyData('1000\t1\n'));
      proxy.victims.get(raw.backendPid)!.abort(LOST);
      raw.send(send.copyData('1001\t1\n'), send.copyDone());
      const answer = lines(await raw.ready());
      expect(answer).toEqual(['E ERROR 40001 another node was first', before.length === 0 ? 'Z I' : 'Z E']);
      raw.send(send.query('ROLLBACK'));
      await raw.ready();
      raw.send(send.query('SELECT count(*) FROM t'));
      expect(lines(await raw.ready())).toContain('D |2');
    }
    raw.destroy();
  });

  it('is left alone from PREPARE on, and when it is idle', async () => {
    const { client, lose } = await connect();
    lose();
    await client.query('SELECT 1');
    let decide: () => void = () => undefined;
    proxy.commits.decide = () => new Promise((resolve) => (decide = () => resolve(undefined)));
    const write = client.query('UPDATE t SET b = 5 WHERE a = 1');
    await waitFor('PREPARE', () => proxy.commits.prepared.length > 0);
    lose();
    decide();
    await write;
    expect((await admin.query('SELECT b FROM t WHERE a = 1')).rows).toEqual([{ b: 5 }]);
  });

  it('is ended when it does not read what the server sends', async () => {
    const raw = await RawClient.connect(proxy.port);
    raw.send(send.query('BEGIN'), send.query('UPDATE t SET b = 1 WHERE a = 1'));
    await raw.ready(2);
    raw.stall();
    // Rows of a length with which PostgreSQL does not happen to find room for one at a cancel request.
    raw.send(send.query("SELECT repeat('x', 1000000) FROM generate_series(1, 1000)"));
    let received = 0;
    await waitFor('a server that waits for its client, with all buffers full', async () => {
      const before = received;
      received = proxy.listener.traffic.fromServer;
      const { rows } = await admin.query("SELECT FROM pg_stat_activity WHERE wait_event = 'ClientWrite'");
      return rows.length > 0 && received === before;
    });
    proxy.victims.get(raw.backendPid)!.abort(LOST);
    await admin.query("SET lock_timeout = '10s'");
    await admin.query('UPDATE t SET b = 7 WHERE a = 1');
    raw.destroy();
  });

  it('can cancel its own statement, but not its commit', async () => {
    const raw = await RawClient.connect(proxy.port);
    const cancel = async (): Promise<void> => {
      const { connect } = await import('node:net');
      const packet = Buffer.alloc(16);
      packet.writeInt32BE(16, 0);
      packet.writeInt32BE(80877102, 4);
      packet.writeInt32BE(raw.backendPid, 8);
      raw.backendKey.copy(packet, 12);
      const socket = connect(proxy.port, '127.0.0.1');
      socket.write(packet);
      await new Promise((resolve) => socket.resume().once('close', resolve));
    };
    for (const sql of ['SELECT pg_sleep(10)', 'UPDATE t SET b = 1 WHERE pg_sleep(10) IS NULL']) {
      raw.send(send.query(sql));
      await waitFor(
        'the sleep',
        async () => (await admin.query("SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep'")).rows.length > 0,
      );
      await cancel();
      expect(lines(await raw.ready())).toEqual(
        expect.arrayContaining([expect.stringMatching(/^E ERROR 57014/), 'Z I']),
      );
    }
    let decide: () => void = () => undefined;
    proxy.commits.decide = () => new Promise((resolve) => (decide = () => resolve(undefined)));
    raw.send(send.query('UPDATE t SET b = 5 WHERE a = 1'));
    await waitFor('PREPARE', () => proxy.commits.prepared.length > 0);
    await cancel();
    decide();
    expect(lines(await raw.ready())).toEqual(['C UPDATE 1', 'Z I']);
    raw.send(send.query('SELECT 1'));
    expect(lines(await raw.ready())).toContain('C SELECT 1');
    raw.destroy();
  });

  it('may leave while its commit is decided', async () => {
    const raw = await RawClient.connect(proxy.port);
    let decide: () => void = () => undefined;
    proxy.commits.decide = () => new Promise((resolve) => (decide = () => resolve(undefined)));
    raw.send(send.query('UPDATE t SET b = 6 WHERE a = 1'));
    await waitFor('PREPARE', () => proxy.commits.prepared.length > 0);
    raw.destroy();
    await new Promise((resolve) => setTimeout(resolve, 50));
    decide();
    await waitFor(
      'the commit',
      async () => (await admin.query<{ b: number }>('SELECT b FROM t WHERE a = 1')).rows[0]?.b === 6,
    );
    await waitFor('the end of the session', () => !proxy.victims.has(raw.backendPid));
  });

  it('leaves nothing behind when it goes away in a transaction', async () => {
    const raw = await RawClient.connect(proxy.port);
    raw.send(send.query('BEGIN'), send.query('UPDATE t SET b = 6 WHERE a = 1'));
    await raw.ready(2);
    raw.destroy();
    await expectFree();
  });
});
