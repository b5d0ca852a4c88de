import { beforeAll, describe, expect, it } from 'vitest';
import { PgError } from '../../../src/runtime/errors.ts';
import { lsn } from '../../../src/runtime/ids.ts';
import type { CommitOutcome } from '../../../src/session/ports.ts';
import { errorResponse } from '../../../src/wire/backend-messages.ts';
import type { SafetyNames } from '../../../src/sql/names.ts';
import { loadParser } from '../../../src/sql/parser.ts';
import { send } from '../../postgres/session-raw.ts';
import { Bench, shorten } from './bench.ts';

beforeAll(loadParser);

const ROW = expect.stringMatching(/^T/) as string;

const SCENARIOS: Record<string, { say: Buffer[]; told: string[]; ran: string[]; prepared: number }> = {
  'a read': {
    say: [send.query('SELECT 1')],
    told: [ROW, 'D |value', 'C SELECT 1', 'Z I'],
    ran: ['SELECT 1'],
    prepared: 0,
  },
  'a write': {
    say: [send.query('INSERT 1')],
    told: ['C INSERT 0 1', 'Z I'],
    ran: ['BEGIN READ WRITE', 'INSERT 1', 'probe', 'PREPARE'],
    prepared: 1,
  },
  'a write in the extended protocol': {
    say: [send.run('INSERT INTO t DEFAULT VALUES'), send.sync()],
    told: ['1', '2', 'C INSERT 0 1', 'Z I'],
    ran: ['BEGIN READ WRITE', 'INSERT INTO t DEFAULT VALUES', 'probe', 'PREPARE'],
    prepared: 1,
  },
  'a read that writes': {
    say: [send.query('SELECT writes()')],
    told: [ROW, 'D |value', 'C SELECT 1', 'Z I'],
    ran: ['SELECT writes()', 'BEGIN READ WRITE', 'SELECT writes()', 'probe', 'PREPARE'],
    prepared: 1,
  },
  'a read that writes, prepared under a name': {
    say: [send.parse('SELECT writes()', 's'), send.bind([], 's'), send.execute(), send.sync()],
    told: ['1', '2', ROW, 'D |value', 'C SELECT 1', 'Z I'],
    ran: ['SELECT writes()', 'BEGIN READ WRITE', 'SELECT writes()', 'probe', 'PREPARE'],
    prepared: 1,
  },
  'a read that writes, prepared under the name of another': {
    say: [send.close('s'), send.parse('SELECT writes()', 's'), send.bind([], 's'), send.execute(), send.sync()],
    told: ['3', '1', '2', ROW, 'D |value', 'C SELECT 1', 'Z I'],
    ran: ['SELECT writes()', 'BEGIN READ WRITE', 'SELECT writes()', 'probe', 'PREPARE'],
    prepared: 1,
  },
  'a transaction of messages that did not wait': {
    say: [send.query('BEGIN'), send.query('INSERT 1'), send.query('COMMIT'), send.query('SELECT 1')],
    told: ['C BEGIN', 'Z T', 'C INSERT 0 1', 'Z T', 'C COMMIT', 'Z I', ROW, 'D |value', 'C SELECT 1', 'Z I'],
    ran: ['BEGIN READ WRITE', 'INSERT 1', 'probe', 'PREPARE', 'SELECT 1'],
    prepared: 1,
  },
  'two commits in one pipeline': {
    say: [...['BEGIN', 'INSERT 1', 'COMMIT', 'BEGIN', 'SELECT 1', 'COMMIT'].map((sql) => send.run(sql)), send.sync()],
    told: [
      ...['1', '2', 'C BEGIN', '1', '2', 'C INSERT 0 1', '1', '2', 'C COMMIT', '1', '2', 'C BEGIN', '1', '2'],
      ...[ROW, 'D |value', 'C SELECT 1', '1', '2', 'C COMMIT', 'Z I'],
    ],
    ran: ['BEGIN READ WRITE', 'INSERT 1', 'probe', 'PREPARE', 'BEGIN READ WRITE', 'SELECT 1', 'probe', 'COMMIT'],
    prepared: 1,
  },
  'an error in the middle of a pipeline': {
    say: [send.run('INSERT 1'), send.run('nonsense'), send.run('INSERT 2'), send.sync(), send.query('SELECT 1')],
    told: [
      ...['1', '2', 'C INSERT 0 1', '1', '2', 'E ERROR 42601 syntax error', 'Z I'],
      ...[ROW, 'D |value', 'C SELECT 1', 'Z I'],
    ],
    ran: ['BEGIN READ WRITE', 'INSERT 1', 'nonsense', 'ROLLBACK', 'SELECT 1'],
    prepared: 0,
  },
  COPY: {
    say: [send.query('COPY t FROM STDIN'), send.copyData('1\n'), send.copyData('2\n'), send.copyDone()],
    told: ['G 000000', 'C COPY 1', 'Z I'],
    ran: ['BEGIN READ WRITE', 'COPY t FROM STDIN', 'probe', 'PREPARE'],
    prepared: 1,
  },
  'several statements with control among them': {
    say: [send.query('INSERT INTO t DEFAULT VALUES; BEGIN; SELECT 1; COMMIT; SELECT 2')],
    told: [
      ...['C INSERT 0 1', 'C BEGIN', ROW, 'D |value', 'C SELECT 1', 'C COMMIT'],
      ...[ROW, 'D |value', 'C SELECT 1', 'Z I'],
    ],
    ran: [
      ...['BEGIN READ WRITE', 'INSERT INTO t DEFAULT VALUES', 'BEGIN', 'SELECT 1', 'probe', 'PREPARE'],
      ...['BEGIN READ WRITE', 'SELECT 2', 'probe', 'COMMIT'],
    ],
    prepared: 1,
  },
};

