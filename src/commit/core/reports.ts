import type { GidParts } from '../gid.ts';
import type { Gid, NodeId } from '../../runtime/ids.ts';
import type { ErrorReport } from './types.ts';

/** The errors that the commit protocol itself gives to clients. Style: PostgreSQL's "Error Message Style Guide". */

/** Another node's older transaction changed the same data: as a concurrent update on one server. */
export function overruled(winner: Gid, parts: GidParts, table?: string): ErrorReport {
  return {
    sqlstate: '40001',
    message: 'could not serialize access due to concurrent update on another node',
    detail: `Transaction "${winner}" of node ${parts.node} won${table === undefined ? '' : ` on table "${table}"`}.`,
    hint: 'The transaction might succeed if retried.',
  };
}

/** The coordinator gave the transaction up and nothing more is known. */
export function aborted(gid: Gid): ErrorReport {
  return { sqlstate: '40000', message: 'transaction was rolled back', detail: `Transaction "${gid}".` };
}

/** This node was excluded from the cluster before the transaction was decided: rolled back everywhere. */
export function epochEnded(gid: Gid): ErrorReport {
  return {
    sqlstate: '40001',
    message: 'could not commit: this node left the cluster before the transaction was decided',
    detail: `Transaction "${gid}" was rolled back on every node.`,
    hint: 'The transaction might succeed if retried.',
  };
}

/** Not every member voted within commit.decision_timeout, and nothing had been proposed: rolled back. */
export function noMajority(gid: Gid): ErrorReport {
  return {
    sqlstate: '57P03',
    message: 'could not commit: the cluster did not decide in time',
    detail: `Transaction "${gid}" was rolled back on every node.`,
    hint: 'Check that a majority of the nodes is running and that this node can reach them.',
  };
}

/** Nobody but this node has heard of it: rolled back. */
export function notDecoded(gid: Gid): ErrorReport {
  return {
    sqlstate: '57P03',
    message: 'could not commit: the changes of the transaction did not come out of the WAL in time',
    detail: `Transaction "${gid}" was rolled back.`,
    hint: 'Check the walsender of this node, in pg_stat_replication and in the logs of PostgreSQL and the proxy.',
  };
}

/** The transaction was proposed and its decision cannot be learned now: it may yet commit, or not. */
export function unknown(gid: Gid): ErrorReport {
  return {
    sqlstate: '08007',
    message: 'the outcome of the transaction is unknown',
    detail: `Transaction "${gid}" was proposed, but this node cannot learn the decision now.`,
    hint: 'Ask any node for the outcome of this transaction once a majority of the nodes is reachable.',
  };
}

/** The log commits it, and this node's PostgreSQL, which is not there, has yet to. */
export function notHere(gid: Gid): ErrorReport {
  return {
    sqlstate: '08007',
    message: 'the transaction is not committed on this node yet',
    detail: `Transaction "${gid}" is decided, but the PostgreSQL of this node cannot commit it now.`,
    hint: 'It is committed on every node that takes part; ask any node for its outcome.',
  };
}

/** This node's data may be out of date, and the configuration says that it must not be shown then. */
export function notReadable(reason: string, node: NodeId): ErrorReport {
  return {
    sqlstate: '57P03',
    message: 'cannot read: this node is not a member of the cluster now',
    detail: `Node ${node}: ${reason}`,
    hint: 'Connect to another node, or set reads.outside_cluster to serve where old data will do.',
  };
}

/** This node takes no writes now. */
export function notWritable(reason: string, node: NodeId): ErrorReport {
  return {
    sqlstate: '57P03',
    message: 'cannot write: this node is not a member of the cluster now',
    detail: `Node ${node}: ${reason}`,
    hint: 'Reads work. Writes work again when a majority of the nodes is reachable and this node has caught up.',
  };
}
