import { beforeAll, describe, expect, it } from 'vitest';
import { PgError } from '../../../src/runtime/errors.ts';
import { logIndex } from '../../../src/runtime/ids.ts';
import type { CommitOutcome } from '../../../src/session/ports.ts';
import { loadParser } from '../../../src/sql/parser.ts';
import { errorResponse } from '../../../src/wire/backend-messages.ts';
import { send } from '../../postgres/session-raw.ts';
import { Bench, shorten } from './bench.ts';

beforeAll(loadParser);

const LOST: CommitOutcome = { type: 'aborted', error: new PgError('40001', 'lost') };
const INSERT = 'INSERT INTO t DEFAULT VALUES';
const GRANTED = { granted: true, end: () => undefined };

const losing = (losses: number, options: ConstructorParameters<typeof Bench>[0] = {}): Bench => {
  const bench = new Bench({ statementRetries: 3, ...options });
  bench.turn = GRANTED;
  for (let n = 0; n < losses; n++) bench.outcomes.push(LOST);
  return bench;
};

const runs = (bench: Bench): number => bench.server.executed.filter((sql) => sql.startsWith('INSERT')).length;

/** What a client says, and what it must hear, however often the statement lost. */
const REPEATED: Record<string, { say: Buffer[]; told: string[] }> = {
  'a Query': { say: [send.query('INSERT 1')], told: ['C INSERT 0 1', 'Z I'] },
  'a Query with rows and notices': {
    say: [send.query('INSERT 1 NOTICE RETURNING 3')],
    told: ['N NOTICE 00000 heed', 'D |xxx', 'C INSERT 0 1', 'Z I'],
  },
  'a batch': {
    say: [send.parse(INSERT), send.bind(), send.describe(), send.execute(), send.sync()],
    told: ['1', '2', 'n', 'C INSERT 0 1', 'Z I'],
  },
  'a batch that prepares under a name': {
    say: [send.parse(INSERT, 's'), send.bind([], 's'), send.execute(), send.sync()],
    told: ['1', '2', 'C INSERT 0 1', 'Z I'],
  },
  'a batch that prepares under another name than before': {
    say: [send.close('s'), send.parse(INSERT, 's'), send.bind([], 's'), send.execute(), send.sync()],
    told: ['3', '1', '2', 'C INSERT 0 1', 'Z I'],
  },
  'what is sent behind it': {
    say: [send.query('INSERT 1'), send.run(INSERT), send.sync(), send.query('INSERT 3')],
    told: ['C INSERT 0 1', 'Z I', '1', '2', 'C INSERT 0 1', 'Z I', 'C INSERT 0 1', 'Z I'],
  },
};

