import { STEPS } from '../runtime/hybrid-clock.ts';
import type { Epoch, Gid, NodeId } from '../runtime/ids.ts';

/**
 * What the name of a coordinated prepared transaction says. (node, epoch, sequence) never repeats: an epoch belongs to
 * one run of one proxy, and the sequence counts within it. (clock, node) is the transaction's priority: older wins.
 */
export interface GidParts {
  /** The cluster's name, so that a server's other prepared transactions are left alone. */
  readonly cluster: string;
  readonly node: NodeId;
  readonly epoch: Epoch;
  readonly sequence: number;
  /** Hybrid logical clock reading at the time of naming; see runtime/hybrid-clock.ts. */
  readonly clock: number;
}

const PREFIX = 'pgmm';

/** `pgmm:<cluster>:<node>:<epoch>:<sequence>:<clock>`, the last three in base 36; well below the 200 bytes allowed. */
export function formatGid(parts: GidParts): Gid {
  const { cluster, node, epoch, sequence, clock } = parts;
  return `${PREFIX}:${cluster}:${node}:${epoch.toString(36)}:${sequence.toString(36)}:${clock.toString(36)}` as Gid;
}

/** Undefined for the name of a prepared transaction that is not this program's. */
export function parseGid(text: string): GidParts | undefined {
  const fields = text.split(':');
  if (fields.length !== 6 || fields[0] !== PREFIX) return undefined;
  const node = Number(fields[2]);
  const [epoch, sequence, clock] = [fields[3], fields[4], fields[5]].map((field) => parseInt(field, 36));
  if (![node, epoch, sequence, clock].every((n) => Number.isSafeInteger(n) && n >= 0)) return undefined;
  return { cluster: fields[1], node: node as NodeId, epoch: epoch as Epoch, sequence, clock };
}

/**
 * Negative when `a` is the older and so wins against `b`. Total: no two transactions compare equal. Those that waited for one row on several nodes
 * go on in the same millisecond, when it is committed everywhere; so that it isn't always the same node that wins then, the order of nodes is drawn
 * by lot for each millisecond.
 */
export function comparePriority(a: GidParts, b: GidParts): number {
  const [x, y] = [Math.floor(a.clock / STEPS), Math.floor(b.clock / STEPS)];
  return (
    x - y ||
    drawLot(x, a.node) - drawLot(y, b.node) ||
    a.node - b.node ||
    a.clock - b.clock ||
    a.epoch - b.epoch ||
    a.sequence - b.sequence
  );
}

/** A number of 32 bits that follows from both (the finalizer of MurmurHash3). */
function drawLot(millisecond: number, node: NodeId): number {
  let hash = Math.imul((millisecond % 2 ** 32) ^ Math.imul(node, 0x9e3779b1), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
