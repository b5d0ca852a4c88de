import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type pg from 'pg';
import { PgError } from '../../src/runtime/errors.ts';
import type { CommitOutcome, ConflictVictim } from '../../src/session/ports.ts';
import { waitFor } from '../support/wait-for.ts';
import { startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';

const LOST = new PgError('40001', 'another node was first', { detail: 'node 2' });
const ABORTED: CommitOutcome = { type: 'aborted', error: LOST };

describe('a statement that locks whole tables, in the way of another node', () => {
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

  beforeEach(() => {
    proxy.commits.prepared.length = 0;
    proxy.events.length = 0;
    proxy.commits.decide = () => Promise.resolve(undefined);
  });

  async function connect(): Promise<{ client: pg.Client; victim: ConflictVictim }> {
    const client = await proxy.connect();
    const { rows } = await client.query<{ pid: number }>('SELECT pg_backend_pid() AS pid');
    return { client, victim: proxy.victims.get(rows[0].pid)! };
  }

  async function blocked(): Promise<void> {
    await waitFor('a statement that waits for a lock', async () => {
      const { rows } = await admin.query("SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'");
      return rows.length > 0;
    });
  }

  /** Who waits, by the transaction it waits in. */
  async function waitingSince(): Promise<string | undefined> {
    const { rows } = await admin.query<{ began: string }>(
      "SELECT xact_start::text AS began FROM pg_stat_activity WHERE wait_event_type = 'Lock'",
    );
    return rows.at(0)?.began;
  }

  const repeats = () => proxy.events.filter((event) => event === 'repeated').length;

  it.each(['ALTER TABLE t ADD COLUMN c int', 'TRUNCATE t'])('is run again without its client: %s', async (sql) => {
    const { client, victim } = await connect();
    const other = await proxy.postgres.connect();
    await other.query('BEGIN; INSERT INTO t VALUES (1, 1)');
    const running = client.query(sql);
    await blocked();
    const before = await waitingSince();
    victim.abort(LOST);
    const after = await waitFor('it waits again', async () => {
      const since = await waitingSince();
      return since !== before && since;
    });
    expect(after).not.toBe(before);
    await other.query('ROLLBACK');
    await running;
    expect(repeats()).toBe(1);
    expect(proxy.commits.prepared).toHaveLength(1);
    expect(proxy.commits.seniors.get(proxy.commits.prepared[0])).toBeDefined();
  });

  it('is run again when it loses while it is decided, but not for ever', async () => {
    const { client } = await connect();
    let losses = 3;
    proxy.commits.decide = () => Promise.resolve(losses-- > 0 ? ABORTED : undefined);
    await client.query('ALTER TABLE t ADD COLUMN d int');
    expect(repeats()).toBe(3);
    proxy.commits.decide = () => Promise.resolve(ABORTED);
    await expect(client.query('ALTER TABLE t ADD COLUMN e int')).rejects.toMatchObject({ code: '40001' });
    expect(repeats()).toBe(3 + 9);
    // The session is as usable as before.
    proxy.commits.decide = () => Promise.resolve(undefined);
    await client.query('ALTER TABLE t ADD COLUMN e int');
  });

  it('is not run again for longer than its lock_timeout', async () => {
    const { client } = await connect();
    await client.query("SET lock_timeout = '5ms'");
    const began = performance.now();
    proxy.commits.decide = async () => {
      await waitFor('the timeout is over', () => performance.now() - began > 10, { everyMs: 1 });
      return ABORTED;
    };
    await expect(client.query('ALTER TABLE t ADD COLUMN f int')).rejects.toMatchObject({ code: '40001' });
    expect(repeats()).toBe(0);
  });

  it('tells its own errors once, and is not run again for them', async () => {
    const { client } = await connect();
    await expect(client.query('  ALTER TABLE t ADD COLUMN a int')).rejects.toMatchObject({ code: '42701' });
    await expect(client.query('  ALTER TABLE t ADD COLUM a int')).rejects.toMatchObject({ code: '42601' });
    await expect(client.query('TRUNCATE missing')).rejects.toMatchObject({ code: '42P01' });
    proxy.commits.refusing = new PgError('57P03', 'no');
    await expect(client.query('TRUNCATE t')).rejects.toMatchObject({ code: '57P03' });
    proxy.commits.refusing = undefined;
    expect(repeats()).toBe(0);
    expect(proxy.commits.prepared).toHaveLength(0);
  });

  it('loses its block as any other statement does', async () => {
    const { client, victim } = await connect();
    await client.query('BEGIN');
    await client.query('ALTER TABLE t ADD COLUMN g int');
    victim.abort(LOST);
    await expect(client.query('SELECT 1')).rejects.toMatchObject({ code: '40001' });
    await client.query('ROLLBACK');
  });

  it.each([undefined, []])(
    'stands against others from its beginning to the end of its transaction: %s',
    async (values) => {
      const { client, victim } = await connect();
      const run = (text: string) => client.query({ text, ...(values && { values }) });
      await run('BEGIN');
      await run('INSERT INTO t (a) VALUES (5)');
      expect(victim.standing).toBeUndefined();
      for (const sql of ['TRUNCATE t', 'ALTER TABLE t ADD COLUMN h int']) {
        await run('ROLLBACK');
        expect(victim.standing).toBeUndefined();
        await run('BEGIN');
        await run(sql);
        expect(victim.standing).toBe([...proxy.commits.seniors.keys()].at(-1));
      }
      victim.abort(LOST);
      expect(victim.standing).toBeUndefined();
      await run('ROLLBACK');
    },
  );

  it('does not stand any more when its client has left it idle', async () => {
    const { client, victim } = await connect();
    await client.query('BEGIN');
    await client.query('ALTER TABLE t ADD COLUMN i int');
    expect(victim.standing).toBeDefined();
    await waitFor('it counts as left', () => victim.standing === undefined);
    await client.query('SELECT 1');
    expect(victim.standing).toBeDefined();
    await client.query('ROLLBACK');
  });
});
