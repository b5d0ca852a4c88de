import { once } from 'node:events';
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';
import { PassThrough } from 'node:stream';
import { connect as connectSecurely, createSecureContext, TLSSocket } from 'node:tls';
import { getUserTimeout } from 'net-keepalive';
import { generate } from 'selfsigned';
import { describe, expect, it } from 'vitest';
import { drained, tuneSocket, waitForSlowReader } from '../../../src/runtime/sockets.ts';
import { waitFor } from '../../support/wait-for.ts';

describe('waiting for room in a stream', () => {
  function full() {
    const stream = new PassThrough({ highWaterMark: 1 });
    stream.on('error', () => undefined);
    const listeners = () => stream.eventNames().map((name) => [name, stream.listenerCount(name)]);
    const before = listeners();
    expect(stream.write('more than it takes')).toBe(false);
    return { stream, isAsBefore: () => expect(listeners()).toEqual(before) };
  }

  it.each([
    ['it is read', (stream: PassThrough) => void stream.read()],
    ['it ends', (stream: PassThrough) => void stream.destroy()],
    ['it fails', (stream: PassThrough) => void stream.destroy(new Error('broken'))],
  ])('is over when %s, and leaves no listener behind', async (_what, happens) => {
    const { stream, isAsBefore } = full();
    const room = drained(stream);
    happens(stream);
    await room;
    isAsBefore();
  });
});

// Elsewhere the option can't be read.
describe.skipIf(process.platform !== 'linux')('a reader that takes its time', () => {
  const SETTINGS = { idle: 1000, interval: 1000, count: 3, userTimeout: 60_000 };
  /** More than the kernel keeps on the way. */
  const MUCH = Buffer.alloc(64 * 1024 * 1024);

  /** TCP_USER_TIMEOUT of `writer` while nobody reads what it has written, and when all was read. */
  async function whileAndAfter(writer: Socket, reader: Socket): Promise<[number, number]> {
    waitForSlowReader(writer, SETTINGS);
    reader.pause();
    writer.write(MUCH);
    await waitFor('the timeout is off', () => getUserTimeout(writer) === 0);
    const meanwhile = getUserTimeout(writer);
    reader.resume();
    await waitFor(
      'all was read, and the timeout is back',
      () => writer.writableLength === 0 && getUserTimeout(writer) > 0,
    );
    return [meanwhile, getUserTimeout(writer)];
  }

  async function pair(): Promise<[Socket, Socket]> {
    const server = createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const reader = connect((server.address() as AddressInfo).port, '127.0.0.1');
    const [writer] = (await once(server, 'connection')) as [Socket];
    server.close();
    tuneSocket(writer, SETTINGS);
    return [writer, reader];
  }

  it('is waited for, and one that vanishes later is noticed again', async () => {
    const [writer, reader] = await pair();
    try {
      expect(getUserTimeout(writer)).toBe(SETTINGS.userTimeout);
      expect(await whileAndAfter(writer, reader)).toEqual([0, SETTINGS.userTimeout]);
    } finally {
      for (const socket of [writer, reader]) socket.destroy();
    }
  });

  it('is waited for under TLS, too', async () => {
    const { cert, private: key } = await generate([{ name: 'commonName', value: 'localhost' }]);
    const [raw, client] = await pair();
    const writer = new TLSSocket(raw, { isServer: true, secureContext: createSecureContext({ cert, key }) });
    const reader = connectSecurely({ socket: client, rejectUnauthorized: false });
    try {
      await once(reader, 'secureConnect');
      expect(await whileAndAfter(writer, reader)).toEqual([0, SETTINGS.userTimeout]);
    } finally {
      for (const socket of [writer, reader]) socket.destroy();
    }
  });
});
