import type { CommitProgress } from '../../commit/core/commit-progress.ts';
import type { DecidedCommit } from '../../commit/core/commit-queue.ts';
import type { CoordinatorEffect, CoordinatorEvent, CoordinatorSettings } from '../../commit/core/coordinator.ts';
import type { GuardSnapshot } from '../../commit/core/guard.ts';
import type { ParticipantEffect, ParticipantEvent } from '../../commit/core/participant.ts';
import type { LogCommand, LogEntry } from '../../commit/core/types.ts';
import type { Gid, LogIndex, NodeId } from '../../runtime/ids.ts';
import type { Founders, Memory } from '../../consensus/core/standing.ts';
import type { PeerMessage } from '../messages.ts';
import type { LeaderSettings } from './leader-duties.ts';
import type { LockEffect, LockRequest } from './lock-agent.ts';

export interface NodeSettings extends CoordinatorSettings, LeaderSettings {
  /** Every node that holds data, this one among them. */
  readonly nodes: readonly NodeId[];
  /** Those, and witnesses. */
  readonly voters: readonly NodeId[];
  /** How many of the newest commits are remembered by name; see Guard. Few of them make tests meet what is rare. */
  readonly recentCommits?: number;
}

/**
 * - `recovering`: what PostgreSQL has committed and prepared is not known: it is down, or has to be looked at anew; or
 *   what it lacks is not known, as the log was skipped by a snapshot.
 * - `catching-up`: known, and entries of the log are still to be committed here.
 * - `joining`: has caught up and asked the leader for an ADMIT entry.
 * - `member`: votes, and takes writes.
 * - `fenced`: an invariant was found broken; takes no part any more.
 */
export type NodeState = 'recovering' | 'catching-up' | 'joining' | 'member' | 'fenced';

type From<Event, Type> = Extract<Event, { type: Type }>;

export type NodeEvent =
  /** The next committed entry of the log. */
  | { readonly type: 'entry'; readonly entry: LogEntry }
  /** The leader's snapshot replaces all entries up to its index. */
  | { readonly type: 'install'; readonly snapshot: GuardSnapshot }
  | { readonly type: 'leadership'; readonly leader: NodeId | null; readonly term: number; readonly ready: boolean }
  /**
   * Raft did not take what `append` asked for, at that index: this node does not lead that term any more, or it hands over,
   * or it has too much under way. Without the index a leader that goes on leading takes no proposals for the rest of its term.
   */
  | { readonly type: 'append-refused'; readonly index?: LogIndex | undefined }
  | { readonly type: 'message'; readonly from: NodeId; readonly message: PeerMessage }
  | { readonly type: 'link-up'; readonly peer: NodeId }
  /** This node's log is known to be its own: it takes part in elections if its memory counts, and sees to it that it does. */
  | { readonly type: 'voting'; readonly memory: Memory }
  /**
   * What PostgreSQL has, read when nothing of this proxy ran there: everything up to `committed`, of what comes later what `progress` says,
   * and the cluster's prepared transactions with their databases.
   */
  | {
      readonly type: 'postgres-up';
      readonly committed: LogIndex;
      readonly progress: CommitProgress;
      readonly prepared: ReadonlyMap<Gid, string>;
    }
  | { readonly type: 'postgres-down' }
  /**
   * Why what is written to PostgreSQL would reach no other node, so that none may be; undefined: it would. Told while PostgreSQL is taken to be down. Such a
   * node may be a member, and may have to be: its former epoch ends by that, and with it what is in doubt of it.
   */
  | { readonly type: 'readiness'; readonly problem: string | undefined }
  /** Whether what this node lacks is gone from the others' histories: as a member it would only hold them up. */
  | { readonly type: 'history-gone'; readonly isSo: boolean }
  | { readonly type: 'committed'; readonly index: LogIndex }
  /**
   * The answer to `gap`: all COMMIT entries after `from` and up to `to`, as a donor's history has them. `dependsOn` may be
   * any index from the true one up to that of the COMMIT before.
   */
  | {
      readonly type: 'gap-filled';
      readonly from: LogIndex;
      readonly to: LogIndex;
      readonly entries: readonly DecidedCommit[];
    }
  | From<ParticipantEvent, 'applied' | 'blocked' | 'caught-up'>
  | { readonly type: 'rolled-back'; readonly gid: Gid }
  /** The decoder of this database gets on with a transaction that it does not have completely yet. */
  | { readonly type: 'decoding'; readonly database: string }
  | { readonly type: 'decoded'; readonly gid: Gid; readonly database: string; readonly data: Uint8Array | undefined }
  | { readonly type: 'begin'; readonly gid: Gid; readonly database: string; readonly everywhere: boolean }
  | { readonly type: 'prepared'; readonly gid: Gid }
  | From<CoordinatorEvent, 'prepare-failed' | 'prepare-unknown'>
  /** A session of this node wants something of its advisory locks. */
  | { readonly type: 'lock-request'; readonly request: LockRequest }
  /** Its `granted` came when the clock had passed `until`. */
  | { readonly type: 'lock-late'; readonly session: number }
  /** The answer to `confirm-locks`. */
  | { readonly type: 'locks-confirmed'; readonly sentAt: number; readonly index: LogIndex }
  /** Monotonic and wall-clock milliseconds. The latter is only written down. */
  | { readonly type: 'tick'; readonly now: number; readonly wall: number };

export type NodeEffect =
  | { readonly type: 'send'; readonly to: NodeId; readonly message: PeerMessage }
  /**
   * Append to the log as leader of this term; the entry must come to stand at `index`. After one that Raft refuses, the
   * others of the same batch must not be tried.
   */
  | { readonly type: 'append'; readonly term: number; readonly index: LogIndex; readonly command: LogCommand }
  /** COMMIT PREPARED, after all that were handed out before. Answer with `committed`. */
  | { readonly type: 'commit'; readonly entry: DecidedCommit }
  | From<CoordinatorEffect, 'answer' | 'release' | 'rollback-prepared'>
  | From<ParticipantEffect, 'apply' | 'cancel-apply' | 'overrule-backend' | 'missing'>
  /** Look at PostgreSQL anew, once nothing of this proxy runs there; answer with `postgres-up` or `postgres-down`. */
  | { readonly type: 'recover' }
  /**
   * The log's entries up to `to` were compacted away before this node read them, and PostgreSQL has committed up to `from`
   * only. Until `gap-filled` brings what lies between, the node takes no part. Repeated if the gap changes; a node whose
   * donors do not reach back to `from` has to be cloned anew, and then comes up with another committed index.
   */
  | { readonly type: 'gap'; readonly from: LogIndex; readonly to: LogIndex }
  | LockEffect
  | { readonly type: 'members-changed' }
  /** This voter's memory counts from now on: Raft may be told so when that is durable. */
  | { readonly type: 'counts'; readonly founders: Founders | null }
  | { readonly type: 'fenced'; readonly reason: string };
