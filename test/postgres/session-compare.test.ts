import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type pg from 'pg';
import { installedBin } from '../support/postgres.ts';
import { startSessionProxy } from './session-proxy.ts';
import type { SessionProxy } from './session-proxy.ts';
import { RawClient, describe as lines, send } from './session-raw.ts';

/** Repeatable: the same numbers for the same seed. */
function randomNumbers(seed: number): () => number {
  let state = seed >>> 0;
  return () => (state = (Math.imul(state, 1103515245) + 12345) >>> 0) / 4294967296;
}

interface Conversation {
  readonly messages: Buffer[];
  readonly script: string[];
  readonly ends: number;
}

const CONTROL = [
  ...[
    'begin',
    'begin',
    'BEGIN ISOLATION LEVEL REPEATABLE READ',
    'start transaction',
    'begin read only',
    'commit',
    'commit',
    'end',
  ],
  ...[
    'rollback',
    'rollback',
    'abort',
    'savepoint s',
    'rollback to s',
    'release s',
    'commit and chain',
    'rollback and chain',
  ],
];

/** Client messages of all kinds in any order, most of them wrong where they stand. */
class Writer {
  readonly #random: () => number;
  readonly messages: Buffer[] = [];
  readonly script: string[] = [];
  ends = 0;

  constructor(seed: number) {
    this.#random = randomNumbers(seed);
  }

  write(units: number): Conversation {
    for (let i = 0; i < units; i++) {
      const kind = this.#random();
      if (kind < 0.35) this.#query([this.#any(0.35)]);
      else if (kind < 0.5) this.#query(Array.from({ length: 2 + this.#below(4) }, () => this.#any(0.3)));
      else this.#batch();
    }
    return this;
  }

  #below(n: number): number {
    return Math.floor(this.#random() * n);
  }

  #pick<T>(items: readonly T[]): T {
    return items[this.#below(items.length)];
  }

  #any(control: number): string {
    return this.#random() < control ? this.#pick(CONTROL) : this.#statement();
  }

  #statement(): string {
    const a = this.#below(60);
    return this.#pick([
      'select 1',
      'select * from fz order by a',
      `insert into fz values (${a}, 'x')`,
      `insert into fz values (${a}, 'x') on conflict do nothing`,
      `update fz set b = b || '${a}'`,
      `delete from fz where a = ${a}`,
      'delete from fz where a > 40 returning a',
      'select 1/0',
      'selec 1',
      `select writes(${a})`,
      `select notes(${a})`,
      "select x'zz'",
      'select * from nope',
      'insert into fz values (1000)',
      `set work_mem = '${1 + this.#below(4)}MB'`,
      'show work_mem',
      `select repeat('é', ${this.#below(3000)})`,
      'values (1),(2)',
      `with x as (insert into fz values (${a}) on conflict do nothing returning a) select * from x`,
      `select generate_series(1, ${this.#below(300)})`,
      `select 'a''b' as "q;x"; `,
      `do $$ begin insert into fz values (${a}) on conflict do nothing; end $$`,
      'explain (costs off) select 1',
      'truncate fz',
      'fetch c',
      '',
    ]);
  }

  #query(statements: string[]): void {
    const sql = statements.join('; ');
    this.#add(`Query ${sql}`, send.query(sql));
    this.ends++;
  }

  #batch(): void {
    const length = 1 + this.#below(4);
    for (let i = 0; i < length; i++) {
      const sql = this.#any(0.25);
      const name = this.#random() < 0.3 ? `n${this.#below(6)}` : '';
      const portal = this.#random() < 0.15 ? `p${this.#below(3)}` : '';
      const kind = this.#random();
      if (kind < 0.7) {
        this.#add(`Parse ${name} ${sql}, Bind ${portal}`, send.parse(sql, name), send.bind([], name, portal));
        if (this.#random() < 0.5) this.#add('Describe', send.describe(portal));
        this.#add('Execute', send.execute(portal, this.#random() < 0.2 ? 2 : 0));
      } else if (kind < 0.8) this.#add(`Bind ${name}, Execute`, send.bind([], name), send.execute());
      else if (kind < 0.9) this.#add(`Close ${name}`, send.close(name));
      else this.#add(`Parse ${name} ${sql}, Describe`, send.parse(sql, name), send.describe(name, 'S'));
      if (this.#random() < 0.15) this.#add('Flush', send.flush());
    }
    this.#add('Sync', send.sync());
    this.ends++;
  }

  #add(line: string, ...messages: Buffer[]): void {
    this.script.push(line);
    this.messages.push(...messages);
  }
}

describe('a session answers as PostgreSQL does', () => {
  let proxy: SessionProxy;
  let admin: pg.Client;

  beforeAll(async () => {
    proxy = await startSessionProxy({ bin: installedBin });
    admin = await proxy.postgres.connect();
    await admin.query(`CREATE TABLE fz (a int PRIMARY KEY, b text, CHECK (a < 900));
      CREATE FUNCTION writes(i int) RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO fz VALUES (i, 'f') ON CONFLICT DO NOTHING; RETURN i; END $$;
      CREATE FUNCTION notes(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE NOTICE 'note %', i; RETURN i; END $$;`);
    // A write that is found out only when later statements are on their way is an error: not what is compared here.
    proxy.names.current = { volatileNames: new Set(['writes']), taintedRelations: new Set(), hidesLocks: false };
  });

  afterAll(async () => {
    await proxy.stop();
  });

  async function converse(port: number, { messages, ends }: Conversation, pieces?: () => number): Promise<string[]> {
    await admin.query('TRUNCATE fz');
    const raw = await RawClient.connect(port);
    const bytes = Buffer.concat(messages);
    if (pieces === undefined) raw.send(bytes);
    else await raw.sendInPieces(bytes, pieces);
    const answer = lines(await raw.ready(ends));
    raw.send(send.terminate());
    while (!raw.closed) await new Promise((resolve) => setTimeout(resolve, 2));
    const { rows } = await admin.query('SELECT a, b FROM fz ORDER BY a');
    return [...answer, JSON.stringify(rows)];
  }

  it('to random conversations, in pieces of any length', async () => {
    for (let seed = 1; seed <= 40; seed++) {
      const conversation = new Writer(seed * 7919).write(25);
      const random = randomNumbers(seed);
      const direct = await converse(proxy.postgres.port, conversation);
      const through = await converse(proxy.port, conversation, () => 1 + Math.floor(random() ** 3 * 2000));
      expect(through, `seed ${seed}:\n${conversation.script.join('\n')}`).toEqual(direct);
    }
  });

  it('with the same error positions in every statement of a query', async () => {
    const queries = [
      "select 1; insert into fz values (1, 'é'); selec 2",
      "begin; insert into fz values (1, 'ééé'); select nope from fz; commit",
      "begin; /* é */ insert into fz values (2, 'x'); commit; update fz set nope = 1",
      "insert into fz values (3, '😀'); begin; commit; select '😀', nope",
      '  create table broken (a int, b nope)',
      'begin; create table made (a int); create table broken (a nope)',
      'commit; select 1/0',
      'select 1; vacuum fz; select 2',
      'insert into fz values (5); vacuum fz',
      'begin; savepoint s; select nope; rollback to s; commit',
    ];
    for (const sql of queries) {
      const conversation = { messages: [send.query(sql), send.query('rollback')], script: [sql], ends: 2 };
      const direct = await converse(proxy.postgres.port, conversation);
      expect(await converse(proxy.port, conversation), sql).toEqual(direct);
    }
  });
});
