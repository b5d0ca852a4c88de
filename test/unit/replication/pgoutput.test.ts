import { describe, expect, it } from 'vitest';
import {
  readBeginPrepare,
  readCommitPrepared,
  readLogicalMessage,
  readRelation,
  readRollbackPrepared,
  readTruncate,
} from '../../../src/replication/pgoutput/messages.ts';
import { readRowChange } from '../../../src/replication/pgoutput/tuples.ts';
import { RecordReader } from '../../../src/replication/apply/record-reader.ts';
import { TransactionRecords } from '../../../src/replication/transaction-records.ts';
import * as m from './messages.ts';

const texts = (row: readonly (Buffer | null | undefined)[] | undefined) =>
  row?.map((value) => value?.toString() ?? value);

describe('pgoutput messages', () => {
  it('reads what begins and ends prepared transactions', () => {
    expect(readBeginPrepare(m.beginPrepare('g:1', 0x1_0000_0000n), 0)).toEqual({
      prepareLsn: 0x1_0000_0000n,
      endLsn: 0x1_0000_000an,
      xid: 7,
      gid: 'g:1',
    });
    expect(readCommitPrepared(m.commitPrepared('g:2'), 0)).toEqual({ xid: 9, gid: 'g:2' });
    expect(readRollbackPrepared(m.rollbackPrepared('g:3'), 0)).toEqual({ xid: 11, gid: 'g:3' });
  });

  it('reads relations, an empty schema name being pg_catalog', () => {
    const bytes = m.relation(7, '', 'tä', [{ name: 'id', key: true }, { name: 'ö' }], 'i');
    expect(readRelation(bytes)).toEqual({
      id: 7,
      schema: 'pg_catalog',
      name: 'tä',
      identity: 'i',
      columns: [
        { name: 'id', key: true, typeOid: 25 },
        { name: 'ö', key: false, typeOid: 25 },
      ],
    });
  });

  it('tells NULL, unchanged and empty values apart, and keys from whole rows', () => {
    const inserted = readRowChange(m.insert(1, ['', null, undefined, 'x']));
    expect([inserted.type, inserted.relation, texts(inserted.row), inserted.old]).toEqual([
      'insert',
      1,
      ['', null, undefined, 'x'],
      undefined,
    ]);
    const updated = readRowChange(m.update(2, ['2', 'b'], { kind: 'K', row: ['1', null] }));
    expect([updated.type, updated.oldIsKey, texts(updated.old), texts(updated.row)]).toEqual([
      'update',
      true,
      ['1', null],
      ['2', 'b'],
    ]);
    const plain = readRowChange(m.update(2, ['2', undefined]));
    expect([plain.old, texts(plain.row)]).toEqual([undefined, ['2', undefined]]);
    const deleted = readRowChange(m.remove(3, 'O', ['1', 'x']));
    expect([deleted.type, deleted.oldIsKey, texts(deleted.old), deleted.row]).toEqual([
      'delete',
      false,
      ['1', 'x'],
      undefined,
    ]);
  });

  it('reads TRUNCATE and logical messages', () => {
    expect(readTruncate(m.truncate([1, 2], 3))).toEqual({ relations: [1, 2], cascade: true, restartIdentity: true });
    expect(readTruncate(m.truncate([9], 0))).toEqual({ relations: [9], cascade: false, restartIdentity: false });
    const message = readLogicalMessage(m.logical('p', 'content', false));
    expect({ ...message, content: message.content.toString() }).toEqual({
      transactional: false,
      prefix: 'p',
      content: 'content',
    });
  });
});

describe('records', () => {
  it('come out whole, wherever the stream was cut', () => {
    const messages = [Buffer.from('a'), Buffer.alloc(0), Buffer.alloc(300, 'b'), Buffer.from('cd')];
    const stream = Buffer.concat(messages.map(m.record));
    for (let size = 1; size <= stream.length; size++) {
      const reader = new RecordReader();
      const found: Buffer[] = [];
      for (let at = 0; at < stream.length; at += size) found.push(...reader.push(stream.subarray(at, at + size)));
      reader.finish();
      expect(found.map(String)).toEqual(messages.map(String));
    }
  });

  it('must not end in the middle of one', () => {
    const reader = new RecordReader();
    expect([...reader.push(m.record(Buffer.from('abc')).subarray(0, 6))]).toEqual([]);
    expect(() => reader.finish()).toThrow();
  });

  it('describe each relation once in every transaction that uses it, as it was last described', () => {
    const handed: Buffer[] = [];
    const records = new TransactionRecords((bytes) => handed.push(bytes));
    const add = (...messages: Buffer[]) => {
      for (const message of messages) records.add(message, 0, message.length);
    };
    const first = m.relation(1, 'public', 't', [{ name: 'a', key: true }]);
    const later = m.relation(1, 'public', 't', [{ name: 'a', key: true }, { name: 'b' }]);
    const own = m.relation(2, 'multimaster', 'mine', [{ name: 'a', key: true }]);
    const transaction = (wanted: boolean, ...messages: Buffer[]) => {
      handed.length = 0;
      records.begin(wanted);
      add(...messages);
      const changed = [...records.end()];
      return { messages: [...new RecordReader().push(Buffer.concat(handed))], changed };
    };
    const row = m.insert(1, ['1']);
    expect(transaction(false, first, row)).toEqual({ messages: [], changed: ['public.t'] });
    expect(transaction(true, row, row)).toEqual({ messages: [first, row, row], changed: ['public.t'] });
    expect(transaction(true, row, later, row).messages).toEqual([first, row, later, row]);
    expect(transaction(true, own, m.insert(2, ['1']), row)).toEqual({ messages: [later, row], changed: ['public.t'] });
    expect(() => transaction(true, m.insert(3, ['1']))).toThrow();
  });
});
