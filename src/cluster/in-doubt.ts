import { parseGid } from '../commit/gid.ts';
import type { Gid, NodeId } from '../runtime/ids.ts';
import type { NodeCore } from './core/node-core.ts';

/** A transaction that is under way on this node, for operators. */
export interface InDoubt {
  readonly gid: Gid;
  readonly origin: NodeId;
  readonly database: string;
  readonly state: 'preparing' | 'prepared' | 'voting' | 'proposed' | 'decided';
  readonly ageMs: number;
  /** What it needs to go on: `the votes of nodes 3`. */
  readonly waitsFor: readonly string[];
}

const OWN_STATES = {
  preparing: 'preparing',
  collecting: 'voting',
  proposing: 'proposed',
  decided: 'decided',
  aborting: 'prepared',
} as const;

const FOREIGN_STATES = {
  waiting: 'preparing',
  applying: 'preparing',
  failed: 'preparing',
  missing: 'decided',
  prepared: 'prepared',
  decided: 'decided',
  'rolling-back': 'prepared',
} as const;

/**
 * What is neither committed nor rolled back here, this node's own transactions and the others'. Those of others are as old as this
 * node has known them, by its monotonic clock: the clock reading in their names may be anybody's.
 */
export class InDoubtList {
  readonly #core: Pick<NodeCore, 'coordinator' | 'participant'>;
  readonly #self: NodeId;
  readonly #since = new Map<Gid, number>();

  constructor(core: Pick<NodeCore, 'coordinator' | 'participant'>, self: NodeId) {
    this.#core = core;
    this.#self = self;
  }

  /** To be called often: notes down since when others' transactions are there. Monotonic milliseconds. */
  look(now: number): void {
    const { participant } = this.#core;
    for (const gid of this.#since.keys()) if (participant.state(gid) === undefined) this.#since.delete(gid);
    for (const gid of participant.gids()) if (!this.#since.has(gid)) this.#since.set(gid, now);
  }

  list(now: number): readonly InDoubt[] {
    const own = this.#core.coordinator.list().map(({ gid, database, phase, begun, waitsFor }) => ({
      ...{ gid, database, origin: this.#self, state: OWN_STATES[phase] },
      ...{ ageMs: Math.round(now - begun), waitsFor: [waitsFor] },
    }));
    const foreign = this.#core.participant.list().map(({ gid, database, state, waitsFor }) => ({
      ...{ gid, database, origin: parseGid(gid)?.node ?? this.#self, state: FOREIGN_STATES[state] },
      ...{ ageMs: Math.round(now - (this.#since.get(gid) ?? now)), waitsFor: [waitsFor] },
    }));
    return [...own, ...foreign];
  }
}