describe('a statement that is the whole of a transaction and loses a conflict', () => {
  it.each(Object.entries(REPEATED))('is run again: %s, cut at every place', async (_name, { say, told }) => {
    const length = Buffer.concat(say).length;
    const statements = told.filter((line) => line === 'Z I').length;
    for (let at = 0; at <= length; at++) {
      const bench = losing(2, { cut: (total) => Math.min(at, total) });
      const heard = [...(await bench.say(...say)), ...(await bench.say()), ...(await bench.say())];
      expect(heard, `cut at ${at}`).toEqual(told);
      expect(runs(bench), `cut at ${at}`).toBe(statements + 2);
      expect(bench.begun).toHaveLength(statements + 2);
      expect(bench.events.filter((event) => event === 'repeated')).toHaveLength(2);
      expect(bench.engine.idle).toBe(true);
    }
  });

  it('is run again as often as is set, and then the client is told', async () => {
    const bench = losing(4);
    expect(await bench.say(send.query('INSERT 1 RETURNING 1'))).toEqual(['D |x', 'E ERROR 40001 lost', 'Z I']);
    expect(runs(bench)).toBe(4);
    expect(await bench.say(send.query('INSERT 1'))).toEqual(['C INSERT 0 1', 'Z I']);
  });

  it('is not run again without the setting', async () => {
    const bench = losing(1, { statementRetries: 0 });
    expect(await bench.say(send.query('INSERT 1'))).toEqual(['E ERROR 40001 lost', 'Z I']);
  });

  it('keeps the priority of the first attempt until it is committed', async () => {
    const bench = losing(2);
    await bench.say(send.query('INSERT 1'), send.query('INSERT 2'));
    expect(bench.seniors).toEqual([undefined, 'gid-1', 'gid-1', undefined]);
  });

  it('is run again when it is interrupted while it runs, in both protocols', async () => {
    for (const say of [send.query(INSERT), Buffer.concat([send.run(INSERT), send.sync()])]) {
      const bench = losing(0);
      bench.server.waits = 2;
      expect(await bench.say(say)).toEqual([]);
      bench.engine.abort(new PgError('40001', 'another node was first'));
      expect(await bench.say()).toEqual([]);
      bench.engine.abort(new PgError('40001', 'another node was first'));
      expect((await bench.say()).slice(-2)).toEqual(['C INSERT 0 1', 'Z I']);
      expect(bench.seniors).toEqual([undefined, 'gid-1', 'gid-1']);
      expect(bench.events.filter((event) => event === 'victim')).toHaveLength(2);
    }
  });

  it.each(['40001', '40P01'])("is run again after PostgreSQL's own %s, with the priority it had", async (sqlstate) => {
    const bench = losing(0);
    bench.server.failures.push(sqlstate, sqlstate);
    expect(await bench.say(send.query('INSERT 1 NOTICE'))).toEqual(['N NOTICE 00000 heed', 'C INSERT 0 1', 'Z I']);
    expect(runs(bench)).toBe(3);
    expect(bench.seniors.every((senior) => senior === undefined)).toBe(true);
  });

  it.each(['23505', '57014'])('is not run again after %s', async (sqlstate) => {
    const bench = losing(0);
    bench.server.failures.push(sqlstate);
    expect(await bench.say(send.query('INSERT 1'))).toEqual([`E ERROR ${sqlstate} lost`, 'Z I']);
    expect(runs(bench)).toBe(1);
  });

  it('hears of notifications that came during an attempt', async () => {
    const bench = losing(1);
    const heard = await bench.say(send.query('INSERT 1 NOTIFIED NOTICE'));
    const lines = heard.map(([type]) => type);
    expect(lines).toEqual(['A', 'N', 'A', 'C', 'Z']);
  });

  it('is never run again when its outcome is unknown', async () => {
    const bench = losing(0);
    bench.outcomes.push({ type: 'unknown', error: new PgError('08007', 'unknown') });
    expect(await bench.say(send.query('INSERT 1'))).toEqual(['E ERROR 08007 unknown', 'Z I']);
    expect(bench.begun).toHaveLength(1);
  });
});

describe('an abort that hits what the session itself has sent', () => {
  const OVERRULED = new PgError('40001', 'another node was first');
  const PROTOCOLS: [string, Buffer][] = [
    ['a Query', send.query(INSERT)],
    ['a batch', Buffer.concat([send.run(INSERT), send.sync()])],
  ];

  it.each(PROTOCOLS)('BEGIN: it is a lost conflict like any other, %s', async (_name, say) => {
    const bench = losing(0);
    bench.server.held.push('BEGIN');
    expect(await bench.say(say)).toEqual([]);
    bench.engine.abort(OVERRULED);
    expect((await bench.say()).slice(-2)).toEqual(['C INSERT 0 1', 'Z I']);
    expect(bench.events.filter((event) => event === 'repeated')).toHaveLength(1);
    expect(bench.begun).toHaveLength(1);
  });

  it.each(PROTOCOLS)(
    'BEGIN: the client is told of the conflict, and not of a cancel request, %s',
    async (_name, say) => {
      const bench = losing(0, { statementRetries: 0 });
      bench.server.held.push('BEGIN');
      await bench.say(say);
      bench.engine.abort(OVERRULED);
      const heard = await bench.say();
      expect(heard.slice(-2)).toEqual(['E ERROR 40001 another node was first', 'Z I']);
      expect(heard.join()).not.toContain('57014');
      expect((await bench.say(say)).slice(-2)).toEqual(['C INSERT 0 1', 'Z I']);
    },
  );

  it.each([
    ['COMMIT of a transaction that only read', ['BEGIN', 'SELECT 1', 'COMMIT'], 'COMMIT'],
    [
      'what comes before a schema statement',
      ['BEGIN', 'CREATE TABLE t ()'],
      'SELECT pg_catalog.encode(pg_catalog.convert_to(current_user',
    ],
  ])('%s: the client is told of the conflict, once', async (_name, statements, held) => {
    const bench = losing(0);
    bench.server.held.push(held);
    await bench.say(...statements.map((sql) => send.query(sql)));
    expect(bench.server.held).toEqual([]);
    bench.engine.abort(OVERRULED);
    expect((await bench.say())[0]).toBe('E ERROR 40001 another node was first');
    const next = await bench.say(send.query('SELECT 2'));
    expect(next.join()).not.toContain('40001');
  });

  it.each(PROTOCOLS)('ROLLBACK: one that comes once more is no news until it has ended, %s', async (_name, say) => {
    const bench = losing(0);
    bench.server.waits = 1;
    bench.server.held.push('ROLLBACK');
    expect(await bench.say(say)).toEqual([]);
    bench.engine.abort(OVERRULED);
    await bench.say();
    expect(bench.server.executed.at(-1)).toBe('ROLLBACK');
    // What it is in the way of looks again, and it still is.
    bench.engine.abort(OVERRULED);
    expect(await bench.say()).toEqual([]);
    bench.proceed();
    expect((await bench.say()).slice(-2)).toEqual(['C INSERT 0 1', 'Z I']);
    expect(bench.server.executed.filter((sql) => sql === 'ROLLBACK')).toHaveLength(1);
    expect(bench.events.filter((event) => event === 'victim')).toHaveLength(1);
  });

  it.each(PROTOCOLS)(
    'ROLLBACK of a transaction that failed by itself: it is rolled back all the same, %s',
    async (_name, say) => {
      const bench = losing(0);
      bench.server.failures.push('23505');
      bench.server.held.push('ROLLBACK');
      await bench.say(say);
      expect(bench.server.executed.at(-1)).toBe('ROLLBACK');
      bench.engine.abort(OVERRULED);
      await bench.say();
      expect(bench.server.executed.filter((sql) => sql === 'ROLLBACK')).toHaveLength(2);
      expect(bench.server.status).toBe('I');
      expect((await bench.say(say)).slice(-2)).toEqual(['C INSERT 0 1', 'Z I']);
    },
  );
});

