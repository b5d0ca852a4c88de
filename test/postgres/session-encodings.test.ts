import { afterAll, beforeAll, expect, it } from 'vitest';
import { startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';
import { RawClient, describe as lines, send } from './session-raw.ts';

let proxy: SessionProxy;
beforeAll(async () => {
  proxy = await startSessionProxy();
});
afterAll(() => proxy.stop());

/** The messages of a text whose bytes are these, as a Query and as Parse, Bind, Execute, Sync. */
function messages(text: Buffer): { simple: Buffer; extended: Buffer } {
  const put = (message: Buffer): Buffer => {
    // A letter per byte stands for the text, so that the lengths are right.
    const at = message.indexOf('x'.repeat(text.length));
    text.copy(message, at);
    return message;
  };
  const placeholder = 'x'.repeat(text.length);
  return { simple: put(send.query(placeholder)), extended: put(Buffer.concat([send.run(placeholder), send.sync()])) };
}

const bytes = (...parts: (string | number[])[]): Buffer =>
  Buffer.concat(parts.map((part) => (typeof part === 'string' ? Buffer.from(part) : Buffer.from(part))));

const ENCODED: readonly (readonly [string, number[], string])[] = [
  ['WIN1251', [0xef, 0xf0, 0xe8], 'при'],
  ['WIN1252', [0x80], '€'],
  ['WIN866', [0xe1, 0xe2, 0xe0, 0xa0, 0xad, 0xa0], 'страна'],
  ['LATIN9', [0xa4], '€'],
  ['LATIN1', [0xe9], 'é'],
  ['EUC_JP', [0xc6, 0xfc], '日'],
  ['SJIS', [0x93, 0xfa], '日'],
  ['GBK', [0xc4, 0xe3], '你'],
  ['SQL_ASCII', [0xd0, 0xbf], 'п'],
  ['UTF8', [0xd0, 0xbf], 'п'],
];

it.each(ENCODED)(
  'announces a schema statement that came in %s as the server reads it',
  async (encoding, text, meant) => {
    const client = await RawClient.connect(proxy.port, { client_encoding: encoding });
    for (const style of ['simple', 'extended'] as const) {
      proxy.announced.length = 0;
      // A name at the end, too: white space is not the same in all encodings.
      const sql = bytes(`CREATE TABLE made (a text DEFAULT '`, text, `'); `);
      client.send(messages(sql)[style]);
      expect(lines(await client.ready()).at(-2)).toBe('C CREATE TABLE');
      client.send(messages(bytes('ALTER TABLE made RENAME TO ', text))[style]);
      expect(lines(await client.ready()).at(-2)).toBe('C ALTER TABLE');
      expect(proxy.announced.map(({ statement }) => statement.trimEnd().replace(/;$/, ''))).toEqual([
        `CREATE TABLE made (a text DEFAULT '${meant}')`,
        `ALTER TABLE made RENAME TO ${meant}`,
      ]);
      const admin = await proxy.postgres.connect();
      const { rows } = await admin.query<{ default: string }>(
        'SELECT pg_get_expr(adbin, adrelid) AS default FROM pg_attrdef WHERE adrelid = $1::regclass',
        [meant],
      );
      expect(rows).toEqual([{ default: `'${meant}'::text` }]);
      await admin.query(`DROP TABLE "${meant}"`);
      await admin.end();
    }
    client.destroy();
  },
);

it('announces who runs a schema statement, and where, whatever the encoding', async () => {
  const admin = await proxy.postgres.connect();
  await admin.query(`CREATE ROLE "rôle" SUPERUSER LOGIN; CREATE SCHEMA "schéma"`);
  await admin.end();
  const client = await RawClient.connect(proxy.port, { client_encoding: 'LATIN1' });
  client.send(messages(bytes('SET ROLE "r', [0xf4], 'le"')).simple);
  client.send(messages(bytes('SET search_path = "sch', [0xe9], 'ma"')).simple);
  await client.ready(2);
  proxy.announced.length = 0;
  client.send(send.query('CREATE TABLE mine (a int)'));
  await client.ready();
  expect(proxy.announced).toMatchObject([{ role: 'rôle', settings: { search_path: '"schéma"' } }]);
  client.destroy();
});

it('refuses a statement whose encoding is not that of its preparation', async () => {
  const client = await RawClient.connect(proxy.port, { client_encoding: 'LATIN1' });
  const sql = bytes('CREATE TABLE m', [0xe9]);
  const parse = send.parse('x'.repeat(sql.length + 2), 'made');
  Buffer.concat([sql, Buffer.from('()')]).copy(parse, parse.indexOf('xxx'));
  client.send(parse, send.sync(), send.query('SET client_encoding = LATIN9'));
  await client.ready(2);
  client.send(send.bind([], 'made'), send.execute(), send.sync());
  expect(lines(await client.ready())).toEqual([
    '2',
    'E ERROR 0A000 client_encoding has changed since the statement was prepared',
    'Z I',
  ]);
  client.destroy();
});
