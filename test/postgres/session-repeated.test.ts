import { connect } from 'node:net';
import type pg from 'pg';
import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import { Turns } from '../../src/commit/turns.ts';
import { PgError } from '../../src/runtime/errors.ts';
import type { CommitOutcome } from '../../src/session/ports.ts';
import { waitFor } from '../support/wait-for.ts';
import { NO_NAMES, startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';
import { RawClient, describe as lines, send } from './session-raw.ts';

const RETRIES = 3;
const LOST: CommitOutcome = { type: 'aborted', error: new PgError('40001', 'another node was first') };

describe('a single statement that loses a conflict, with session.statement_retries', () => {
  let proxy: SessionProxy;
  let admin: pg.Client;
  /** How often the next transactions lose before they are committed. */
  let losses = 0;

  beforeAll(async () => {
    proxy = await startSessionProxy({}, { limits: { statementRetries: RETRIES, retryBytes: 1024 } });
    admin = await proxy.postgres.connect();
    await admin.query(`
      CREATE TABLE t (a int PRIMARY KEY, b int); CREATE SEQUENCE s;
      CREATE FUNCTION hidden(inout text) LANGUAGE plpgsql AS $$
      BEGIN
        RAISE NOTICE 'attempt %', nextval('s');
        UPDATE t SET b = b + 1 WHERE a = 1;
        IF $1 <> '' THEN
          PERFORM set_config('application_name', $1 || current_setting('application_name'), false);
        END IF;
      END $$;
      CREATE FUNCTION counts() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN RAISE NOTICE 'attempt %', nextval('s'); RETURN new; END $$;
      CREATE TRIGGER counts BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION counts();
    `);
  });

  afterAll(async () => {
    await proxy.stop();
  });

  beforeEach(async () => {
    await admin.query("TRUNCATE t; INSERT INTO t VALUES (1, 0), (2, 0); SELECT setval('s', 1, false)");
    losses = 0;
    proxy.events.length = 0;
    proxy.commits.prepared.length = 0;
    proxy.commits.turns = new Turns(60_000);
    proxy.commits.decide = () => Promise.resolve(losses-- > 0 ? LOST : undefined);
  });

  const value = async (a = 1): Promise<unknown> =>
    (await admin.query<{ b: number }>(`SELECT b FROM t WHERE a = ${a}`)).rows[0]?.b;
  const repeats = (): number => proxy.events.filter((event) => event === 'repeated').length;

  async function blocked(): Promise<void> {
    await waitFor('a statement that waits for a lock', async () => {
      const { rows } = await admin.query("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
      return rows.length > 0;
    });
  }

  it('answers as if it had run once, in each protocol', async () => {
    const sql = 'UPDATE t SET b = b + 1 WHERE a = 1 RETURNING b';
    const raw = await RawClient.connect(proxy.port);
    const ways: [Buffer[], string[]][] = [
      [[send.query(sql)], []],
      [
        [send.run(sql), send.sync()],
        ['1', '2'],
      ],
      [
        [send.parse(sql, 'n'), send.bind([], 'n'), send.execute(), send.sync()],
        ['1', '2'],
      ],
      // Without a Parse: the statement from before is there still.
      [[send.bind([], 'n'), send.execute(), send.sync()], ['2']],
    ];
    for (const [index, [say, before]] of ways.entries()) {
      losses = RETRIES;
      raw.send(...say);
      const heard = lines(await raw.ready()).filter((line) => !line.startsWith('T'));
      const attempt = (index + 1) * (RETRIES + 1);
      expect(heard.filter((line) => !line.startsWith('N'))).toEqual([
        ...before,
        expect.stringMatching(/^D/),
        'C UPDATE 1',
        'Z I',
      ]);
      expect(heard.filter((line) => line.startsWith('N'))).toEqual([`N NOTICE 00000 attempt ${attempt}`]);
      expect(await value()).toBe(index + 1);
      expect(repeats()).toBe((index + 1) * RETRIES);
    }
    raw.destroy();
  });

  it('is told at last that it has lost', async () => {
    const client = await proxy.connect();
    for (const values of [undefined, []]) {
      losses = RETRIES + 1;
      const lost = client.query({ text: 'UPDATE t SET b = b + 1 WHERE a = 1', ...(values && { values }) });
      await expect(lost).rejects.toMatchObject({ code: '40001' });
      expect(await value()).toBe(0);
    }
    expect(proxy.commits.prepared).toHaveLength(2 * (RETRIES + 1));
  });

  it('is run again when it was interrupted while it waited for a lock', async () => {
    const client = await proxy.connect();
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    const other = await proxy.postgres.connect();
    for (const values of [undefined, []]) {
      await other.query('BEGIN; UPDATE t SET b = 3 WHERE a = 2');
      const update = client.query({ text: 'UPDATE t SET b = b + 1', ...(values && { values }) });
      for (let n = 0; n < RETRIES; n++) {
        await blocked();
        proxy.victims.get(rows[0].pid)!.abort(new PgError('40001', 'another node was first'));
        await waitFor('it is run again', () => repeats() > n);
      }
      await other.query('COMMIT');
      await update;
      proxy.events.length = 0;
    }
    expect(await value(1)).toBe(2);
    expect(await value(2)).toBe(4);
    expect(new Set(proxy.commits.prepared.map((gid) => proxy.commits.seniors.get(gid))).size).toBe(2);
  });

  it('is run again after a deadlock on its own server', async () => {
    // The first attempt waits for t when the other waits for u already: it is the one that finds the deadlock. The second lets the other go first.
    await admin.query(`
      CREATE SEQUENCE attempts;
      CREATE FUNCTION gate() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        IF nextval('attempts') = 1 THEN
          WHILE NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.01); END LOOP;
        END IF;
        RETURN new;
      END $$;
      CREATE FUNCTION after_you() RETURNS trigger LANGUAGE plpgsql AS $$
      BEGIN
        WHILE EXISTS (SELECT FROM pg_locks WHERE NOT granted) LOOP PERFORM pg_sleep(0.01); END LOOP;
        RETURN NULL;
      END $$;
      CREATE TABLE u (a int, b int);
      INSERT INTO u VALUES (1, 0);
      CREATE TRIGGER gate BEFORE UPDATE ON u FOR EACH ROW EXECUTE FUNCTION gate();
      CREATE TRIGGER after_you BEFORE UPDATE ON u FOR EACH STATEMENT EXECUTE FUNCTION after_you();
    `);
    const client = await proxy.connect({ options: '-c deadlock_timeout=10ms' });
    const other = await proxy.postgres.connect();
    await other.query("SET deadlock_timeout = '1min'; BEGIN; UPDATE t SET b = 10 WHERE a = 2");
    const update = client.query(
      'WITH first AS (UPDATE u SET b = b + 1 RETURNING b) UPDATE t SET b = first.b FROM first',
    );
    await waitFor('it has begun', async () => {
      const { rows } = await admin.query<{ is_called: boolean }>('SELECT is_called FROM attempts');
      return rows[0].is_called;
    });
    await other.query('UPDATE u SET b = 10');
    await other.query('COMMIT');
    expect((await update).rowCount).toBe(2);
    expect(await value()).toBe(11);
    expect(repeats()).toBe(1);
    await admin.query('DROP TABLE u');
  });

  it('is run again when it is a function that writes, but not after that has changed a setting', async () => {
    const client = await proxy.connect();
    proxy.names.current = { ...NO_NAMES, volatileNames: new Set(['hidden']) };
    await client.query("SET application_name = 'x'");
    for (const setting of ['', 'y']) {
      for (const call of [`SELECT hidden('${setting}')`, { text: 'SELECT hidden($1)', values: [setting] }]) {
        losses = 2;
        proxy.events.length = 0;
        if (setting === '') await client.query(call);
        else await expect(client.query(call)).rejects.toMatchObject({ code: '40001' });
        expect(repeats()).toBe(setting === '' ? 2 : 0);
      }
    }
    expect(await value()).toBe(2);
    proxy.names.current = NO_NAMES;
  });

  it('is not run again where more of its answer has come than is held', async () => {
    const client = await proxy.connect();
    losses = 1;
    const wide = client.query("UPDATE t SET b = b + 1 RETURNING repeat('x', 2000)");
    await expect(wide).rejects.toMatchObject({ code: '40001' });
    expect(repeats()).toBe(0);
  });

  it('can be cancelled and left while it waits for its turn', async () => {
    const turns = new Turns(60_000);
    proxy.commits.turns = turns;
    // One may try at a time, and somebody does.
    const tickets = Array.from({ length: 10 }, () => turns.enter(proxy.commits.allocate(''), () => undefined));
    for (const ticket of tickets) ticket.end('lost');
    const holder = turns.enter(proxy.commits.allocate(''), () => undefined);
    for (const way of ['cancel', 'leave']) {
      losses = 1;
      const raw = await RawClient.connect(proxy.port);
      raw.send(send.query('UPDATE t SET b = b + 1 WHERE a = 1'));
      await waitFor('it waits', () => turns.waiting === 1);
      if (way === 'cancel') {
        const packet = Buffer.alloc(16 + raw.backendKey.length - 4);
        packet.writeInt32BE(packet.length, 0);
        packet.writeInt32BE(80877102, 4);
        packet.writeInt32BE(raw.backendPid, 8);
        raw.backendKey.copy(packet, 12);
        connect(proxy.port, '127.0.0.1').end(packet);
        expect(lines(await raw.ready())).toEqual(['E ERROR 57014 canceling statement due to user request', 'Z I']);
      }
      raw.destroy();
      await waitFor('it waits no more', () => turns.waiting === 0 && !proxy.victims.has(raw.backendPid));
    }
    holder.end('other');
    expect(proxy.commits.prepared).toHaveLength(2);
    expect(await value()).toBe(0);
  });
});