describe("a cancel request of the session's own that is still on its way", () => {
  const OVERRULED = new PgError('40001', 'another node was first');

  it('hits nothing of a batch that is run again, whose names are being taken back', async () => {
    const bench = losing(1);
    bench.cancelsTakeTime = true;
    bench.server.held.push('Close s');
    expect(await bench.say(send.parse(INSERT, 's'), send.bind([], 's'), send.execute(), send.sync())).toEqual([]);
    bench.engine.abort(OVERRULED);
    bench.server.held.push('INSERT');
    bench.proceed();
    await bench.say();
    expect(runs(bench)).toBe(1);
    bench.cancelArrives();
    await bench.say();
    bench.proceed();
    expect(await bench.say()).toEqual(['1', '2', 'C INSERT 0 1', 'Z I']);
    expect(runs(bench)).toBe(2);
  });
});

describe('an abort that comes when nothing of a transaction has been sent', () => {
  it('does not keep a batch from going on that waits for its client', async () => {
    const bench = losing(0, { statementRetries: 0 });
    expect(await bench.say(send.close('s'), send.flush())).toEqual(['3']);
    bench.engine.abort(new PgError('40001', 'too late'));
    expect(await bench.say(send.run(INSERT), send.sync())).toEqual(['1', '2', 'C INSERT 0 1', 'Z I']);
  });
});

