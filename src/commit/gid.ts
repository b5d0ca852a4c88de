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

/** Negative when `a` is the older and so wins against `b`. Total: no two transactions compare equal. */
export function comparePriority(a: GidParts, b: GidParts): number {
  return a.clock - b.clock || a.node - b.node || a.epoch - b.epoch || a.sequence - b.sequence;
}
