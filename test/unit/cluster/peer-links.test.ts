import net from 'node:net';
import { once } from 'node:events';
import pino from 'pino';
import { afterEach, describe, expect, it } from 'vitest';
import { greet, receive, type LinkKind } from '../../../src/cluster/handshake.ts';
import { PeerLinks, type Address } from '../../../src/cluster/peer-links.ts';
import { PeerLogs, type ShownLog } from '../../../src/cluster/peer-logs.ts';
import { nodeId, logIndex, type Gid, type LogIndex, type NodeId } from '../../../src/runtime/ids.ts';
import { freePort } from '../../support/free-ports.ts';
import { waitFor } from '../../support/wait-for.ts';

const [one, two] = [nodeId(1), nodeId(2)];
const KEEPALIVE = { idle: 10_000, interval: 1000, count: 3, userTimeout: 10_000 };

describe('the links between two nodes', () => {
  const open: PeerLinks[] = [];
  afterEach(() => Promise.all(open.splice(0).map((links) => links.stop())));

  interface Setting {
    readonly secret?: string;
    /** Where it listens, if not where the others look for it. */
    readonly port?: number;
  }

  /** A connection to node 1 that has proven to be node 2's. */
  async function connectTo({ port }: End, kind: LinkKind): Promise<net.Socket> {
    const socket = net.connect({ host: '127.0.0.1', port });
    socket.on('error', () => undefined);
    await once(socket, 'connect');
    await greet(socket, 'secret', { cluster: 'test', node: 2, to: 1, kind }, () => ({ name: 'b', last: logIndex(0) }));
    return socket;
  }

  async function pair(): Promise<(self: 1 | 2, log: ShownLog, logs: PeerLogs, setting?: Setting) => Promise<End>> {
    const [a, b] = [await freePort(), await freePort()];
    const address = (port: number) => ({ host: '127.0.0.1', port });
    const peers = new Map([
      [one, address(a)],
      [two, address(b)],
    ]);
    return async (self, log, peerLogs, { secret = 'secret', port } = {}) => {
      const wentBack: LogIndex[] = [];
      const heard: string[] = [];
      const warnings: string[] = [];
      const listen = port === undefined ? peers.get(nodeId(self))! : address(port);
      const links = new PeerLinks({
        self: nodeId(self),
        cluster: 'test',
        secret,
        listen,
        peers,
        keepalive: KEEPALIVE,
        silence: 60_000,
        log: pino({ level: 'warn' }, { write: (line) => warnings.push(line) }),
        peerLogs,
        ownLog: () => log,
        onMessage: (_from, message) => heard.push(message.t),
        onBulk: () => undefined,
        onUp: () => undefined,
        onDown: () => undefined,
        onWentBack: (had) => wentBack.push(had),
      });
      open.push(links);
      await links.start();
      return { links, peers, port: listen.port, wentBack, heard, warnings };
    };
  }

  it('refuse the node that shows less of its log than the other one remembers, and tell it what it had', async () => {
    const start = await pair();
    const logs = new PeerLogs({ 2: { log: 'b', decided: logIndex(50), former: [] } });
    const first = await start(1, { name: 'a', last: logIndex(60) }, logs);
    const second = await start(2, { name: 'b', last: logIndex(49) }, new PeerLogs());
    await waitFor('node 2 hears of it again and again', () => {
      second.links.send(one, { t: 'committed', index: logIndex(1) });
      return second.wentBack.length > 5;
    });
    expect(new Set(second.wentBack)).toEqual(new Set([50]));
    expect(first.warnings.filter((line) => line.includes('peer refused'))).toHaveLength(1);
    await waitFor('node 1 reaches node 2', () => first.links.send(two, { t: 'committed', index: logIndex(1) }));
    await waitFor('node 2 hears node 1', () => second.heard.includes('committed'));
    expect(first.heard).toEqual([]);
    expect(first.wentBack).toEqual([]);
  });

  it('note down the log of whoever has proven that it knows the secret', async () => {
    const start = await pair();
    const logs = new PeerLogs();
    const first = await start(1, { name: 'a', last: logIndex(60) }, logs);
    const second = await start(2, { name: 'b', last: logIndex(49) }, new PeerLogs());
    await waitFor('node 2 reaches node 1', () => second.links.send(one, { t: 'committed', index: logIndex(1) }));
    await waitFor('node 1 hears node 2', () => first.heard.includes('committed'));
    logs.heard(two, logIndex(49), true);
    expect(logs.notes).toEqual({ 2: { log: 'b', decided: 49, former: [] } });
  });

  it('take the word of nobody who does not know the secret', async () => {
    const start = await pair();
    const logs = new PeerLogs({ 2: { log: 'b', decided: logIndex(50), former: [] } });
    await start(1, { name: 'a', last: logIndex(60) }, logs, { secret: 'another secret' });
    const { notes } = logs;
    const second = await start(2, { name: 'b', last: logIndex(49) }, new PeerLogs());
    const isDoubted = () => second.warnings.some((line) => line.includes('does not know this cluster'));
    await waitFor('node 2 has reached somebody', isDoubted);
    expect(second.wentBack).toEqual([]);
    expect(logs.notes).toBe(notes);
  });

  it.each([
    ['with a log of its own', 'c'],
    ['with a copy of the same log', 'b'],
  ])('let no second process run as a node while the first one does, %s', async (_how, log) => {
    const start = await pair();
    const logs = new PeerLogs();
    const reached = (end: End) => end.links.send(one, { t: 'committed', index: logIndex(1) });
    const first = await start(1, { name: 'a', last: logIndex(60) }, logs);
    const second = await start(2, { name: 'b', last: logIndex(49) }, new PeerLogs());
    await waitFor('node 2 reaches node 1', () => reached(second));
    await waitFor('node 1 hears node 2', () => first.heard.length === 1);
    const again = await start(2, { name: log, last: logIndex(49) }, new PeerLogs(), { port: await freePort() });
    const reason = 'another process runs as node 2 already';
    await waitFor('it is told so', () => again.warnings.some((line) => line.includes(reason)));
    expect(reached(again)).toBe(false);
    expect(again.wentBack).toEqual([]);
    // The first one was not disturbed.
    second.links.send(one, { t: 'committed', index: logIndex(2) });
    await waitFor('node 1 still hears it', () => first.heard.length === 2);
    expect(second.warnings.filter((line) => !line.includes('ECONNREFUSED'))).toEqual([]);

    await second.links.stop();
    await waitFor('the second one takes its place', () => reached(again));
  });

  it('tell whether a message got away, also when the other one resets the connection instead of reading it', async () => {
    const start = await pair();
    const { links, peers } = await start(2, { name: 'b', last: logIndex(0) }, new PeerLogs());
    const accepted: net.Socket[] = [];
    const deaf = net.createServer((socket) => {
      socket.on('error', () => undefined);
      const ready = receive(
        socket,
        'secret',
        () => undefined,
        () => () => undefined,
      );
      void ready.then(() => accepted.push(socket));
    });
    deaf.listen(peers.get(one));
    await waitFor('both links are up', () => accepted.length === 2);
    deaf.close();
    const piece = { gid: 'pgmm:test:2:1:1:1' as Gid, offset: 0, bytes: Buffer.alloc(64 << 20), last: true };
    const sent = links.sendBulk(one, piece);
    for (const socket of accepted) socket.resetAndDestroy();
    expect(await sent).toBe(false);
  });

  it.each([
    ['that is too large', Buffer.from([0xff, 0xff, 0xff, 0xff, 0]), 'above the limit'],
    ['that is not whole', Buffer.from([0, 0, 0, 1, 0xdc]), 'cannot be read'],
  ])('end with a message %s, and can be made again', async (_what, bytes, reason) => {
    const start = await pair();
    const first = await start(1, { name: 'a', last: logIndex(0) }, new PeerLogs());
    const socket = await connectTo(first, 'bulk');
    socket.write(bytes);
    await once(socket.resume(), 'close');
    expect(first.warnings.filter((line) => line.includes(reason))).toHaveLength(1);
    const second = await start(2, { name: 'b', last: logIndex(0) }, new PeerLogs());
    await waitFor('node 2 reaches node 1', () => second.links.send(one, { t: 'committed', index: logIndex(1) }));
    await waitFor('node 1 hears node 2', () => first.heard.includes('committed'));
  });
});

interface End {
  readonly links: PeerLinks;
  readonly peers: ReadonlyMap<NodeId, Address>;
  readonly port: number;
  readonly wentBack: LogIndex[];
  readonly heard: string[];
  readonly warnings: string[];
}