describe('what is not run again', () => {
  it.each<[string, Buffer[], string[]]>([
    ['rows beyond the buffer', [send.query('INSERT 1 RETURNING 80000')], [expect.stringMatching(/^D/) as string]],
    [
      'several statements',
      [send.query('INSERT INTO t DEFAULT VALUES; INSERT INTO t DEFAULT VALUES')],
      ['C INSERT 0 1'],
    ],
    ['two Executes', [send.run(INSERT), send.run(INSERT), send.sync()], ['1', '2', 'C INSERT 0 1', '1', '2']],
    ['what is followed by a Flush', [send.run(INSERT), send.flush(), send.sync()], ['1', '2', 'C INSERT 0 1']],
    [
      'a block',
      ['BEGIN', 'INSERT 1', 'COMMIT'].map((sql) => send.query(sql)),
      ['C BEGIN', 'Z T', 'C INSERT 0 1', 'Z T'],
    ],
    [
      'what closes the statement that it bound',
      [send.parse(INSERT, 's'), send.bind([], 's'), send.execute(), send.close('s'), send.sync()],
      ['1', '2'],
    ],
    ['COPY', [send.query('COPY t FROM STDIN'), send.copyData('1\n'), send.copyDone()], ['G 000000']],
    ['a setting of the session', [send.query("INSERT INTO t SELECT set_config('a.b', 'c', false)")], []],
    ['a lock of the session', [send.query('INSERT INTO t SELECT pg_advisory_lock(1)')], []],
    [
      'a setting of reads',
      [send.query("INSERT INTO t SELECT set_config('multimaster.read_level', 'strict', false)")],
      [],
    ],
  ])('%s', async (_what, say, before) => {
    const bench = losing(1);
    const heard = await bench.say(...say);
    expect(heard.slice(0, before.length)).toEqual(before);
    expect(heard.slice(-2)).toEqual(['E ERROR 40001 lost', 'Z I']);
    expect(bench.begun).toHaveLength(1);
    expect(bench.events).not.toContain('repeated');
  });

  it('a statement that has changed a setting of the session, which the client hears of', async () => {
    const bench = losing(1);
    expect(await bench.say(send.query('INSERT 1 REPORT'))).toEqual(['E ERROR 40001 lost', 'Z I']);
    expect(bench.said.toString('latin1')).toContain('TimeZone');
  });

  it('a statement whose outcome its client does not want any more', async () => {
    const bench = losing(1);
    await bench.say(send.query('INSERT 1'), send.terminate());
    expect(runs(bench)).toBe(1);
  });

  it('a statement whose client has gone while it was being committed', async () => {
    const bench = losing(0);
    let decide: (outcome: CommitOutcome) => void = () => undefined;
    bench.later = new Promise((resolve) => (decide = resolve));
    await bench.say(send.query('INSERT 1'));
    bench.engine.clientClosed();
    decide(LOST);
    await bench.say();
    expect(runs(bench)).toBe(1);
  });

  it('a statement whose server is gone', async () => {
    const bench = losing(0);
    let decide: (outcome: CommitOutcome) => void = () => undefined;
    bench.later = new Promise((resolve) => (decide = resolve));
    await bench.say(send.query('INSERT 1'));
    bench.engine.serverClosed();
    decide(LOST);
    expect(await bench.say()).toEqual(['E ERROR 40001 lost', 'Z I']);
  });

  it('a statement on a node that can write no more', async () => {
    const bench = losing(1);
    await bench.say();
    bench.refusal = () => (bench.begun.length > 0 ? new PgError('57P03', 'not a member') : undefined);
    expect(await bench.say(send.query('INSERT 1'))).toEqual(['E ERROR 40001 lost', 'Z I']);
  });

  it('a statement of which the server said goodbye, which the client hears', async () => {
    const bench = losing(0);
    bench.server.waits = 1;
    await bench.say(send.query('INSERT 1 NOTICE'));
    const goodbye = new PgError('57P01', 'terminating connection', { severity: 'FATAL' });
    bench.engine.fromServer(errorResponse(goodbye));
    bench.engine.serverClosed();
    expect(await bench.say()).toEqual(['N NOTICE 00000 heed', 'E FATAL 57P01 terminating connection']);
    expect(bench.engine.serverSaidGoodbye).toBe(true);
  });
});

describe('a statement that waits for its turn to be run again', () => {
  const waiting = async (say: Buffer[]): Promise<{ bench: Bench; grant: () => void }> => {
    const bench = losing(1);
    const turn = { granted: false, end: () => undefined };
    bench.turn = turn;
    expect(await bench.say(...say)).toEqual([]);
    expect(runs(bench)).toBe(1);
    const grant = (): void => {
      turn.granted = true;
      bench.wake();
    };
    return { bench, grant };
  };

  it('is run when it comes', async () => {
    const { bench, grant } = await waiting([send.query('INSERT 1')]);
    // It has nothing that could be in another's way.
    bench.engine.abort(new PgError('40001', 'too late'));
    grant();
    expect(await bench.say()).toEqual(['C INSERT 0 1', 'Z I']);
    expect(runs(bench)).toBe(2);
  });

  it('can be cancelled, in both protocols', async () => {
    for (const say of [send.query(INSERT), Buffer.concat([send.run(INSERT), send.sync()])]) {
      const { bench, grant } = await waiting([say]);
      expect(bench.engine.cancel()).toBe(true);
      expect(await bench.say()).toEqual(['E ERROR 57014 canceling statement due to user request', 'Z I']);
      grant();
      expect(runs(bench)).toBe(1);
      expect(await bench.say(send.query('SELECT 1'))).toContain('C SELECT 1');
      expect(bench.engine.cancel()).toBe(false);
    }
  });

  it('is given up when the client says that it leaves', async () => {
    const { bench, grant } = await waiting([send.query('INSERT 1')]);
    await bench.say(send.terminate());
    grant();
    await bench.say();
    expect(runs(bench)).toBe(1);
  });

  it('can be cancelled while it is being committed: it is committed or not, but not run again', async () => {
    for (const outcome of [LOST, { type: 'committed', index: logIndex(1) } as const]) {
      const bench = losing(0);
      let decide: (outcome: CommitOutcome) => void = () => undefined;
      bench.later = new Promise((resolve) => (decide = resolve));
      await bench.say(send.query('INSERT 1'));
      expect(bench.engine.cancel()).toBe(true);
      decide(outcome);
      const told = outcome === LOST ? 'E ERROR 57014 canceling statement due to user request' : 'C INSERT 0 1';
      expect(await bench.say()).toEqual([told, 'Z I']);
      expect(shorten(bench.server.executed).filter((sql) => sql === 'PREPARE')).toHaveLength(1);
    }
  });
});
