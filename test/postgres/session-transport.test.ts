import { createHash } from 'node:crypto';
import { execFile } from 'node:child_process';
import { connect as tcpConnect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { connect as tlsConnect } from 'node:tls';
import { promisify } from 'node:util';
import { generate } from 'selfsigned';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type pg from 'pg';
import { installedBin } from '../support/postgres.ts';
import { waitFor } from '../support/wait-for.ts';
import { FakeServer } from '../unit/session/fake-server.ts';
import { startProxyFor, startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';
import { RawClient, describe as lines, send } from './session-raw.ts';

const run = promisify(execFile);
const MEGABYTE = 1 << 20;

describe('bytes of a session', () => {
  let proxy: SessionProxy;
  let admin: pg.Client;

  beforeAll(async () => {
    proxy = await startSessionProxy({ settings: { max_prepared_transactions: '64' } });
    admin = await proxy.postgres.connect();
    await admin.query('CREATE TABLE t (a int PRIMARY KEY, b text)');
  });

  afterAll(async () => {
    await proxy.stop();
  });

  it('carries a result of 500 MB in bounded memory, to a client that is slow', async () => {
    const raw = await RawClient.connect(proxy.port);
    let received = 0;
    const before = process.memoryUsage().rss;
    let peak = before;
    raw.consume((bytes) => {
      received += bytes;
      peak = Math.max(peak, process.memoryUsage().rss);
    });
    raw.send(send.query("SELECT repeat('x', 1000000) FROM generate_series(1, 500)"));
    for (let i = 0; i < 5; i++) {
      raw.pause();
      await new Promise((resolve) => setTimeout(resolve, 20));
      raw.resume();
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const end = Date.now() + 60_000;
    while (received < 500_000_000 && Date.now() < end) await new Promise((resolve) => setTimeout(resolve, 20));
    raw.destroy();
    expect(received).toBeGreaterThan(500_000_000);
    expect((peak - before) / MEGABYTE).toBeLessThan(200);
  });

  it('carries COPY in both directions and both protocols', async () => {
    const rows = 20_000;
    const data = Array.from({ length: rows }, (_, i) => `${i}\t${'é'.repeat(i % 50)}\n`).join('');
    const hash = createHash('md5').update(data).digest('hex');
    for (const extended of [false, true]) {
      for (const block of [false, true]) {
        await admin.query('TRUNCATE t');
        const raw = await RawClient.connect(proxy.port);
        if (block) raw.send(send.query('BEGIN'));
        // libpq sends a Sync right behind Execute, which the server ignores as it takes CopyData by then.
        raw.send(
          extended ? Buffer.concat([send.run('COPY t FROM STDIN'), send.sync()]) : send.query('COPY t FROM STDIN'),
        );
        await raw.until((messages) => messages.some(({ type }) => type === 'G'));
        const bytes = Buffer.from(data);
        for (let at = 0; at < bytes.length; at += 33_333) raw.send(send.copyData(bytes.subarray(at, at + 33_333)));
        raw.send(send.copyDone());
        if (extended) raw.send(send.sync());
        expect(lines(await raw.ready()).slice(-2)).toEqual([`C COPY ${rows}`, block ? 'Z T' : 'Z I']);
        if (block) raw.send(send.query('COMMIT'));
        if (block) await raw.ready();
        raw.send(send.query('COPY (SELECT * FROM t ORDER BY a) TO STDOUT'));
        const out = (await raw.ready()).filter(({ type }) => type === 'd').map(({ body }) => body);
        expect(createHash('md5').update(Buffer.concat(out)).digest('hex')).toBe(hash);
        raw.send(send.query('COPY t FROM STDIN'));
        await raw.until((messages) => messages.some(({ type }) => type === 'G'));
        raw.send(send.copyData('broken\n'), send.copyData('1\n'), send.copyDone(), send.query('SELECT 1'));
        expect(lines(await raw.ready(2)).map((line) => line.slice(0, 13))).toEqual([
          'E ERROR 22P02',
          'Z I',
          expect.stringMatching(/^T/),
          'D |1',
          'C SELECT 1',
          'Z I',
        ]);
        raw.destroy();
      }
    }
    const { rows: left } = await admin.query('SELECT FROM pg_prepared_xacts');
    expect(left).toEqual([]);
  });

  it('carries a CopyData message of 40 MB without holding it', async () => {
    await admin.query('TRUNCATE t');
    const raw = await RawClient.connect(proxy.port);
    raw.send(send.query('COPY t FROM STDIN'));
    await raw.until((messages) => messages.some(({ type }) => type === 'G'));
    raw.send(send.copyData(`1\t${'x'.repeat(40 * MEGABYTE)}\n`), send.copyDone());
    expect(lines(await raw.ready()).slice(-2)).toEqual(['C COPY 1', 'Z I']);
    raw.destroy();
  });

  it('takes a parameter and a query of 20 MB', async () => {
    const client = await proxy.connect();
    const big = 'y'.repeat(20 * MEGABYTE);
    await client.query('INSERT INTO t VALUES (2, $1)', [big]);
    await client.query(`INSERT INTO t VALUES (3, '${big}')`);
    const { rows } = await client.query<{ n: number }>('SELECT length(b) AS n FROM t WHERE a IN (2, 3)');
    expect(rows).toEqual([{ n: big.length }, { n: big.length }]);
  });

  it('serves limits: connections and time to start up', async () => {
    const limited = await startProxyFor(proxy.postgres, { limits: { maxConnections: 1, startupTimeout: 100 } });
    await limited.connect();
    await expect(limited.connect()).rejects.toMatchObject({ code: '53300' });
    const socket = tcpConnect(limited.port, '127.0.0.1');
    await new Promise((resolve) => socket.resume().once('close', resolve));
    await limited.stop();
  });

  it('lets transactions end when it stops', async () => {
    const other = await startProxyFor(proxy.postgres);
    const busy = await other.connect();
    const idle = await other.connect();
    const told = new Promise<Error>((resolve) => idle.once('error', resolve));
    await busy.query('BEGIN');
    await busy.query('INSERT INTO t VALUES (50)');
    const stopped = other.listener.stop(5000);
    expect(await told).toMatchObject({ code: '57P01' });
    await busy.query('COMMIT');
    await stopped;
    expect((await admin.query('SELECT a FROM t WHERE a = 50')).rows).toHaveLength(1);
    await other.commits.end();
  });

  it('completes no message of a server that goes away in the middle of it', async () => {
    const head = Buffer.from('D\0\0\0\x40\0\x01\0\0\0\x36half of it', 'latin1');
    const server = createServer((socket) => {
      const fake = new FakeServer();
      socket.once('data', () => {
        socket.write(fake.greet());
        socket.on('data', (chunk) => {
          if (chunk.includes('in the middle')) socket.end(head);
          else if (chunk.includes('before')) socket.end();
          else socket.write(fake.receive(chunk));
        });
      });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    const before = await startProxyFor(proxy.postgres, { server: { host: '127.0.0.1', port } });
    for (const [when, told] of [
      ['before', ['E FATAL 57P01 the connection to the local PostgreSQL server was lost']],
      ['in the middle', []],
    ] as const) {
      const raw = await RawClient.connect(before.port);
      raw.send(send.query(`SELECT '${when}'`));
      await waitFor('the end of the session', () => Promise.resolve(raw.closed));
      expect(lines(raw.take())).toEqual(told);
    }
    await before.stop();
    server.close();
  });

  it('passes walsender connections through untouched', async () => {
    const raw = await RawClient.connect(proxy.port, { replication: 'database' });
    raw.send(send.query('IDENTIFY_SYSTEM'));
    expect(lines(await raw.ready()).at(-1)).toMatch(/^Z/);
    raw.destroy();
  });

  it('cancels with the longer key of protocol 3.2 and negotiates what is newer', async () => {
    if (proxy.postgres.major < 18) return;
    const raw = await RawClient.connect(proxy.port, {}, 196610);
    expect(raw.backendKey.length).toBeGreaterThan(4);
    raw.send(send.query('SELECT pg_sleep(10)'));
    const admin = await proxy.postgres.connect();
    await waitFor('the statement runs', async () => {
      const sql = "SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'PgSleep'";
      return (await admin.query(sql, [raw.backendPid])).rows.length > 0;
    });
    const packet = Buffer.alloc(12 + raw.backendKey.length);
    packet.writeInt32BE(packet.length, 0);
    packet.writeInt32BE(80877102, 4);
    packet.writeInt32BE(raw.backendPid, 8);
    raw.backendKey.copy(packet, 12);
    tcpConnect(proxy.port, '127.0.0.1').end(packet);
    expect(lines(await raw.ready())).toContainEqual(expect.stringMatching(/^E ERROR 57014/));
    raw.destroy();
  });
});

describe('authentication and encryption', () => {
  let proxy: SessionProxy;
  let cert: string;

  beforeAll(async () => {
    const pems = await generate([{ name: 'commonName', value: 'localhost' }], { keySize: 2048 });
    cert = pems.cert;
    proxy = await startSessionProxy({}, { tls: { cert: pems.cert, key: pems.private } });
    const admin = await proxy.postgres.connect();
    await admin.query(`CREATE TABLE t (a int);
      SET password_encryption = 'scram-sha-256'; CREATE ROLE s LOGIN PASSWORD 'secret';
      SET password_encryption = 'md5'; CREATE ROLE m LOGIN PASSWORD 'secret'; CREATE ROLE c LOGIN PASSWORD 'secret';
      GRANT ALL ON t TO s, m, c`);
    const { rows } = await admin.query<{ file: string }>("SELECT current_setting('hba_file') AS file");
    const { writeFileSync, readFileSync } = await import('node:fs');
    const hba = readFileSync(rows[0].file, 'utf8');
    const lines = ['s scram-sha-256', 'm md5', 'c password'].map((line) => `local all ${line}\n`).join('');
    writeFileSync(rows[0].file, lines + hba);
    const loaded = async () => {
      const client = await proxy.postgres.connect();
      const { rows: times } = await client.query<{ at: string }>('SELECT pg_conf_load_time()::text AS at');
      await client.end();
      return times[0].at;
    };
    const before = await loaded();
    await admin.query('SELECT pg_reload_conf()');
    await waitFor('the server has read pg_hba.conf', async () => (await loaded()) !== before);
  });

  afterAll(async () => {
    await proxy.stop();
  });

  it.each(['s', 'm', 'c'])('passes the password exchange of role %s on, in the clear and under TLS', async (user) => {
    for (const ssl of [false, { rejectUnauthorized: false }]) {
      const client = await proxy.connect({ user, password: 'secret', ssl });
      await client.query('INSERT INTO t VALUES (1)');
      expect((await client.query('SELECT current_user AS u')).rows).toEqual([{ u: user }]);
      await expect(proxy.connect({ user, password: 'wrong', ssl })).rejects.toMatchObject({ code: '28P01' });
    }
  });

  it('takes TLS from the first byte on', async () => {
    const socket = tlsConnect({
      port: proxy.port,
      host: '127.0.0.1',
      ca: cert,
      ALPNProtocols: ['postgresql'],
      checkServerIdentity: () => undefined,
    });
    await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
    expect(socket.alpnProtocol).toBe('postgresql');
    const body = Buffer.from('user\0postgres\0database\0postgres\0\0');
    const packet = Buffer.alloc(8 + body.length);
    packet.writeInt32BE(packet.length, 0);
    packet.writeInt32BE(196608, 4);
    body.copy(packet, 8);
    socket.write(packet);
    const [first] = await new Promise<Buffer>((resolve) => socket.once('data', resolve));
    expect(first).toBe('R'.charCodeAt(0));
    socket.destroy();
  });

  it.runIf(installedBin !== undefined)('serves psql under TLS, encrypted and by SCRAM', async () => {
    const environment = { ...process.env, PGPASSWORD: 'secret', PGSSLMODE: 'require' };
    const { stdout } = await run(
      'psql',
      [
        '-X',
        '-At',
        '-h',
        '127.0.0.1',
        '-p',
        String(proxy.port),
        '-U',
        's',
        '-d',
        'postgres',
        '-c',
        'INSERT INTO t VALUES (2)',
        '-c',
        '\\conninfo',
      ],
      { env: environment },
    );
    expect(stdout).toContain('INSERT 0 1');
    expect(stdout).toMatch(/SSL connection|TLS/);
  });
});

describe.runIf(installedBin !== undefined)('pgbench', () => {
  let proxy: SessionProxy;

  beforeAll(async () => {
    proxy = await startSessionProxy({ bin: installedBin, settings: { max_prepared_transactions: '64' } });
    await run('pgbench', [
      '-i',
      '-q',
      '-h',
      '127.0.0.1',
      '-p',
      String(proxy.postgres.port),
      '-U',
      'postgres',
      'postgres',
    ]);
  });

  afterAll(async () => {
    await proxy.stop();
  });

  it.each(['simple', 'extended', 'prepared'])('runs TPC-B in mode %s without a failed transaction', async (mode) => {
    proxy.commits.prepared.length = 0;
    const { stdout } = await run('pgbench', [
      '-n',
      '-M',
      mode,
      '-c',
      '4',
      '-t',
      '50',
      '-h',
      '127.0.0.1',
      '-p',
      String(proxy.port),
      '-U',
      'postgres',
      'postgres',
    ]);
    expect(stdout).toContain('number of transactions actually processed: 200/200');
    expect(stdout).toContain('number of failed transactions: 0 ');
    expect(proxy.commits.prepared).toHaveLength(200);
  });
});
