import { connect } from 'node:net';
import type { Socket } from 'node:net';

/** Messages by hand, and a client that keeps every answer: for what no driver would send. */
function message(type: string, ...parts: (string | Buffer)[]): Buffer {
  const body = Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(`${part}\0`) : part)));
  const head = Buffer.alloc(5);
  head.write(type, 0, 'latin1');
  head.writeInt32BE(body.length + 4, 1);
  return Buffer.concat([head, body]);
}

const int16 = (value: number): Buffer => {
  const bytes = Buffer.alloc(2);
  bytes.writeInt16BE(value);
  return bytes;
};
const int32 = (value: number): Buffer => {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32BE(value);
  return bytes;
};

export const send = {
  query: (sql: string): Buffer => message('Q', sql),
  parse: (sql: string, name = ''): Buffer => message('P', name, sql, int16(0)),
  bind: (values: (string | null)[] = [], statement = '', portal = ''): Buffer =>
    message(
      'B',
      portal,
      statement,
      int16(0),
      int16(values.length),
      ...values.map((value) =>
        value === null ? int32(-1) : Buffer.concat([int32(Buffer.byteLength(value)), Buffer.from(value)]),
      ),
      int16(0),
    ),
  describe: (name = '', what: 'S' | 'P' = 'P'): Buffer => message('D', Buffer.from(what), name),
  execute: (portal = '', limit = 0): Buffer => message('E', portal, int32(limit)),
  close: (name: string, what: 'S' | 'P' = 'S'): Buffer => message('C', Buffer.from(what), name),
  sync: (): Buffer => message('S'),
  flush: (): Buffer => message('H'),
  copyData: (data: string | Buffer): Buffer => message('d', Buffer.from(data)),
  copyDone: (): Buffer => message('c'),
  copyFail: (reason: string): Buffer => message('f', reason),
  terminate: (): Buffer => message('X'),
  /** Parse, Bind, Execute of one statement. */
  run: (sql: string, values: (string | null)[] = []): Buffer =>
    Buffer.concat([send.parse(sql), send.bind(values), send.execute()]),
  functionCall: (oid: number, ...args: string[]): Buffer =>
    message(
      'F',
      int32(oid),
      int16(0),
      int16(args.length),
      ...args.map((arg) => Buffer.concat([int32(Buffer.byteLength(arg)), Buffer.from(arg)])),
      int16(0),
    ),
};

export interface Received {
  readonly type: string;
  readonly body: Buffer;
}

export class RawClient {
  readonly received: Received[] = [];
  backendPid = 0;
  backendKey: Buffer = Buffer.alloc(0);
  closed = false;
  readonly #socket: Socket;
  #rest: Buffer = Buffer.alloc(0);
  #waiting: (() => void) | undefined;

  private constructor(socket: Socket) {
    this.#socket = socket;
    socket.on('data', (chunk: Buffer) => this.#read(chunk));
    socket.on('error', () => undefined);
    socket.on('close', () => {
      this.closed = true;
      this.#waiting?.();
    });
  }

  static async connect(port: number, parameters: Record<string, string> = {}, version = 196608): Promise<RawClient> {
    const socket = connect({ port, host: '127.0.0.1', noDelay: true });
    await new Promise((resolve, reject) => socket.once('connect', resolve).once('error', reject));
    const client = new RawClient(socket);
    const all = { user: 'postgres', database: 'postgres', ...parameters };
    const body = Object.entries(all).map(([name, value]) => `${name}\0${value}\0`);
    const packet = Buffer.concat([int32(0), int32(version), Buffer.from(`${body.join('')}\0`)]);
    packet.writeInt32BE(packet.length, 0);
    socket.write(packet);
    const greeting = await client.ready();
    const key = greeting.find(({ type }) => type === 'K');
    client.backendPid = key?.body.readInt32BE(0) ?? 0;
    client.backendKey = key?.body.subarray(4) ?? Buffer.alloc(0);
    return client;
  }

  send(...messages: Buffer[]): void {
    this.#socket.write(Buffer.concat(messages));
  }

  /** Reads nothing from now on. */
  stall(): void {
    this.#socket.pause();
  }

  /** In pieces of chosen lengths, each in a packet of its own as far as that can be arranged. */
  async sendInPieces(bytes: Buffer, pieceLength: () => number): Promise<void> {
    for (let at = 0; at < bytes.length;) {
      const end = Math.min(bytes.length, at + Math.max(1, pieceLength()));
      this.#socket.write(bytes.subarray(at, end));
      at = end;
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Takes what is received up to the `count`th ReadyForQuery. */
  async ready(count = 1): Promise<Received[]> {
    return await this.until((messages) => messages.filter(({ type }) => type === 'Z').length >= count);
  }

  /** Takes what is received once `enough` is satisfied. */
  async until(enough: (messages: readonly Received[]) => boolean): Promise<Received[]> {
    const end = Date.now() + 10_000;
    while (!enough(this.received)) {
      if (this.closed || Date.now() > end) {
        throw new Error(`${this.closed ? 'closed' : 'timed out'} after ${describe(this.received).join(' ')}`);
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, 100);
        this.#waiting = () => {
          clearTimeout(timer);
          resolve();
        };
      });
    }
    return this.take();
  }

  take(): Received[] {
    return this.received.splice(0);
  }

  destroy(): void {
    this.#socket.destroy();
  }

  /** Only counts what arrives from now on. */
  consume(count: (bytes: number) => void): void {
    this.#socket.removeAllListeners('data');
    this.#socket.on('data', (chunk: Buffer) => count(chunk.length));
  }

  pause(): void {
    this.#socket.pause();
  }

  resume(): void {
    this.#socket.resume();
  }

  #read(chunk: Buffer): void {
    let bytes = this.#rest.length === 0 ? chunk : Buffer.concat([this.#rest, chunk]);
    while (bytes.length >= 5) {
      const end = 1 + bytes.readUInt32BE(1);
      if (bytes.length < end) break;
      this.received.push({ type: String.fromCharCode(bytes[0]), body: bytes.subarray(5, end) });
      bytes = bytes.subarray(end);
    }
    this.#rest = bytes;
    this.#waiting?.();
  }
}

/** Fields of an error or notice that mean something to a client; file and line differ where the proxy answers itself. */
export function errorFields(body: Buffer): Partial<Record<string, string>> {
  const fields: Partial<Record<string, string>> = {};
  for (const field of body.toString().split('\0')) if (field !== '') fields[field[0]] = field.slice(1);
  return fields;
}

/** One line a message, for comparison and for reading. */
export function describe(messages: readonly Received[]): string[] {
  return messages
    .filter(({ type }) => type !== 'S' && type !== 'K')
    .map(({ type, body }) => {
      if (type === 'E' || type === 'N') {
        const { C = '', M = '', P, S = '' } = errorFields(body);
        return `${type} ${S} ${C} ${M}${P === undefined ? '' : ` at ${P}`}`;
      }
      if (type === 'D') return `D ${body.toString('latin1', 2).replace(/[\0-\x1f]+/g, '|')}`;
      if (type === 'C') return `C ${body.toString('latin1', 0, body.length - 1)}`;
      if (type === 'Z') return `Z ${body.toString('latin1')}`;
      return body.length > 0 && body.length < 200 ? `${type} ${body.toString('hex')}` : type;
    });
}

/** A text by the extended protocol, by which pg sends one without parameters only when it is told to. */
export function extended(text: string): { text: string } {
  return { text, ...{ queryMode: 'extended' } };
}
