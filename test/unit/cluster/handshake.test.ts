import { once } from 'node:events';
import { createServer, connect, type AddressInfo, type Socket } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { greet, objection, receive, type Greeting } from '../../../src/cluster/handshake.ts';
import { logIndex } from '../../../src/runtime/ids.ts';

const SECRET = 'secret';
const LOG = { name: 'a', last: logIndex(7) };
const open: { close(): void }[] = [];
afterEach(() => open.splice(0).forEach((one) => one.close()));

/** The two ends of a connection after a handshake. */
async function greeted(): Promise<{ dialler: Socket; acceptor: Socket; greeting: Greeting }> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const accepted = once(server, 'connection') as Promise<[Socket]>;
  const dialler = connect((server.address() as AddressInfo).port, '127.0.0.1');
  const [acceptor] = await accepted;
  open.push({ close: () => [dialler, acceptor].forEach((socket) => socket.destroy()) }, server);
  const said = greet(dialler, SECRET, { cluster: 'test', node: 1, to: 2, kind: 'control' }, () => LOG);
  const heard = receive(
    acceptor,
    SECRET,
    () => undefined,
    () => () => undefined,
  );
  const [greeting, { log }] = await Promise.all([said, heard]);
  expect(log).toEqual(LOG);
  return { dialler, acceptor, greeting };
}

test.each([
  ['what is no JSON', 'nonsense\n', 'JSON'],
  ['what is not proven', '{"refused":"you","had":9,"proof":"0"}\n', 'nothing was asked'],
  ['what never ends', 'x'.repeat(5000), 'too long'],
])('a link ends when the acceptor says %s after the handshake', async (_what, bytes, reason) => {
  const { dialler, acceptor, greeting } = await greeted();
  const answer = objection(dialler, SECRET, greeting);
  acceptor.write(bytes);
  await expect(answer).rejects.toThrow(reason);
});

test('the end of a link after the handshake is noticed', async () => {
  const { dialler, acceptor, greeting } = await greeted();
  const answer = objection(dialler, SECRET, greeting);
  acceptor.end();
  await expect(answer).rejects.toThrow('closed');
});
