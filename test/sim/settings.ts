import type { Rng } from './rng.ts';

/** What a seed makes of the cluster: its size, its timeouts, its load. Milliseconds. */
export interface SimSettings {
  readonly nodes: number;
  /** Whether the voters have nothing that counts yet, so that the cluster begins with this run. */
  readonly begins: boolean;
  readonly clientsPerNode: number;
  /** Sessions that take advisory locks. */
  readonly lockClientsPerNode: number;
  readonly thinkTime: number;
  readonly hotKeys: number;
  /** Share of transactions that lock all that is hot, as DDL locks whole tables. */
  readonly exclusive: number;
  /** Share of transactions that wait for every member (`remote_apply`). */
  readonly everywhere: number;
  readonly raftTick: number;
  readonly beatInterval: number;
  readonly heartbeatTimeout: number;
  readonly resendAfter: number;
  readonly voteTimeout: number;
  readonly decisionTimeout: number;
  readonly minimumMembers: number;
  /** Between two looks for prepared transactions that nobody waits for. */
  readonly sweepInterval: number;
  /** Entries after which a node compacts its log; small ones make snapshots travel. */
  readonly compactEvery: number;
  readonly retainEntries: number;
  readonly recentCommits: number;
  readonly maxUncommittedBytes: number;
  readonly decodeLatency: number;
  readonly fsync: number;
  /** How many commit at a time: each run of a proxy takes one of these. */
  readonly lanes: readonly number[];
}

export function drawSettings(rng: Rng): SimSettings {
  const nodes = rng.pick([1, 2, 3, 3, 3, 3, 3, 3, 4, 5]);
  const majority = Math.floor(nodes / 2) + 1;
  const beatInterval = rng.pick([20, 40, 60]);
  return {
    nodes,
    begins: rng.chance(0.3),
    clientsPerNode: rng.pick([1, 2, 2, 3]),
    thinkTime: rng.pick([5, 20, 60]),
    hotKeys: rng.pick([1, 2, 4]),
    everywhere: rng.pick([0, 0.2, 0.5]),
    raftTick: rng.pick([15, 25]),
    beatInterval,
    heartbeatTimeout: 120 + beatInterval * rng.pick([2, 4, 8]),
    resendAfter: rng.pick([60, 120, 200]),
    voteTimeout: rng.pick([200, 400, 800]),
    decisionTimeout: rng.pick([500, 1500]),
    // As for real: of two nodes one may go on.
    minimumMembers: rng.chance(0.7) || nodes <= 2 ? 1 : majority,
    sweepInterval: rng.pick([40, 150, 500]),
    compactEvery: rng.pick([3, 10, 40, 1000]),
    retainEntries: rng.pick([0, 2, 20]),
    recentCommits: rng.pick([2, 10, 10_000]),
    maxUncommittedBytes: rng.chance(0.2) ? 700 : 1 << 20,
    decodeLatency: rng.pick([0.5, 3]),
    fsync: rng.pick([0.3, 2]),
    lockClientsPerNode: rng.pick([0, 1, 2, 3]),
    lanes: rng.pick([[1], [1], [4], [1, 2, 4]]),
    exclusive: rng.pick([0, 0, 0.02, 0.1]),
  };
}
