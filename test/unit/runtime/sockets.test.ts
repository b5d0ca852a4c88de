import { PassThrough } from 'node:stream';
import { describe, expect, it } from 'vitest';
import { drained } from '../../../src/runtime/sockets.ts';

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
