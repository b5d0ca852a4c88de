import { beforeAll, describe, expect, it } from 'vitest';
import { PgError } from '../../../src/runtime/errors.ts';
import { loadParser } from '../../../src/sql/parser.ts';
import { send } from '../../postgres/session-raw.ts';
import { Bench, shorten } from './bench.ts';

beforeAll(loadParser);

const ON = 'SET default_transaction_read_only = on';

/** What the client believes the setting to be. */
async function setting(bench: Bench): Promise<string | undefined> {
  const told = await bench.say(send.query('SHOW default_transaction_read_only'));
  return told.find((line) => line.startsWith('D |'))?.slice(3);
}

const queries = (...texts: string[]): Buffer[] => texts.map((sql) => send.query(sql));

describe("the client's own default_transaction_read_only", () => {
  it.each<[string, Buffer[]]>([
    ['its transaction is rolled back', queries('BEGIN', ON, 'ROLLBACK')],
    [
      'its transaction is rolled back by the extended protocol',
      ['BEGIN', ON, 'ROLLBACK'].flatMap((sql) => [send.run(sql), send.sync()]),
    ],
    [
      'its transaction is rolled back in one batch',
      [...['BEGIN', ON, 'ROLLBACK'].map((sql) => send.run(sql)), send.sync()],
    ],
    ['its transaction fails', queries('BEGIN', ON, 'nonsense', 'COMMIT')],
    ['its transaction is followed by another', queries('BEGIN', ON, 'ROLLBACK AND CHAIN')],
    ['what follows it in one Query fails', queries(`${ON}; nonsense`)],
    ['what follows it in one batch fails', [send.run(ON), send.run('nonsense'), send.sync()]],
    ['the server discards everything', [send.query(ON), send.run('DISCARD ALL'), send.sync()]],
    ['the server discards everything, asked in a Query', queries(ON, 'DISCARD ALL')],
  ])('is undone when %s', async (_when, say) => {
    const bench = new Bench();
    await bench.say(...say);
    expect(await setting(bench)).toBe('off');
  });

  it.each<[string, Buffer[]]>([
    ['alone', queries(ON)],
    ['alone in a batch', [send.run(ON), send.sync()]],
    ['in a transaction', queries('BEGIN', ON, 'COMMIT', 'BEGIN', 'ROLLBACK')],
    ['in one Query', queries(`${ON}; SELECT 1`, 'nonsense')],
    ['in one batch', [send.run(ON), send.run('SELECT 1'), send.sync(), send.run('nonsense'), send.sync()]],
    ['in one that wrote', queries('BEGIN', 'INSERT 1', ON, 'COMMIT', 'nonsense')],
  ])('is kept when it was set %s', async (_how, say) => {
    const bench = new Bench();
    await bench.say(...say);
    expect(await setting(bench)).toBe('on');
  });

  it('is undone when the transaction is decided against', async () => {
    const bench = new Bench();
    bench.outcome = { type: 'aborted', error: new PgError('40001', 'lost') };
    await bench.say(...queries('BEGIN', 'INSERT 1', ON, 'COMMIT'));
    expect(await setting(bench)).toBe('off');
  });

  it('holds for the transactions that begin after it was set', async () => {
    const bench = new Bench();
    await bench.say(send.run(ON), send.run('INSERT INTO t DEFAULT VALUES'), send.sync());
    await bench.say(send.query('INSERT 2'));
    expect(shorten(bench.server.executed).filter((sql) => sql.startsWith('BEGIN'))).toEqual([
      'BEGIN READ WRITE',
      'BEGIN READ ONLY',
    ]);
  });
});
