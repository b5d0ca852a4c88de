import type { Config } from '../../config/schema.ts';

/** How much of PostgreSQL's limited resources a node needs. */
export interface Needs {
  /** One of every client here, and what the apply sessions have prepared. */
  readonly preparedTransactions: number;
  /** Every client of every node committing at once. */
  readonly preparedTransactionsAtMost: number;
  readonly walSenders: number;
  readonly replicationSlots: number;
  readonly replicationOrigins: number;
  readonly connections: number;
}

/** Connections for control, of each kind one per database: control, decoder, conflict checks, a spare, what transactions have locked. */
const CONTROL_CONNECTIONS = 5;

export function needs({ nodes, databases, session, apply, commit }: Config): Needs {
  const sessions = apply.sessions * databases.length;
  const isStrict = commit.order === 'strict';
  const committers = databases.length * (isStrict ? 1 : commit.committers);
  // The node's own changes, and one slot kept for every other node to return from; one more while a node copies this one's data.
  const slots = nodes.length * databases.length + 1;
  return {
    preparedTransactions: session.maxConnections + sessions,
    preparedTransactionsAtMost: session.maxConnections * nodes.length,
    walSenders: slots,
    replicationSlots: slots,
    // Several committers have another one noted down, how far all of them are.
    replicationOrigins: sessions + committers + (isStrict ? 0 : databases.length),
    connections: session.maxConnections + sessions + committers + CONTROL_CONNECTIONS * databases.length,
  };
}
