import type { LockStatus } from '../commit/core/advisory-locks.ts';
import type { InDoubt } from '../cluster/in-doubt.ts';
import type { RefereeStatus } from '../consensus/referee/referee.ts';
import type { Bypasses } from '../cluster/bypass-record.ts';
import type { RecloneStatus } from '../cluster/reclone/recloner.ts';
import type { Progress } from '../cluster/catch-up-progress.ts';

/** What a node knows about itself and the cluster at one moment, as `/status` shows it. Plain data: it is sent as JSON. */
export interface ClusterStatus {
  readonly version: string;
  readonly cluster: string;
  readonly node: number;
  /** In the decision log's election. */
  readonly role: 'leader' | 'follower' | 'candidate';
  readonly term: number;
  /** Null while there is none, or none is known. */
  readonly leader: number | null;
  /** Whether a write would be accepted now, and if not, why not, in sentences an operator understands. */
  readonly writable: boolean;
  readonly reasons: readonly string[];
  /** The decision log: the last entry that is here, and the last that is known to be decided. */
  readonly log: { readonly last: number; readonly committed: number };
  readonly nodes: readonly NodeStatus[];
  /** The Redis with the third vote; null where there is none. */
  readonly referee: RefereeStatus | null;
  /** Why this node's own vote in elections does not count; null when it does. */
  readonly voiceless: string | null;
  /** Other voters that say so of theirs. */
  readonly voicelessPeers: readonly number[];
  readonly inDoubt: readonly InDoubt[];
  /** Who holds the cluster's advisory locks, and who waits for them. */
  readonly advisoryLocks: readonly LockStatus[];
  readonly postgres: PostgresStatus;
  /** Transactions that wrote to its PostgreSQL past the proxy since its data were last a copy, which makes it differ from the others. */
  readonly bypasses: Bypasses;
  /** What is being brought in from other nodes; null when nothing is. */
  readonly catchUp: Progress | null;
  /** The copy of another node's data that is made in the place of this node's; null when none was. */
  readonly reclone: RecloneStatus | null;
  readonly clients: number;
  readonly startedAt: string;
}

/** `joining` catches up and asks for admission; `excluded` votes in elections but holds no part of new transactions. */
export type MemberState = 'member' | 'joining' | 'excluded' | 'unknown';

export interface NodeStatus {
  readonly id: number;
  readonly state: MemberState;
  /** The log index of its admission; 0 before the first. */
  readonly epoch: number;
  /** Whether it has been heard of within heartbeat.timeout. */
  readonly reachable: boolean;
  /** The log index up to which its PostgreSQL has committed; null where that is not known. */
  readonly committed: number | null;
  /** Decided entries it has yet to commit. */
  readonly lag: number | null;
  /** Where applications connect, if the configuration says so. */
  readonly client: string | null;
}

export interface PostgresStatus {
  readonly state: 'up' | 'down' | 'starting';
  readonly version: string | null;
  readonly address: string;
}

/** Answers from memory: it is asked at every poll of the status page and every health check. */
export interface StatusSource {
  status(): ClusterStatus;
  /** The same as in the status, without what grows with the work in progress: load balancers ask often. */
  readiness(): Readiness;
}

/** Whether writes are accepted here, and why not. */
export type Readiness = Pick<ClusterStatus, 'node' | 'writable' | 'reasons'>;
