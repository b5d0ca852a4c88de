import { describe, expect, it } from 'vitest';
import { DdlMessages, replayStatements, statedOrdinal } from '../../../src/catalog/ddl-message.ts';

const messages = new DdlMessages('0123456789abcdef');
const ddl = {
  statement: `CREATE TABLE "a b" (v text DEFAULT 'é{"ordinal":7}')`,
  role: 'app',
  sessionRole: 'login',
  settings: { search_path: 'x' },
};
const gid = 'pgmm:dev:1:2:3:abc';

describe('the message of a schema statement', () => {
  it('holds for its own place in its own transaction', () => {
    const content = Buffer.from(messages.encode(gid, 4, ddl));
    expect(messages.decode(content, gid, 4)).toMatchObject(ddl);
    expect(messages.decode(content, gid, 5)).toBeUndefined();
    expect(messages.decode(content, 'pgmm:dev:1:2:4:abc', 4)).toBeUndefined();
    expect(new DdlMessages('another secret ..').decode(content, gid, 4)).toBeUndefined();
  });

  it('is worth nothing once a byte of it differs', () => {
    const content = Buffer.from(messages.encode(gid, 0, ddl));
    for (let at = 0; at < content.length; at++) {
      const changed = Buffer.from(content);
      changed[at] ^= 1;
      expect(messages.decode(changed, gid, 0)).toBeUndefined();
    }
    for (const text of ['', ' ', '{}', 'x {}']) expect(messages.decode(Buffer.from(text), gid, 0)).toBeUndefined();
  });

  it('says its ordinal, and nothing in it can say another', () => {
    expect(statedOrdinal(Buffer.from(messages.encode(gid, 12, ddl)))).toBe(12);
    for (const text of ['', 'CREATE TABLE t ()', 'x {"ordinal":3}'])
      expect(statedOrdinal(Buffer.from(text))).toBeUndefined();
  });
});

describe('replay of a schema statement', () => {
  it('runs it as its role with its settings, and leaves nothing of either', () => {
    expect(
      replayStatements({
        statement: 'DROP TABLE t',
        role: `a"b`,
        sessionRole: 'c',
        settings: { DateStyle: `SQL, '\\` },
      }),
    ).toEqual([
      `SELECT pg_catalog.set_config('DateStyle', E'SQL, ''\\\\', true)`,
      'SET LOCAL SESSION AUTHORIZATION "c"',
      'SET LOCAL ROLE "a""b"',
      'DROP TABLE t',
      'SET LOCAL SESSION AUTHORIZATION DEFAULT',
      'SET LOCAL "DateStyle" TO DEFAULT',
    ]);
  });
});
