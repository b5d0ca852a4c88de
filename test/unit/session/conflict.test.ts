import { beforeAll, describe, expect, it } from 'vitest';
import { PgError } from '../../../src/runtime/errors.ts';
import { loadParser } from '../../../src/sql/parser.ts';
import { send } from '../../postgres/session-raw.ts';
import { Bench } from './bench.ts';

beforeAll(loadParser);

const OVERRULED = new PgError('40001', 'another node was first');
const ROW = expect.stringMatching(/^T/) as string;

/** A session whose block has lost a conflict while its client sent nothing. */
async function lost(): Promise<Bench> {
  const bench = new Bench();
  await bench.say(send.query('BEGIN'), send.query('INSERT 1'));
  bench.engine.abort(OVERRULED);
  await bench.say();
  return bench;
}

describe('a transaction that lost a conflict while its client sent nothing', () => {
  it.each<[string, Buffer[]]>([
    ['alone', [send.query('COMMIT')]],
    ['before another statement', [send.query('COMMIT; SELECT 1')]],
    ['before another transaction', [send.query('COMMIT; BEGIN')]],
    ['that begins the next one', [send.query('COMMIT AND CHAIN')]],
  ])('does not look as if it had committed at a COMMIT %s', async (_where, say) => {
    const bench = await lost();
    expect(await bench.say(...say)).toEqual(['E ERROR 40001 another node was first', 'Z I']);
    expect(bench.begun).toEqual([]);
    expect(await bench.say(send.query('INSERT 2'))).toEqual(['C INSERT 0 1', 'Z I']);
  });

  it.each<[string, Buffer[], string[]]>([
    ['AND CHAIN', [send.query('ROLLBACK AND CHAIN')], ['C ROLLBACK', 'Z T']],
    ['in one Query', [send.query('ROLLBACK; BEGIN')], ['C ROLLBACK', 'C BEGIN', 'Z T']],
    [
      'in one batch',
      [send.run('ROLLBACK'), send.run('BEGIN'), send.sync()],
      ['1', '2', 'C ROLLBACK', '1', '2', 'C BEGIN', 'Z T'],
    ],
  ])('does not save the one that follows it %s from losing another', async (_how, say, told) => {
    const bench = await lost();
    expect(await bench.say(send.query('SELECT 1'))).toEqual(['E ERROR 40001 another node was first', 'Z E']);
    expect(await bench.say(...say)).toEqual(told);
    expect(await bench.say(send.query('SELECT 1'))).toEqual([ROW, 'D |value', 'C SELECT 1', 'Z T']);
    bench.engine.abort(OVERRULED);
    expect(await bench.say(send.query('SELECT 1'))).toEqual(['E ERROR 40001 another node was first', 'Z E']);
  });
});

describe('a transaction that loses a conflict while its statement runs', () => {
  it.each<[string, (bench: Bench) => void]>([
    ['its client leaves', (bench) => bench.engine.closed()],
    ['the server goes away', (bench) => bench.engine.serverClosed()],
  ])('is not cancelled any more when %s before the statement has ended', async (_how, end) => {
    const bench = new Bench();
    bench.server.waits = 1;
    await bench.say(send.query('BEGIN'), send.query('INSERT 1'));
    bench.cancelsTakeTime = true;
    bench.engine.abort(OVERRULED);
    expect(bench.cancels()).toBe(true);
    end(bench);
    expect(bench.cancels()).toBe(false);
  });
});
