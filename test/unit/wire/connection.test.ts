import { createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { afterEach, describe, expect, it } from 'vitest';
import { ServerConnection } from '../../../src/wire/connection.ts';
import { FrontendWriter } from '../../../src/wire/frontend.ts';
import type { PgError } from '../../../src/runtime/errors.ts';

function message(type: string, body: string | Buffer = ''): Buffer {
  const bytes = Buffer.from(body);
  const head = Buffer.alloc(5);
  head.write(type);
  head.writeInt32BE(bytes.length + 4, 1);
  return Buffer.concat([head, bytes]);
}

function row(...values: string[]): Buffer {
  const count = Buffer.alloc(2);
  count.writeInt16BE(values.length);
  const fields = values.map((value) => {
    const length = Buffer.alloc(4);
    length.writeInt32BE(Buffer.byteLength(value));
    return Buffer.concat([length, Buffer.from(value)]);
  });
  return message('D', Buffer.concat([count, ...fields]));
}

const READY = message('Z', 'I');
const error = (code: string, text: string) => message('E', `SERROR\0VERROR\0C${code}\0M${text}\0\0`);
const complete = (tag: string) => message('C', `${tag}\0`);

describe('ServerConnection', () => {
  let server: Server | undefined;
  let connection: ServerConnection | undefined;
  afterEach(() => {
    connection?.destroy();
    server?.close();
  });

  /** A server that greets, and then does what the test says. */
  async function connect(answer: (socket: Socket) => void): Promise<ServerConnection> {
    server = createServer((socket) => {
      socket.on('error', () => undefined);
      socket.once('data', () => {
        const key = Buffer.alloc(8);
        key.writeInt32BE(4711, 0);
        socket.write(
          Buffer.concat([
            message('R', Buffer.alloc(4)),
            message('S', 'server_version\x0017.5 (x)\0'),
            message('K', key),
            READY,
          ]),
        );
        answer(socket);
      });
    });
    await new Promise<void>((resolve) => server?.listen(0, '127.0.0.1', resolve));
    const { port } = server.address() as AddressInfo;
    connection = await ServerConnection.connect({
      host: '127.0.0.1',
      port,
      user: 'u',
      database: 'd',
      applicationName: 'a',
    });
    return connection;
  }

  it('knows whom it speaks to', async () => {
    const c = await connect(() => undefined);
    expect([c.pid, c.serverVersion]).toEqual([4711, 170_005]);
  });

  it('answers pipelined requests in order, wherever the packets are cut', async () => {
    const stream = Buffer.concat([
      message('N', 'SNOTICE\0\0'),
      row('1'),
      complete('SELECT 1'),
      READY,
      error('23505', 'duplicate'),
      error('25P02', 'later'),
      READY,
      row('x'.repeat(300), 'y'),
      complete('SELECT 1'),
      READY,
    ]);
    for (const size of [1, 2, 3, 5, 7, 64, stream.length]) {
      let socket: Socket | undefined;
      const c = await connect((s) => (socket = s));
      const answers = ['one', 'two', 'three'].map((sql) => c.query(sql).catch((e: unknown) => (e as PgError).sqlstate));
      expect(c.pending).toBe(3);
      for (let at = 0; at < stream.length; at += size) {
        socket?.write(stream.subarray(at, at + size));
        if (size < 64) await new Promise((resolve) => setImmediate(resolve));
      }
      expect(await Promise.all(answers)).toEqual([[['1']], '23505', [['x'.repeat(300), 'y']]]);
      expect(c.pending).toBe(0);
      c.destroy();
      server?.close();
    }
  });

  it('takes a message of many packets', async () => {
    const size = 16 << 20;
    let socket: Socket | undefined;
    const c = await connect((s) => (socket = s));
    const answer = c.query('large');
    socket?.write(Buffer.concat([row('z'.repeat(size)), complete('SELECT 1'), READY]));
    expect((await answer)[0]?.[0]).toHaveLength(size);
  });

  it('fails what is under way, and everything after, when the server goes away', async () => {
    let socket: Socket | undefined;
    const c = await connect((s) => (socket = s));
    const closed = new Promise<PgError>((resolve) => c.onClose(resolve));
    const answers = [c.query('one'), c.query('two')].map((p) => p.catch((e: unknown) => (e as PgError).sqlstate));
    socket?.end(message('E', 'SFATAL\0VFATAL\0C57P01\0Mterminating connection due to administrator command\0\0'));
    expect(await Promise.all(answers)).toEqual(['08006', '08006']);
    expect((await closed).sqlstate).toBe('57P01');
    await expect(c.query('three')).rejects.toMatchObject({ sqlstate: '57P01' });
    await new Promise<void>((resolve) => c.onClose(() => resolve()));
  });

  it('holds back when the server does not read, and says when it does again', async () => {
    let socket: Socket | undefined;
    const c = await connect((s) => (socket = s.pause()));
    const copy = new FrontendWriter().copyData(Buffer.alloc(1 << 20)).take();
    let accepted = 0;
    while (c.write(copy) && accepted < 1000) accepted += 1;
    expect(accepted).toBeLessThan(1000);
    const drained = c.drained();
    socket?.resume();
    await drained;
    expect(c.write(Buffer.from(copy.subarray(0, 5)))).toBe(true);
  });
});
