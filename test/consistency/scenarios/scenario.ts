import type pg from 'pg';

export const LEVELS = ['READ COMMITTED', 'REPEATABLE READ'] as const;
export type Level = (typeof LEVELS)[number];

export type Step = string | pg.QueryConfig;

/** What a session does: a transaction block of these statements, or one statement on its own, without a block. */
export type SessionSteps = readonly Step[] | string;

/** SQLSTATEs with which one of the sessions may end, by level. */
export type Errors = Readonly<Record<Level, readonly string[]>>;

/**
 * Transactions that meet, in the manner of PostgreSQL's isolation tests. They are run in all orders of their steps on one server, in some or all
 * on the nodes of a cluster; what the document says of them is here as well, and is held against what the runs showed.
 */
export interface Scenario {
  /** In the words of the document's table. */
  readonly conflict: string;
  /** Made once, or before each run where the sessions change them; names are looked up in a schema of the scenario's own. */
  readonly tables: readonly string[];
  readonly changesSchema?: boolean;
  /** Brings the rows back that each run starts from. */
  readonly rows: string;
  readonly sessions: readonly SessionSteps[];
  /** Gives what counts of the state in the end, as rows. */
  readonly state: string;
  readonly server: { readonly text: string; readonly errors: Errors };
  readonly cluster: { readonly text: string; readonly errors: Errors };
}

export interface Section {
  readonly title: string;
  readonly scenarios: readonly Scenario[];
}

export const never: Errors = { 'READ COMMITTED': [], 'REPEATABLE READ': [] };
export const always = (...codes: readonly string[]): Errors => ({ 'READ COMMITTED': codes, 'REPEATABLE READ': codes });
export const errors = (readCommitted: readonly string[], repeatableRead: readonly string[]): Errors => ({
  'READ COMMITTED': readCommitted,
  'REPEATABLE READ': repeatableRead,
});
