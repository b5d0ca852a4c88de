import pg from 'pg';
import type { Rng } from '../sim/rng.ts';

/** What a client was told of one operation, each of which is one transaction. */
export type Answer =
  | 'committed'
  /** An error that says that nothing of it happened. */
  | 'failed'
  /** The connection broke, or the server said itself that it does not know. */
  | 'unknown';

export interface Operation {
  /** Never used twice. */
  readonly id: number;
  readonly kind: 'transfer' | 'append' | 'insert';
  readonly node: number;
  answer: Answer;
  /** The error's SQLSTATE and message. */
  error?: string;
}

export const ACCOUNTS = 20;
const BALANCE = 1000;
const LISTS = 8;
export const TOTAL = ACCOUNTS * BALANCE;

export const SCHEMA = [
  'CREATE TABLE account (id int PRIMARY KEY, balance int NOT NULL)',
  'CREATE TABLE transfer (id int PRIMARY KEY, amount int NOT NULL)',
  'CREATE TABLE list (id int PRIMARY KEY, items int[] NOT NULL)',
  'CREATE TABLE member (id int PRIMARY KEY)',
  `INSERT INTO account SELECT i, ${BALANCE} FROM generate_series(1, ${ACCOUNTS}) i`,
  `INSERT INTO list SELECT i, '{}' FROM generate_series(1, ${LISTS}) i`,
];

/** The ids of the operations that left their mark, by kind; what a list holds stands in its order. */
export const MARKS = {
  transfer: 'SELECT id FROM transfer',
  append: 'SELECT unnest(items) AS id FROM list',
  insert: 'SELECT id FROM member',
} as const;

/** Whether an error leaves open what became of the transaction. */
export function isUnknown(error: unknown): boolean {
  // Class 08, connection exception; 57P01 to 57P03 end a connection as well, in the middle of a COMMIT maybe.
  if (error instanceof pg.DatabaseError) return error.code?.startsWith('08') ?? true;
  return true;
}

export async function perform(client: pg.Client, { id, kind }: Operation, rng: Rng): Promise<void> {
  switch (kind) {
    case 'transfer': {
      const from = 1 + rng.below(ACCOUNTS);
      const to = 1 + ((from + rng.below(ACCOUNTS - 1)) % ACCOUNTS);
      const amount = 1 + rng.below(10);
      await client.query('BEGIN');
      await client.query('UPDATE account SET balance = balance - $1 WHERE id = $2', [amount, from]);
      await client.query('UPDATE account SET balance = balance + $1 WHERE id = $2', [amount, to]);
      await client.query('INSERT INTO transfer VALUES ($1, $2)', [id, amount]);
      await client.query('COMMIT');
      return;
    }
    case 'append':
      await client.query('UPDATE list SET items = items || $1::int WHERE id = $2', [id, 1 + rng.below(LISTS)]);
      return;
    case 'insert':
      await client.query('INSERT INTO member VALUES ($1)', [id]);
  }
}
