import type { LogIndex, NodeId } from '../runtime/ids.ts';

/** What a node shows of its decision log when it dials another one. */
export interface ShownLog {
  /** Random, made with the log; see Identity. */
  readonly name: string;
  /** The last entry on its disk. */
  readonly last: LogIndex;
}

/** What was heard of a peer's decision log, as it is noted down. */
export interface PeerLog {
  readonly log: string;
  /** The last entry that the peer knew to be decided, which it had on disk when it said so. */
  readonly decided: LogIndex;
  /** Names of logs that others have taken the place of. */
  readonly former: readonly string[];
}

export type PeerLogNotes = Readonly<Record<number, PeerLog>>;

/** A log that is shown is not what the peer has had. */
export interface WentBack {
  readonly reason: string;
  /** The entry that every log of this peer must have that was not made anew. */
  readonly had: LogIndex;
}

/**
 * What this node remembers of its peers' decision logs. A node's own notes lie beside its log, so an older copy of both, such as the snapshot of a whole
 * machine, looks whole to the node itself: then only the others know better (docs/identity.md).
 */
export class PeerLogs {
  readonly #known = new Map<NodeId, PeerLog>();
  /** The names of the logs that peers have shown since this process began. */
  readonly #shown = new Map<NodeId, string>();
  #notes: PeerLogNotes;

  constructor(notes: PeerLogNotes = {}) {
    this.#notes = notes;
    for (const [node, log] of Object.entries(notes)) this.#known.set(Number(node) as NodeId, log);
  }

  /** To be kept in `identity.json`; the same object until there is news. */
  get notes(): PeerLogNotes {
    return this.#notes;
  }

  /**
   * What is known of a peer's log now, as a judgement of the log that it shows hereafter: undefined if that may be this peer's, a new one included. What is
   * heard of the peer between the two says nothing against it.
   */
  remember(node: NodeId): (shown: ShownLog) => WentBack | undefined {
    const known = this.#known.get(node);
    return (shown) => (known === undefined ? undefined : judge(node, known, shown));
  }

  /** The peer has proven that it is who it says, and its log was not objected to. */
  met(node: NodeId, { name }: ShownLog): void {
    this.#shown.set(node, name);
  }

  /**
   * From a heartbeat of a peer that was met. A new log takes the place of the one before once its vote counts, as then nobody may go on with the other: a
   * second process that was set up as the same node by mistake takes nothing from the first.
   */
  heard(node: NodeId, decided: LogIndex, votes: boolean): void {
    const log = this.#shown.get(node);
    if (log === undefined) return;
    const known = this.#known.get(node);
    if (known === undefined) return this.#set(node, { log, decided, former: [] });
    if (known.log !== log) {
      if (votes) this.#set(node, { log, decided, former: [...known.former, known.log] });
    } else if (decided > known.decided) this.#set(node, { ...known, decided });
  }

  #set(node: NodeId, log: PeerLog): void {
    this.#known.set(node, log);
    this.#notes = Object.fromEntries(this.#known);
  }
}

function judge(node: NodeId, { log, decided, former }: PeerLog, { name, last }: ShownLog): WentBack | undefined {
  if (former.includes(name)) {
    const reason = `another decision log has taken the place of the one that node ${node} shows: an old copy was restored`;
    return { reason, had: Math.max(decided, last + 1) as LogIndex };
  }
  if (name !== log || last >= decided) return undefined;
  const reason = `the decision log of node ${node} ends at entry ${last}, and has had entry ${decided}: it was lost, or an old copy was restored`;
  return { reason, had: decided };
}
