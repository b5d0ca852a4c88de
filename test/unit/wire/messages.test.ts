import { Readable } from 'node:stream';
import { parse } from 'pg-protocol';
import { describe, expect, it } from 'vitest';
import { PgError } from '../../../src/runtime/errors.ts';
import * as backend from '../../../src/wire/backend-messages.ts';
import { cancelRequest, readStartupPacket, startupMessage, takeSetting } from '../../../src/wire/startup-packet.ts';

/** The driver's own parser reads what is written here. */
async function oracle(bytes: Buffer): Promise<Record<string, unknown>[]> {
  const seen: Record<string, unknown>[] = [];
  await parse(Readable.from([bytes]), (message) => seen.push(message as unknown as Record<string, unknown>));
  return seen;
}

describe('messages of a server', () => {
  const error = new PgError('40001', 'no é', {
    detail: 'd',
    hint: 'h',
    position: 7,
    fields: { t: 'table', n: 'constraint' },
  });

  it('are written as a driver reads them', async () => {
    const seen = await oracle(
      Buffer.concat([
        backend.errorResponse(error),
        backend.commandComplete('INSERT 0 1'),
        backend.parameterStatus('a', 'b'),
        backend.textRow('column', 'value').description,
        backend.textRow('column', 'välue').row,
        backend.readyForQuery('T'),
      ]),
    );
    expect(seen).toMatchObject([
      {
        name: 'error',
        code: '40001',
        message: 'no é',
        detail: 'd',
        hint: 'h',
        position: '7',
        table: 'table',
        constraint: 'constraint',
      },
      { name: 'commandComplete', text: 'INSERT 0 1' },
      { name: 'parameterStatus', parameterName: 'a', parameterValue: 'b' },
      { name: 'rowDescription', fields: [{ name: 'column', dataTypeID: 25, format: 'text' }] },
      { name: 'dataRow', fields: ['välue'] },
      { name: 'readyForQuery', status: 'T' },
    ]);
  });

  it('are read as they were written', () => {
    const read = backend.readError(backend.errorResponse(error));
    expect(read).toMatchObject({
      sqlstate: '40001',
      message: 'no é',
      detail: 'd',
      hint: 'h',
      position: 7,
      fields: { t: 'table' },
    });
    expect(backend.readSqlState(backend.errorResponse(error))).toBe('40001');
    expect(
      backend.isFatal(backend.readErrorFields(backend.errorResponse(new PgError('57P01', 'x', { severity: 'FATAL' })))),
    ).toBe(true);
    expect(backend.readDataRow(backend.textRow('c', 'value').row)).toEqual(['value']);
    expect(backend.readReady(backend.readyForQuery('E'))).toBe('E');
    expect(backend.readParameterStatus(backend.parameterStatus('n', ''))).toEqual({ name: 'n', value: '' });
  });

  it('keep their bytes where an error is edited', () => {
    const original = backend.errorResponse(new PgError('42601', 'x', { position: 3 }));
    // A message in a server encoding that is no UTF-8.
    original[original.indexOf('x', 10, 'latin1')] = 0xe9;
    const edited = backend.editError(
      original,
      (code, value) => (code === 'P' ? String(Number(value) + 10) : undefined),
      { H: 'hint' },
    );
    expect(backend.readError(edited)).toMatchObject({ position: 13, hint: 'hint', sqlstate: '42601' });
    expect(edited.includes(0xe9)).toBe(true);
    expect(backend.readError(backend.editError(edited, () => undefined, { H: 'other' })).hint).toBe('hint');
  });
});

describe('the packet that opens a connection', () => {
  const parameters = new Map([
    ['user', 'u'],
    ['options', '-c a=b'],
  ]);

  it('is read at any length and written back', () => {
    const bytes = Buffer.concat([startupMessage(196610, parameters), Buffer.from('rest')]);
    const { packet, used } = readStartupPacket(bytes)!;
    expect(packet).toEqual({ type: 'startup', version: 196610, parameters });
    expect(bytes.subarray(used).toString()).toBe('rest');
    for (let end = 0; end < used; end++) expect(readStartupPacket(bytes.subarray(0, end))).toBeUndefined();
  });

  it('may be a request of another kind', () => {
    for (const key of [Buffer.from([1, 2, 3, 4]), Buffer.alloc(32, 7)]) {
      expect(readStartupPacket(cancelRequest(42, key))?.packet).toEqual({ type: 'cancel', pid: 42, key });
    }
    const request = (code: number): Buffer => {
      const bytes = Buffer.alloc(8);
      bytes.writeUInt32BE(8, 0);
      bytes.writeUInt32BE(code, 4);
      return bytes;
    };
    expect(readStartupPacket(request(80877103))?.packet).toEqual({ type: 'ssl' });
    expect(readStartupPacket(request(80877104))?.packet).toEqual({ type: 'gssenc' });
    expect(() => readStartupPacket(Buffer.from('GET / HTTP/1.1'))).toThrow(RangeError);
  });

  it('gives up a setting from its options', () => {
    const name = 'default_transaction_read_only';
    expect(takeSetting(`-c ${name}=on -c a=b`, name)).toEqual({ values: ['on'], rest: '-c a=b' });
    expect(takeSetting(`-c${name}=on --default-transaction-read-only=off -c x=a\\ b`, name)).toEqual({
      values: ['on', 'off'],
      rest: '-c x=a\\ b',
    });
    expect(takeSetting('', name)).toEqual({ values: [], rest: '' });
  });
});
