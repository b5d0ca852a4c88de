import { describe, expect, it } from 'vitest';
import { ClientStream } from '../../../src/wire/client-stream.ts';
import { ServerStream } from '../../../src/wire/server-stream.ts';

function message(type: string, body: string | Buffer): Buffer {
  const bytes = Buffer.from(body);
  const head = Buffer.alloc(5);
  head.write(type, 'latin1');
  head.writeUInt32BE(bytes.length + 4, 1);
  return Buffer.concat([head, bytes]);
}

/** Every way to cut into three. */
function* cuts(length: number): Generator<[number, number]> {
  for (let a = 0; a <= length; a++) for (let b = a; b <= length; b++) yield [a, b];
}

describe('the stream from a client', () => {
  const messages = [message('Q', 'select 1\0'), message('S', ''), message('P', '\0insert\0\0\0'), message('X', '')];
  const all = Buffer.concat(messages);

  function read(stream: ClientStream): string[] {
    const seen: string[] = [];
    while (stream.next()) seen.push(stream.bytes.toString('latin1', stream.start, stream.end));
    return seen;
  }

  it('gives the same messages however the bytes are cut', () => {
    for (const [a, b] of cuts(all.length)) {
      const stream = new ClientStream();
      const seen: string[] = [];
      for (const chunk of [all.subarray(0, a), all.subarray(a, b), all.subarray(b)]) {
        stream.push(chunk);
        seen.push(...read(stream));
      }
      expect(seen).toEqual(messages.map((bytes) => bytes.toString('latin1')));
      expect(stream.buffered).toBe(0);
    }
  });

  it('gives CopyData in parts as it comes', () => {
    const data = Buffer.concat([message('d', 'x'.repeat(20)), message('c', '')]);
    for (const [a, b] of cuts(data.length)) {
      const stream = new ClientStream();
      let bytes = '';
      for (const chunk of [data.subarray(0, a), data.subarray(a, b), data.subarray(b)]) {
        stream.push(chunk);
        while (stream.peek() !== undefined && stream.next())
          bytes += stream.bytes.toString('latin1', stream.start, stream.end);
        // All but a header that is not there yet.
        expect(stream.buffered).toBeLessThan(5);
      }
      expect(bytes).toBe(data.toString('latin1'));
    }
  });

  it('drops the rest of a message, however the bytes are cut', () => {
    const data = Buffer.concat([message('d', 'x'.repeat(20)), message('Q', 'select 1\0'), message('X', '')]);
    for (const [a, b] of cuts(data.length)) {
      const stream = new ClientStream();
      const seen: string[] = [];
      for (const chunk of [data.subarray(0, a), data.subarray(a, b), data.subarray(b)]) {
        stream.push(chunk);
        while (stream.next()) {
          if (String.fromCharCode(stream.type) === 'd') stream.dropRest();
          else seen.push(stream.bytes.toString('latin1', stream.start, stream.end));
          expect(stream.rest).toBe(0);
        }
      }
      expect(seen).toEqual([message('Q', 'select 1\0'), message('X', '')].map((bytes) => bytes.toString('latin1')));
    }
  });

  it('puts a message before all that follows the one whose rest is dropped', () => {
    const stream = new ClientStream();
    const data = message('d', 'x'.repeat(20));
    stream.push(data.subarray(0, 10));
    expect(stream.next()).toBe(true);
    stream.push(data.subarray(10, 15));
    stream.dropRest();
    stream.unshift(messages[0]);
    stream.push(Buffer.concat([data.subarray(15), messages[3]]));
    expect(read(stream).map((text) => text[0])).toEqual(['Q', 'X']);
  });

  it('looks ahead without taking, and takes back', () => {
    const stream = new ClientStream();
    stream.push(all.subarray(0, all.length - 1));
    const types: string[] = [];
    expect(stream.lookAhead((type) => types.push(String.fromCharCode(type)) > 5)).toBe(false);
    expect(types).toEqual(['Q', 'S', 'P']);
    expect(stream.next()).toBe(true);
    stream.unshift(messages[3]);
    stream.push(all.subarray(all.length - 1));
    expect(read(stream).map((text) => text[0])).toEqual(['X', 'S', 'P', 'X']);
  });

  it('does not join a long message before it is there', () => {
    const stream = new ClientStream();
    const long = message('Q', 'x'.repeat(1 << 20));
    for (let at = 0; at < long.length; at += 1000) {
      expect(stream.next()).toBe(false);
      stream.push(long.subarray(at, at + 1000));
    }
    expect(stream.next()).toBe(true);
    expect(stream.end - stream.start).toBe(long.length);
  });

  it('refuses lengths that no message has', () => {
    for (const length of [0, 3, 0x40000001]) {
      const stream = new ClientStream();
      const bytes = message('Q', '');
      bytes.writeUInt32BE(length, 1);
      stream.push(bytes);
      expect(() => stream.next()).toThrow(RangeError);
    }
  });
});

describe('the stream from the server', () => {
  const all = Buffer.concat([
    message('T', 'rows'),
    message('D', 'one'),
    message('D', 'dropped'),
    message('C', 'SELECT 2\0'),
    message('Z', 'I'),
  ]);

  it('forwards, drops and hands over whole messages however the bytes are cut', () => {
    for (const [a, b] of cuts(all.length)) {
      const out: Buffer[] = [];
      const whole: string[] = [];
      let rows = 0;
      const stream = new ServerStream({
        wants: (type) => type === 0x43 || type === 0x5a,
        stream: (type) => type !== 0x44 || ++rows === 1,
        whole: (_type, bytes) => {
          whole.push(bytes.toString('latin1', 5));
          return bytes[0] === 0x5a;
        },
        forward: (bytes, start, end) => out.push(Buffer.from(bytes.subarray(start, end))),
      });
      for (const chunk of [all.subarray(0, a), all.subarray(a, b), all.subarray(b)]) stream.push(chunk);
      expect(whole).toEqual(['SELECT 2\0', 'I']);
      expect(
        Buffer.concat(out).equals(Buffer.concat([message('T', 'rows'), message('D', 'one'), message('Z', 'I')])),
      ).toBe(true);
    }
  });
});
