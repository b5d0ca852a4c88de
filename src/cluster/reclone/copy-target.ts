import type { NodeId } from '../../runtime/ids.ts';
import type { CopyRequest } from '../messages.ts';

export type CopyMethod = CopyRequest['method'];

/** A place where a copy of another node's data grows beside this node's, and which takes their place at the next start. */
export interface CopyTarget {
  readonly method: CopyMethod;
  /** For messages: where it grows. */
  readonly place: string;
  /** A complete copy is to be put in place, or has been and is not this node's yet. */
  isDue(): Promise<boolean>;
  /** Whether it can be put in place now. */
  isReady(): Promise<boolean>;
  /** What is to be asked for. Rejects with the reason when no copy can be taken here now. */
  request(): Promise<CopyRequest>;
  /** Makes room for a new one, in the place of what is left of an earlier one. `total`: bytes, as the donor estimates. */
  begin(total: number): Promise<CopyReceiver>;
  /** Removes what is there of one that is not complete. */
  discard(): Promise<void>;
}

/** Takes a copy in. */
export interface CopyReceiver {
  /** Resolves when more can be taken. */
  push(bytes: Buffer): Promise<void>;
  /** All was pushed: verifies it, and does what can be done before it is put in place. Rejects when something is missing. */
  finish(): Promise<void>;
  /** From now on, whatever happens, the copy takes the place of the data. */
  complete(): Promise<void>;
  /** It is not to be finished: what is under way is cut short. */
  abandon(): void;
}

/** A way to get a copy. */
export interface Choice {
  readonly method: CopyMethod;
  readonly donor: NodeId;
}

/**
 * The next one to try: the first of the methods for which some donor is not known to be too different, and of those donors the first that has not failed
 * since all of them had. Undefined where every donor is too different for every method.
 */
export function chooseCopy(
  methods: readonly CopyMethod[],
  donors: readonly NodeId[],
  failed: Set<NodeId>,
  isUnlike: (choice: Choice) => boolean,
): Choice | undefined {
  for (const method of methods) {
    const usable = donors.filter((donor) => !isUnlike({ method, donor }));
    if (usable.length === 0) continue;
    if (usable.every((donor) => failed.has(donor))) for (const donor of usable) failed.delete(donor);
    return { method, donor: usable.find((one) => !failed.has(one)) ?? usable[0] };
  }
  return undefined;
}
