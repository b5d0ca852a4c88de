import pg from 'pg';
import { PUBLICATION } from '../../catalog/install.ts';
import { COMMIT_WINDOW } from '../../commit/core/commit-progress.ts';
import { HistoryReader } from '../../replication/history/history-reader.ts';
import { APPLICATION_NAME } from '../../replication/origins.ts';
import { logIndex, parseLsn } from '../../runtime/ids.ts';
import type { Difference } from './report.ts';
import type { Target } from './targets.ts';

/** One commit as a node's own WAL tells it. */
interface Commit {
  readonly index: number;
  readonly gid: string;
}

/** What one node's WAL tells, in its order. */
export interface History {
  readonly name: string;
  readonly commits: readonly Commit[];
  /** Of a node that commits in the order "relaxed", sorted: at either end some may be missing that are there on the other side of it. */
  readonly isSorted?: boolean;
}

export interface OrderReport {
  /** Commits that every node's WAL still has. */
  readonly commits: number;
  readonly differences: readonly Difference[];
  readonly notes: readonly string[];
}

/** Milliseconds for reading one node's history. */
const TIMEOUT = 60_000;

/**
 * Whether all nodes have committed the same transactions in the same order, proven from what each PostgreSQL has written
 * into its WAL: a copy of the node's history slot is read from its start, and everything that all of them still have is compared.
 */
export async function compareOrder(targets: readonly Target[], database: string): Promise<OrderReport> {
  const histories = await Promise.all(targets.map((target) => readHistory(target, database)));
  const notes: string[] = [];
  const lists: History[] = [];
  histories.forEach((history, i) => {
    const { name } = targets[i];
    if (history === undefined) notes.push(`${name} keeps no history to compare the order of commits by`);
    else lists.push({ name, ...history });
    if (history?.isSorted === true) notes.push(`${name} commits in the order "relaxed": compared by log index`);
  });
  const common = commonPart(lists);
  return { commits: common.at(0)?.commits.length ?? 0, differences: compareLists(common), notes };
}

/**
 * What every node's WAL still tells, by log index. Each node lets go of its WAL by itself, so that histories begin at different
 * places, and one can be empty. That a node has not committed what others have shows in its committed index, not here.
 */
export function commonPart(histories: readonly History[]): History[] {
  const margin = ({ isSorted }: History) => (isSorted === true ? COMMIT_WINDOW : 0);
  const from = Math.max(...histories.map((one) => (one.commits.at(0)?.index ?? Infinity) + margin(one)));
  const to = Math.min(...histories.map((one) => (one.commits.at(-1)?.index ?? -Infinity) - margin(one)));
  return histories.map(({ name, commits }) => ({
    name,
    commits: commits.filter(({ index }) => index >= from && index <= to),
  }));
}

/** The first place at which the histories differ. */
export function compareLists(lists: readonly History[]): Difference[] {
  const longest = Math.max(0, ...lists.map(({ commits }) => commits.length));
  const describe = (commit: Commit | undefined) => (commit === undefined ? 'nothing' : `${commit.index} ${commit.gid}`);
  for (let at = 0; at < longest; at++) {
    const found = lists.map(({ name, commits }) => [name, describe(commits.at(at))] as const);
    if (new Set(found.map(([, text]) => text)).size > 1) {
      return [{ kind: 'order', object: `commit number ${at + 1} of those compared`, nodes: Object.fromEntries(found) }];
    }
  }
  return [];
}

type Commits = Pick<History, 'commits' | 'isSorted'>;

/** All commits that the slot reaches back to, in WAL order or sorted; undefined when there is no slot. */
async function readHistory(target: Target, database: string): Promise<Commits | undefined> {
  const config = target.connection(database);
  const client = new pg.Client(config);
  await client.connect();
  try {
    const { rows } = await client.query<{ slot: string; position: string }>(
      `SELECT s.slot_name AS slot, pg_current_wal_lsn()::text AS position
       FROM pg_replication_slots s JOIN pg_database d ON s.slot_name = 'pgmm_history_' || d.oid
       WHERE d.datname = current_database() AND s.wal_status IS DISTINCT FROM 'lost'`,
    );
    if (rows.length === 0) return undefined;
    return await readUpTo(client, rows[0].slot, parseLsn(rows[0].position), database);
  } finally {
    await client.end();
  }
}

function readUpTo(client: pg.Client, slot: string, end: bigint, database: string): Promise<Commits> {
  return new Promise((resolve, reject) => {
    const commits: Commit[] = [];
    let isSorted = false;
    const finish = (act: () => void) => {
      clearTimeout(timer);
      reader.stop();
      act();
    };
    const reader = new HistoryReader({
      connection: {
        host: client.host,
        port: client.port,
        user: client.user ?? 'postgres',
        password: typeof client.password === 'string' ? client.password : undefined,
        database,
        applicationName: `${APPLICATION_NAME} verify`,
      },
      slot,
      copy: `pgmm_verify_${process.pid}_${process.hrtime.bigint().toString(36)}`,
      publication: PUBLICATION,
      after: logIndex(0),
      headersOnly: true,
      handlers: {
        piece: () => true,
        committed: (index, gid, _time, after) => {
          commits.push({ index, gid });
          isSorted ||= after !== index;
        },
        caughtUp: (position) => {
          if (position < end) return;
          if (isSorted) commits.sort((a, b) => a.index - b.index);
          finish(() => resolve({ commits, isSorted }));
        },
        closed: (error) => finish(() => reject(error)),
      },
    });
    const timer = setTimeout(() => finish(() => reject(new Error(`slot ${slot} was not read in time`))), TIMEOUT);
    reader
      .start()
      .catch((error: unknown) => finish(() => reject(error instanceof Error ? error : new Error(String(error)))));
  });
}
