import type pg from 'pg';
import type { Rng } from '../../sim/rng.ts';
import type { CommitOrder, Level } from '../levels.ts';
import type { Session } from '../session.ts';

export interface Finding {
  readonly kind: string;
  readonly detail: string;
}

/** One run of a workload on one target at one level. */
export interface Workload {
  /** One transaction, or a few, of one session. */
  step(session: Session, rng: Rng): Promise<void>;
  /** When all sessions are done and every node has all; `nodes` are connected to each. */
  finish(nodes: readonly pg.Client[]): Promise<{ readonly reads: number; readonly findings: readonly Finding[] }>;
}

export interface WorkloadKind {
  readonly name: string;
  /** Tables to make, dropped before every run. */
  readonly schema: readonly string[];
  /** Whether writers wait until every node shows what they wrote. */
  readonly remoteApply?: boolean;
  create(): Workload;
  /** Whether nodes that commit in this order must never show this at the level. */
  forbids(kind: string, level: Level, order: CommitOrder): boolean;
}

export const always = (): boolean => true;
