import { once } from 'node:events';
import { connect, createServer } from 'node:net';
import type { AddressInfo, Server, Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { OPEN, Relay } from '../../../src/cli/dev/relay.ts';
import { waitFor } from '../../support/wait-for.ts';

const HOST = '127.0.0.1';
const FROZEN = { forward: true, backward: true, reset: false };
/** Long enough for a byte to arrive on this machine if it were let through. */
const A_WHILE_MS = 100;

/** One end of a connection, and all that it has seen. */
class End {
  readonly socket: Socket;
  received = '';
  ended = false;
  closed: 'no' | 'closed' | 'reset' = 'no';

  constructor(socket: Socket) {
    this.socket = socket;
    socket.on('data', (bytes) => (this.received += bytes.toString()));
    socket.on('end', () => (this.ended = true));
    socket.on('error', () => (this.closed = 'reset'));
    socket.on('close', () => {
      if (this.closed === 'no') this.closed = 'closed';
    });
  }
}

describe('a relay', () => {
  let target: Server;
  let relay: Relay;
  let accepted: End[];
  const dialled: End[] = [];

  beforeEach(async () => {
    accepted = [];
    target = createServer({ allowHalfOpen: true }, (socket) => accepted.push(new End(socket)));
    target.listen(0, HOST);
    await once(target, 'listening');
    relay = new Relay({ host: HOST, port: (target.address() as AddressInfo).port });
    await relay.listen({ host: HOST, port: 0 });
  });

  afterEach(async () => {
    for (const end of [...dialled.splice(0), ...accepted]) end.socket.destroy();
    await relay.close();
    target.close();
  });

  async function dial(): Promise<End> {
    const socket = connect({ host: HOST, port: relay.port, allowHalfOpen: true });
    const end = new End(socket);
    dialled.push(end);
    await waitFor('the relay accepts', () => !socket.connecting);
    return end;
  }

  async function dialThrough(): Promise<[End, End]> {
    const before = accepted.length;
    const client = await dial();
    const server = await waitFor('the target accepts', () => accepted.at(before));
    return [client, server];
  }

  it('passes bytes and a close on, each direction on its own', async () => {
    const [client, server] = await dialThrough();
    client.socket.end('question');
    await waitFor('the end arrives', () => server.ended);
    expect(server.received).toBe('question');
    server.socket.end('answer');
    await waitFor('the other end arrives', () => client.closed === 'closed');
    expect(client.received).toBe('answer');
    await waitFor('the relay forgets the connection', () => relay.connections === 0);
  });

  it('holds bytes back while it is cut, and delivers them when it is healed', async () => {
    const [client, server] = await dialThrough();
    relay.set(FROZEN);
    client.socket.write('one ');
    server.socket.write('two ');
    await sleep(A_WHILE_MS);
    expect([server.received, client.received]).toEqual(['', '']);
    relay.set(OPEN);
    client.socket.write('three');
    await waitFor(
      'what was held arrives in order',
      () => server.received === 'one three' && client.received === 'two ',
    );
    expect([client.closed, server.closed]).toEqual(['no', 'no']);
  });

  it('delays everything, in order, the end too', async () => {
    const [client, server] = await dialThrough();
    relay.set({ ...OPEN, delay: 10 * A_WHILE_MS });
    client.socket.write('slow');
    await sleep(A_WHILE_MS);
    expect(server.received).toBe('');
    relay.set(OPEN);
    client.socket.end(' and quick');
    await waitFor('all arrives', () => server.ended);
    expect(server.received).toBe('slow and quick');
  });

  it('loses one direction only, if asked to', async () => {
    const [client, server] = await dialThrough();
    relay.set({ forward: true, backward: false, reset: false });
    client.socket.write('lost');
    server.socket.write('arrives');
    await waitFor('the open direction delivers', () => client.received === 'arrives');
    await sleep(A_WHILE_MS);
    expect(server.received).toBe('');
    relay.set({ forward: false, backward: true, reset: false });
    await waitFor('the other way round', () => server.received === 'lost');
  });

  it.each([
    { forward: true, backward: true },
    { forward: true, backward: false },
    { forward: false, backward: true },
  ])('lets a new connection hang while cut %o, and completes it when healed', async (cut) => {
    relay.set({ ...cut, reset: false });
    const client = await dial();
    client.socket.write('early');
    await sleep(A_WHILE_MS);
    expect(accepted).toHaveLength(0);
    expect(client.closed).toBe('no');
    relay.set(OPEN);
    await waitFor('the target is reached', () => accepted[0]?.received === 'early');
  });

  it('hides a close and a reset until it is healed', async () => {
    const [closing, seesClose] = await dialThrough();
    const [resetting, seesReset] = await dialThrough();
    relay.set(FROZEN);
    closing.socket.end('last words');
    resetting.socket.resetAndDestroy();
    await sleep(A_WHILE_MS);
    expect([seesClose.ended, seesClose.received, seesReset.closed]).toEqual([false, '', 'no']);
    relay.set(OPEN);
    await waitFor('the close arrives', () => seesClose.ended);
    expect(seesClose.received).toBe('last words');
    await waitFor('the reset arrives', () => seesReset.closed === 'reset');
  });

  it('resets connections and refuses new ones, if asked to', async () => {
    const [client, server] = await dialThrough();
    relay.set({ forward: true, backward: true, reset: true });
    await waitFor('both ends are reset', () => client.closed === 'reset' && server.closed === 'reset');
    const late = await dial();
    await waitFor('a new one too', () => late.closed === 'reset');
    expect(accepted).toHaveLength(1);
    relay.set(OPEN);
    await dialThrough();
  });

  it('resets a connection whose target is not there', async () => {
    target.close();
    const client = await dial();
    await waitFor('the reset arrives', () => client.closed === 'reset');
  });

  it('holds the sender back rather than the bytes in memory', async () => {
    const [client, server] = await dialThrough();
    relay.set(FROZEN);
    const size = 64 * 1024 * 1024;
    client.socket.write(Buffer.alloc(size, 'x'));
    await sleep(A_WHILE_MS);
    expect(client.socket.writableLength).toBeGreaterThan(0);
    let arrived = 0;
    server.socket.removeAllListeners('data');
    server.socket.on('data', (bytes) => (arrived += bytes.length));
    relay.set(OPEN);
    await waitFor('all of it arrives', () => arrived === size);
  });
});