describe('a session, with its bytes cut at every place', () => {
  it.each(Object.entries(SCENARIOS))('%s', async (_name, { say, told, ran, prepared }) => {
    const length = Buffer.concat(say).length;
    for (let at = 0; at <= length; at++) {
      const bench = new Bench({ cut: (total) => Math.min(at, total) });
      expect(await bench.say(...say), `cut at ${at}`).toEqual(told);
      const executed = shorten(bench.server.executed).filter((sql) => ran.includes(sql));
      expect(executed, `cut at ${at}`).toEqual(ran);
      expect(bench.begun).toHaveLength(prepared);
      expect(bench.engine.idle).toBe(true);
    }
  });

  it('tells aborted and unknown outcomes in place of the completion', async () => {
    const bench = new Bench();
    bench.outcome = { type: 'aborted', error: new PgError('40001', 'lost') };
    expect(await bench.say(send.query('INSERT 1'))).toEqual(['E ERROR 40001 lost', 'Z I']);
    expect(await bench.say(send.run('INSERT INTO t DEFAULT VALUES'), send.sync())).toEqual([
      '1',
      '2',
      'E ERROR 40001 lost',
      'Z I',
    ]);
    bench.outcome = { type: 'unknown', error: new PgError('08007', 'unknown') };
    expect(await bench.say(send.query('INSERT 1'))).toEqual(['E ERROR 08007 unknown', 'Z I']);
  });

  it('tells the outcome of a prepared transaction first when the server ends the session meanwhile', async () => {
    for (const outcome of ['committed', 'aborted'] as const) {
      const bench = new Bench();
      let decide: (outcome: CommitOutcome) => void = () => undefined;
      bench.later = new Promise((resolve) => (decide = resolve));
      expect(await bench.say(send.query('INSERT 1'))).toEqual([]);
      bench.engine.fromServer(
        errorResponse(
          new PgError('57P01', 'terminating connection due to unexpected postmaster exit', { severity: 'FATAL' }),
        ),
      );
      bench.engine.serverClosed();
      expect(await bench.say()).toEqual([]);
      decide(outcome === 'committed' ? bench.outcome : { type: 'aborted', error: new PgError('40001', 'lost') });
      expect(await bench.say()).toEqual([outcome === 'committed' ? 'C INSERT 0 1' : 'E ERROR 40001 lost', 'Z I']);
      // The session says in its own words that the server is gone.
      expect(bench.engine.serverSaidGoodbye).toBe(false);
    }
  });

  it('answers a Flush with all there is', async () => {
    const bench = new Bench();
    expect(await bench.say(send.run('INSERT INTO t DEFAULT VALUES'), send.flush())).toEqual(['1', '2', 'C INSERT 0 1']);
    expect(bench.begun).toHaveLength(0);
    expect(await bench.say(send.sync())).toEqual(['Z I']);
    expect(bench.begun).toHaveLength(1);
  });

  it.each([
    ['in an implicit transaction', [send.query('INSERT 1 FOR UPDATE')], ['gid-1 0/10']],
    ['in a batch', [send.run('INSERT 1 FOR SHARE'), send.sync()], ['gid-1 0/10']],
    [
      'in a block',
      ['BEGIN', 'SELECT 1 FOR UPDATE', 'INSERT 1', 'COMMIT'].map((sql) => send.query(sql)),
      ['gid-1 0/10'],
    ],
    [
      'in a script',
      [send.query('BEGIN; SELECT FROM t FOR UPDATE; INSERT INTO t DEFAULT VALUES; COMMIT')],
      ['gid-1 0/10'],
    ],
    [
      'in a block before',
      ['BEGIN', 'SELECT 1 FOR UPDATE', 'ROLLBACK', 'BEGIN', 'INSERT 1', 'COMMIT'].map((sql) => send.query(sql)),
      [],
    ],
    [
      'in a block before, in batches',
      ['BEGIN', 'SELECT 1 FOR UPDATE', 'ROLLBACK', 'BEGIN', 'INSERT 1', 'COMMIT'].flatMap((sql) => [
        send.run(sql),
        send.sync(),
      ]),
      [],
    ],
    [
      'by several LOCKs in one Query',
      ['BEGIN', 'LOCK a; LOCK b', 'INSERT 1', 'COMMIT'].map((sql) => send.query(sql)),
      ['gid-1 0/10'],
    ],
    [
      'by a cursor',
      ['BEGIN', 'DECLARE c CURSOR FOR SELECT FROM t FOR UPDATE; FETCH c', 'INSERT 1', 'COMMIT'].map((sql) =>
        send.query(sql),
      ),
      ['gid-1 0/10'],
    ],
    ['nowhere', [send.query('INSERT 1')], []],
  ])('tells what carries locks that they were taken %s', async (_where, say, carried) => {
    const bench = new Bench();
    await bench.say(...say);
    expect(bench.begun).toHaveLength(1);
    expect(bench.carried).toEqual(carried);
  });

  it('sends nothing of a long CopyData message of which it has dropped the beginning', async () => {
    const bench = new Bench();
    const copy = send.run('COPY t FROM STDIN');
    expect(await bench.say(copy, send.copyData('bad'))).toEqual(['1', '2', 'G 000000', 'E ERROR 22P02 invalid input']);
    const long = send.copyData('a line\n'.repeat(10));
    const ends = [long.length - 1, 30, 12, 5];
    for (const at of ends) {
      await bench.say(long.subarray(0, at));
      await bench.say(long.subarray(at));
    }
    expect(await bench.say(send.copyDone(), send.sync(), send.query('INSERT 1'))).toEqual([
      'Z I',
      'C INSERT 0 1',
      'Z I',
    ]);
    // The same where the node does not serve.
    const refusal = new PgError('57P03', 'not now');
    bench.readRefusal = () => refusal;
    expect(await bench.say(copy)).toEqual(['E ERROR 57P03 not now']);
    await bench.say(long.subarray(0, 30));
    await bench.say(long.subarray(30));
    bench.readRefusal = () => undefined;
    expect(await bench.say(send.sync(), send.query('INSERT 1'))).toEqual(['Z I', 'C INSERT 0 1', 'Z I']);
  });

  it.each(['COMMIT', 'ROLLBACK', 'BEGIN', 'SAVEPOINT s', "PREPARE TRANSACTION 'x'", 'CREATE ROLE x', 'DEALLOCATE ALL'])(
    'does not let EXECUTE run what the protocol has prepared and needs attention: %s',
    async (sql) => {
      const bench = new Bench();
      await bench.say(send.parse(sql, 'p'), send.sync(), send.query('BEGIN'), send.query('INSERT 1'));
      const refused = ['E ERROR 0A000 EXECUTE runs nothing but queries in a coordinated database', 'Z E'];
      expect(await bench.say(send.query('EXECUTE p'))).toEqual(refused);
      expect(await bench.say(send.query('ROLLBACK'), send.query('BEGIN'))).toEqual([
        'C ROLLBACK',
        'Z I',
        'C BEGIN',
        'Z T',
      ]);
      expect(await bench.say(send.run('EXECUTE p'), send.sync())).toEqual(['1', '2', ...refused]);
      expect(bench.server.executed).not.toContain('EXECUTE p');
    },
  );

  it('keeps little of what a client sends that has not been let in', async () => {
    const unfinished = (type: string): Buffer =>
      Buffer.concat([Buffer.from(type), Buffer.from([0x3f, 0, 0, 0]), Buffer.alloc(200_000)]);
    for (const type of ['p', 'Q']) {
      const bench = new Bench({ greets: false });
      await bench.say(unfinished(type));
      expect(bench.engine.congested).toBe(true);
    }
    const bench = new Bench();
    await bench.say(unfinished('Q'));
    expect(bench.engine.congested).toBe(false);
  });

  it('is not taken for read-only again before it is', async () => {
    const bench = new Bench();
    bench.server.held.push('SET');
    await bench.say(send.query('SELECT UNARMED'));
    // By statement_timeout, for one.
    bench.interrupt();
    await bench.say(send.query('SELECT 1'));
    const sent = bench.server.executed.filter((sql) => !sql.includes('read_level'));
    expect(sent).toEqual([
      'SELECT UNARMED',
      'SET default_transaction_read_only = on',
      'SET default_transaction_read_only = on',
      'SELECT 1',
    ]);
  });

  it.each<[string, Partial<SafetyNames>, string[]]>([
    ['is being made', { changingSince: lsn(0x18n) }, ['gid-1 0/10']],
    ['has been made', { hidesLocks: true }, ['gid-1 0/10']],
    ['has not', {}, []],
  ])('takes along what a function has locked that %s while the transaction runs', async (_when, names, carried) => {
    const bench = new Bench();
    await bench.say(...['BEGIN', 'INSERT 1', 'INSERT 2'].map((sql) => send.query(sql)));
    bench.position = 0x20;
    const before = bench.names;
    bench.names = { ...before, ...names };
    await bench.say(send.query('INSERT 3'), send.query('COMMIT'));
    expect(bench.carried).toEqual(carried);
    bench.names = before;
    await bench.say(send.query('INSERT 4'));
    expect(bench.carried).toEqual(carried);
  });

  it('tells since when a transaction runs that locks after it has written', async () => {
    const bench = new Bench();
    await bench.say(...['BEGIN', 'INSERT 1'].map((sql) => send.query(sql)));
    bench.position = 0x20;
    await bench.say(...['SELECT 1 FOR UPDATE', 'COMMIT'].map((sql) => send.query(sql)));
    expect(bench.carried).toEqual(['gid-1 0/10']);
  });

  it('takes along what was locked before a function was made', async () => {
    const bench = new Bench();
    await bench.say(...['BEGIN', 'INSERT 1', 'SELECT 1 FOR UPDATE'].map((sql) => send.query(sql)));
    bench.names = { ...bench.names, changingSince: lsn(0x30n) };
    await bench.say(send.query('COMMIT'));
    expect(bench.carried).toEqual(['gid-1 0/10']);
  });

  it('ends a protocol violation by the server', () => {
    const bench = new Bench();
    const ready = Buffer.concat([Buffer.from('Z'), Buffer.from([0, 0, 0, 5]), Buffer.from('I')]);
    expect(() => bench.engine.fromServer(ready)).toThrow('unexpected ReadyForQuery');
  });
});
