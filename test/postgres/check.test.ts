import { createServer } from 'node:net';
import type { AddressInfo, Server } from 'node:net';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { checkCommand, checkPostgres } from '../../src/cli/check.ts';
import type { CheckResult } from '../../src/cli/check.ts';
import { parseConfig } from '../../src/config/load.ts';
import { installedBin, startPostgres } from '../support/postgres.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';

const servers = [
  { name: 'the newest PostgreSQL', bin: undefined },
  { name: 'the oldest PostgreSQL', bin: installedBin },
].filter(({ bin }, index) => index === 0 || bin !== undefined);

/** The text of a configuration for a server. */
function configFor(server: TestPostgres, more = '', user = 'postgres', databases = 'postgres'): string {
  return `
node: 1
cluster: { name: dev, secret: 0123456789abcdef }
data_dir: data
postgres: { host: ${server.host}, port: ${server.port}, user: ${user} }
databases: [${databases}]
nodes:
  - { id: 1, peer: { host: 127.0.0.1, port: 1 } }
  - { id: 2, peer: { host: 127.0.0.1, port: 2 } }
  - { id: 3, peer: { host: 127.0.0.1, port: 3 } }
session: { max_connections: 50 }
${more}`;
}

const byName = (results: CheckResult[]): Map<string, CheckResult> =>
  new Map(results.map((result) => [result.name, result]));

describe.each(servers)('pgmm check on $name', ({ bin }) => {
  let server: TestPostgres;
  let dir: string;
  let peer: Server;

  beforeAll(async () => {
    dir = makeTempDir('check');
    server = await startPostgres({ bin });
    peer = createServer().listen(0, '127.0.0.1');
  });
  afterAll(async () => {
    peer.close();
    await server.stop();
    removeTempDir(dir);
  });

  const check = async (text: string): Promise<Map<string, CheckResult>> =>
    byName(await checkPostgres(parseConfig(text, 'f')));

  it('finds nothing wrong with a server that is as it should be', async () => {
    const results = await check(configFor(server));
    expect([...results.values()].filter(({ status }) => status !== 'ok')).toEqual([]);
    expect(results.has('max_active_replication_origins')).toBe(server.major >= 18);
  });

  it('finds that no logical copy can be given, where such copies are wanted', async () => {
    const wanted = configFor(server, 'reclone: { method: logical, tools_directory: /nowhere }');
    expect((await check(wanted)).get('pg_dump')).toMatchObject({
      status: 'warning',
      found: expect.stringContaining('/nowhere/pg_dump is not there') as string,
      cure: expect.stringContaining('reclone.tools_directory') as string,
    });
    const optional = configFor(server, 'reclone: { tools_directory: /nowhere }');
    expect((await check(optional)).get('pg_dump')).toMatchObject({
      status: 'ok',
      found: expect.stringContaining('physical copies only') as string,
    });
    const none = configFor(server, 'reclone: { method: physical, tools_directory: /nowhere }');
    expect((await check(none)).has('pg_dump')).toBe(false);
  });

  it('finds a role that is no superuser, and one that may not replicate', async () => {
    const client = await server.connect();
    await client.query('CREATE ROLE weak LOGIN');
    const results = await check(configFor(server, '', 'weak'));
    expect(results.get('role')).toMatchObject({ status: 'failed', cure: 'ALTER ROLE weak SUPERUSER;' });
    expect(results.get('replication from postgres')).toMatchObject({
      status: 'failed',
      cure: 'ALTER ROLE weak REPLICATION;',
    });
  });

  it('finds databases that are missing or encoded otherwise', async () => {
    const client = await server.connect();
    await client.query(`CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0`);
    const results = await check(configFor(server, '', 'postgres', 'latin, My-App'));
    expect(results.get('database latin')).toMatchObject({ status: 'warning', found: 'is encoded in LATIN1' });
    expect(results.get('replication from latin')?.status).toBe('ok');
    expect(results.get('database My-App')).toMatchObject({ status: 'failed', cure: 'CREATE DATABASE "My-App";' });
  });

  it('finds triggers and rules that fire on replay', async () => {
    const admin = await server.connect();
    await admin.query('CREATE DATABASE firing');
    const client = await server.connect({ database: 'firing' });
    await client.query(`
      CREATE TABLE t (id int PRIMARY KEY DEFERRABLE);
      CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
      CREATE TRIGGER audit AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing();
      CREATE TRIGGER usual AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION nothing();
      CREATE RULE also AS ON UPDATE TO t DO ALSO NOTIFY t;
      ALTER TABLE t ENABLE ALWAYS TRIGGER audit, ENABLE REPLICA RULE also`);
    const title = 'triggers of firing';
    const result = (await check(configFor(server, '', 'postgres', 'firing'))).get(title);
    expect(result).toMatchObject({
      status: 'failed',
      found: expect.stringContaining('rule also of table t, trigger audit of table t:') as string,
    });
    // The statements of the cure, and the triggers of a deferrable key, which pgmm enables itself.
    await client.query(result?.cure?.split('\n').slice(1).join('\n') ?? '');
    const key = await client.query<{ tgname: string }>('SELECT tgname FROM pg_trigger WHERE tgisinternal');
    await client.query(`ALTER TABLE t ENABLE ALWAYS TRIGGER "${key.rows[0].tgname}"`);
    expect((await check(configFor(server, '', 'postgres', 'firing'))).get(title)?.status).toBe('ok');
  });

  it("finds others' prepared transactions", async () => {
    const client = await server.connect();
    await client.query(`BEGIN; CREATE TABLE p (x int); PREPARE TRANSACTION 'it''s mine'`);
    await client.query(`BEGIN; CREATE TABLE q (x int); PREPARE TRANSACTION 'pgmm:dev:1:1:1:1'`);
    const results = await check(configFor(server));
    expect(results.get('prepared transactions')).toMatchObject({
      status: 'warning',
      cure: "In postgres: COMMIT PREPARED or ROLLBACK PREPARED 'it''s mine';",
    });
    await client.query(`ROLLBACK PREPARED 'it''s mine'`);
    await client.query(`ROLLBACK PREPARED 'pgmm:dev:1:1:1:1'`);
  });

  it('says what a connection needs that is not accepted', async () => {
    const nobody = await check(configFor(server, '', 'nobody'));
    expect([...nobody.values()]).toMatchObject([{ name: 'connection', status: 'failed' }]);
    const { port } = peer.address() as AddressInfo;
    peer.close();
    const nothing = await check(configFor(server).replace(`port: ${server.port}`, `port: ${port}`));
    expect(nothing.get('connection')?.cure).toContain(`correct postgres.host (127.0.0.1) and postgres.port (${port})`);
  });

  it('is a command with an exit code, for people and for programs', async () => {
    const print = vi.fn<(line: string) => void>();
    const run = async (...args: string[]): Promise<string> => {
      print.mockClear();
      process.exitCode = 0;
      await checkCommand(print).parseAsync(['--config', join(dir, 'pgmm.yaml'), ...args], { from: 'user' });
      return print.mock.calls.map(([line]) => line).join('\n');
    };
    writeFileSync(join(dir, 'pgmm.yaml'), configFor(server));
    const text = await run();
    expect(text).toMatch(/^ok {7}data_dir +.*\(will be created\), fsync takes/m);
    expect(text).toMatch(/^WARNING {2}node 2 +connect ECONNREFUSED/m);
    expect(process.exitCode).toBe(0);
    writeFileSync(join(dir, 'pgmm.yaml'), configFor(server, 'node: 4'));
    expect(JSON.parse(await run('--json'))).toMatchObject([{ name: 'configuration', status: 'failed' }]);
    expect(process.exitCode).toBe(1);
    process.exitCode = 0;
  });
});

