import { performance } from 'node:perf_hooks';
import { DIRECTIONS, type Direction, type Metrics } from '../../admin/metrics.ts';
import type { ClusterStatus, NodeStatus, Readiness, StatusSource } from '../../admin/status.ts';
import type { BypassRecord } from '../../cluster/bypass-record.ts';
import type { CatchUp } from '../../cluster/catch-up.ts';
import { CatchUpProgress } from '../../cluster/catch-up-progress.ts';
import type { ClusterNode } from '../../cluster/node.ts';
import type { Logger } from '../../runtime/log.ts';
import type { PeerLinks } from '../../cluster/peer-links.ts';
import type { Config } from '../../config/schema.ts';
import type { RaftNode } from '../../consensus/raft-node.ts';
import type { LocalReplica } from '../../replication/local-replica.ts';
import type { Recloner } from '../../cluster/reclone/recloner.ts';
import type { Referee } from '../../consensus/referee/referee.ts';
import type { TransactionSpool } from '../../replication/spool.ts';

import type { Listener } from '../../session/listener.ts';
import { dataNodes } from './parts.ts';

interface Parts {
  readonly config: Config;
  readonly node: ClusterNode;
  readonly raft: RaftNode;
  readonly links: PeerLinks;
  readonly replica: LocalReplica;
  readonly listener: Listener;
  readonly spool: TransactionSpool;
  readonly metrics: Metrics;
  readonly catchUp: CatchUp;
  readonly referee: Referee | undefined;
  readonly recloner: Recloner;
  readonly bypasses: BypassRecord;
  readonly log: Logger;
}

/** Milliseconds between two lines of the log about a node that catches up. */
const REPORT_EVERY = 5000;

const VERSION = '0.1.0';

/** Of advisory locks in the status. */
const SHOWN_LOCKS = 200;

/** What this node knows of itself and the others, for `/status` and for the gauges. */
export class NodeStatusSource implements StatusSource {
  readonly #parts: Parts;
  readonly #startedAt = new Date().toISOString();
  readonly #progress = new CatchUpProgress();
  #reported = 0;
  #counted: Readonly<Record<Direction, number>> = {
    client_to_server: 0,
    server_to_client: 0,
    to_peer: 0,
    from_peer: 0,
  };

  constructor(parts: Parts) {
    this.#parts = parts;
  }

  readiness(): Readiness {
    const { config, node } = this.#parts;
    const reason = node.unwritable;
    return { node: config.node, writable: reason === undefined, reasons: reason === undefined ? [] : [reason] };
  }

  status(): ClusterStatus {
    const { config, node, raft, replica, listener } = this.#parts;
    const { role, term, leader, lastIndex, commitIndex } = raft.status;
    return {
      version: VERSION,
      cluster: config.cluster.name,
      ...this.readiness(),
      role: role === 'leader' ? 'leader' : role === 'follower' ? 'follower' : 'candidate',
      term,
      leader,
      log: { last: lastIndex, committed: commitIndex },
      nodes: dataNodes(config).map((other) => this.#node(other)),
      referee: this.#parts.referee?.status ?? null,
      voiceless: node.core.voiceless ?? null,
      voicelessPeers: node.voiceless,
      inDoubt: node.inDoubt(),
      advisoryLocks: node.core.guard.locks.list(SHOWN_LOCKS),
      postgres: {
        state: replica.isUp ? 'up' : 'down',
        version: null,
        address: `${config.postgres.host}:${config.postgres.port}`,
      },
      bypasses: this.#parts.bypasses.current,
      catchUp: this.#progress.progress ?? null,
      reclone: this.#parts.recloner.status,
      clients: listener.sessions,
      startedAt: this.#startedAt,
    };
  }

  #node({ id, client }: Config['nodes'][number]): NodeStatus {
    const { config, node, links, raft } = this.#parts;
    const isSelf = id === config.node;
    const epoch = node.core.guard.lastEpoch(id);
    const isMember = node.core.guard.members.has(id);
    const committed = isSelf ? node.core.committed : (node.heardOf(id)?.committed ?? null);
    const joining = isSelf && (node.core.state === 'joining' || node.core.state === 'catching-up');
    return {
      id,
      state: isMember ? 'member' : joining ? 'joining' : epoch === 0 ? 'unknown' : 'excluded',
      epoch,
      reachable: isSelf || links.isUp(id),
      committed,
      lag: committed === null ? null : Math.max(0, raft.status.commitIndex - committed),
      client: client === undefined ? null : `${client.host}:${client.port}`,
    };
  }

  /** A node on its way back is news, until it has arrived. */
  #watchCatchUp(): void {
    const { node, raft, catchUp, metrics, log } = this.#parts;
    const now = performance.now();
    const { core } = node;
    const position = {
      now,
      isMember: core.state === 'member',
      decided: raft.status.commitIndex,
      committed: core.committed,
    };
    const hasArrived = this.#progress.sample({ ...position, bytes: catchUp.bytesRead });
    const { progress } = this.#progress;
    metrics.recloneBytes.set(this.#parts.recloner.status?.bytes ?? 0);
    metrics.catchUpRemaining.set(progress?.remaining ?? 0);
    metrics.catchUpSeconds.set(progress?.secondsLeft ?? 0);
    if (hasArrived) log.info({ committed: core.committed }, 'caught up with the cluster');
    if (progress === undefined || now - this.#reported < REPORT_EVERY) return;
    this.#reported = now;
    log.info(progress, 'catching up with the cluster');
  }

  /** Passing bytes on must cost nothing: they are added up there, and counted here now and then. */
  #countTraffic(): void {
    const { metrics, listener, links } = this.#parts;
    const now = {
      client_to_server: listener.traffic.fromClients,
      server_to_client: listener.traffic.fromServer,
      to_peer: links.traffic.sent,
      from_peer: links.traffic.received,
    };
    for (const direction of DIRECTIONS) metrics.bytes[direction].inc(now[direction] - this.#counted[direction]);
    this.#counted = now;
  }

  /** A write was found in the WAL that did not come through this program. */
  bypassed(database: string, xid: number, tables: readonly string[]): void {
    this.#parts.bypasses.add({ database, xid, tables, at: new Date().toISOString() });
    this.#parts.metrics.bypassed.inc({ database });
  }

  /** Brings the gauges up to date. */
  sample(): void {
    const { metrics, node, raft, replica, spool, config, referee } = this.#parts;
    const { term, role, lastIndex, commitIndex } = raft.status;
    metrics.logIndex.set(lastIndex);
    metrics.logTerm.set(term);
    metrics.logLeader.set(role === 'leader' ? 1 : 0);
    metrics.writable.set(node.core.refusal === undefined ? 1 : 0);
    metrics.inDoubt.set(node.core.coordinator.list().length + node.core.participant.list().length);
    const { queued, busy } = replica.applyLoad;
    metrics.applyQueue.set(queued);
    metrics.applyBusy.set(busy);
    metrics.waitingForTurn.set(node.turns.waiting);
    metrics.spoolMemory.set(spool.usage.memory);
    metrics.spoolDisk.set(spool.usage.disk);
    if (referee !== undefined) {
      const { server, state } = referee.status;
      metrics.refereeUp.set({ server }, state === 'active' ? 1 : 0);
    }
    metrics.setRetainedWal(replica.retainedWal);
    this.#countTraffic();
    this.#watchCatchUp();
    for (const { id } of dataNodes(config)) {
      const committed = id === config.node ? node.core.committed : node.heardOf(id)?.committed;
      if (committed === undefined) continue;
      metrics.setNode(id, committed, Math.max(0, commitIndex - committed), replica.walSince(committed));
    }
  }
}