describe.each(servers)('pgmm check on $name without settings of its own', ({ bin }) => {
  it('names each setting and its cure', async () => {
    const settings = {
      ...{ wal_level: 'replica', max_prepared_transactions: '0', max_wal_senders: '1', max_replication_slots: '2' },
      ...{ max_connections: '20', fsync: 'off', synchronous_standby_names: 'other', synchronous_commit: 'local' },
    };
    const server = await startPostgres({ bin, settings });
    if (server.major >= 18) {
      const client = await server.connect();
      await client.query(`ALTER SYSTEM SET idle_replication_slot_timeout = '1h'`);
      await client.query('SELECT pg_reload_conf()');
      await client.end();
    }
    try {
      const results = byName(await checkPostgres(parseConfig(configFor(server), 'f')));
      const cures = Object.fromEntries(
        [...results].map(([name, { status, cure }]) => [name, `${status} ${cure ?? ''}`]),
      );
      expect(cures).toMatchObject({
        wal_level: 'failed ALTER SYSTEM SET wal_level = logical;  then restart PostgreSQL.',
        max_prepared_transactions: 'failed ALTER SYSTEM SET max_prepared_transactions = 150;  then restart PostgreSQL.',
        max_wal_senders: 'failed ALTER SYSTEM SET max_wal_senders = 4;  then restart PostgreSQL.',
        max_connections: 'failed ALTER SYSTEM SET max_connections = 67;  then restart PostgreSQL.',
        fsync: 'warning ALTER SYSTEM SET fsync = on;  SELECT pg_reload_conf();',
        synchronous_standby_names: 'warning ALTER SYSTEM RESET synchronous_standby_names;  SELECT pg_reload_conf();',
      });
      if (server.major >= 18)
        expect(cures['idle_replication_slot_timeout']).toContain('ALTER SYSTEM RESET idle_replication_slot_timeout;');
      expect(cures['max_replication_slots']).toMatch(server.major >= 18 ? /= 4;/ : /= 9;/);
    } finally {
      await server.stop();
    }
  });
});
