import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Founders, Memory } from '../consensus/core/standing.ts';
import type { Restored } from '../consensus/core/types.ts';
import type { LogIndex, Lsn, NodeId } from '../runtime/ids.ts';
import { replaceDurably } from '../runtime/durable-file.ts';
import { formatLsn, parseLsn } from '../runtime/ids.ts';
import type { PeerLogNotes } from './peer-logs.ts';

/**
 * Who this node is: its decision log in `data_dir` and its PostgreSQL belong together, and neither may go back in time. A voter that
 * forgot its log could help to elect a leader that lacks what is committed; a PostgreSQL that went back lacks what this node has voted
 * yes for. So both sides bear the same mark, and what was seen of them is noted down every second (docs/identity.md).
 */
export interface Identity {
  readonly cluster: string;
  readonly node: NodeId;
  /** Random, made with the decision log; the same in PostgreSQL, table multimaster.membership. */
  readonly log: string;
  /** The PostgreSQL that belongs to it; null until the first one has been marked. */
  readonly postgres: PostgresIdentity | null;
  /** The last log entry that was known to be decided: no honest disk has less. */
  readonly decided: LogIndex;
  /** Whether this log's voice counts in elections; see Memory. Undefined where a version that did not know of this made it. */
  readonly voice?: { readonly counts: boolean; readonly founders: Founders | null };
  /** What was heard of the other nodes' logs. */
  readonly peers?: PeerLogNotes;
}

export interface PostgresIdentity {
  readonly systemIdentifier: string;
  readonly timeline: number;
  /** Log index and WAL position that it was seen to have made durable. */
  readonly committed: LogIndex;
  readonly flushed: Lsn;
}

/** What a PostgreSQL says of itself. */
export interface FoundPostgres extends PostgresIdentity {
  readonly inRecovery: boolean;
  /** Its mark, if it was ever part of a cluster. */
  readonly mark: { readonly cluster: string; readonly node: number; readonly log: string } | undefined;
}

/** Why this node must not take part with what it has; `code` names the paragraph in docs/identity.md. */
export interface Refusal {
  readonly code:
    | 'standby'
    | 'other-cluster'
    | 'other-node'
    | 'log-lost'
    | 'other-log'
    | 'other-server'
    | 'other-timeline'
    | 'went-back'
    | 'log-behind';
  readonly reason: string;
}

const refusal = (code: Refusal['code'], reason: string): Refusal => ({ code, reason });

/** Whether the log that was restored from disk can be this node's; `isNew` if there was none. Undefined: it can, and may vote. */
export function judgeLog(own: Identity | undefined, lastIndex: LogIndex, isNew: boolean): Refusal | undefined {
  if (own === undefined) return undefined;
  if (isNew && own.voice?.counts === true)
    return refusal('log-lost', 'there is no decision log in data_dir, and this node has had one');
  if (lastIndex >= own.decided) return undefined;
  return refusal(
    'log-lost',
    `the decision log in data_dir ends at entry ${lastIndex}, and this node has had entry ${own.decided}: it was lost, or an old copy was restored`,
  );
}

/** Whether this PostgreSQL is the one that belongs to the log, in a state that can follow what was seen of it. */
export function judgePostgres(
  own: Identity,
  isNew: boolean,
  found: FoundPostgres,
  lastIndex: LogIndex,
): Refusal | undefined {
  if (found.inRecovery) return refusal('standby', 'PostgreSQL is a standby, or is being restored');
  return judgeMark(own, isNew, found) ?? judgeHistory(own.postgres, found) ?? judgeIndex(found, lastIndex);
}

function judgeMark(own: Identity, isNew: boolean, { mark, committed }: FoundPostgres): Refusal | undefined {
  if (mark === undefined) {
    if (own.postgres !== null)
      return refusal('other-server', 'PostgreSQL has never been part of a cluster, and this node has had another one');
    return committed === 0
      ? undefined
      : refusal('other-server', 'PostgreSQL has a cluster’s commits and no mark of it');
  }
  if (mark.cluster !== own.cluster) return refusal('other-cluster', `PostgreSQL belongs to cluster "${mark.cluster}"`);
  if (mark.node !== own.node) return refusal('other-node', `PostgreSQL belongs to node ${mark.node}`);
  if (mark.log === own.log) return undefined;
  return isNew
    ? refusal('log-lost', 'PostgreSQL has been part of this cluster, and there is no decision log of it in data_dir')
    : refusal('other-log', 'PostgreSQL belongs to another decision log of this node');
}

function judgeHistory(own: PostgresIdentity | null, found: FoundPostgres): Refusal | undefined {
  if (own === null) return undefined;
  if (own.systemIdentifier !== found.systemIdentifier)
    return refusal(
      'other-server',
      `PostgreSQL has system identifier ${found.systemIdentifier}, not ${own.systemIdentifier}`,
    );
  if (own.timeline !== found.timeline)
    return refusal(
      'other-timeline',
      `PostgreSQL is on timeline ${found.timeline}, and was on ${own.timeline}: a standby was promoted, or a backup restored`,
    );
  if (found.committed < own.committed)
    return refusal(
      'went-back',
      `PostgreSQL has committed entry ${found.committed}, and had committed ${own.committed} before`,
    );
  if (found.flushed < own.flushed)
    return refusal(
      'went-back',
      `PostgreSQL's WAL ends at ${formatLsn(found.flushed)}, and reached ${formatLsn(own.flushed)} before`,
    );
  return undefined;
}

function judgeIndex({ committed }: FoundPostgres, lastIndex: LogIndex): Refusal | undefined {
  if (committed <= lastIndex) return undefined;
  return refusal(
    'log-behind',
    `PostgreSQL has committed entry ${committed}, and the decision log ends at entry ${lastIndex}`,
  );
}

const FILE = 'identity.json';

/** The identity's place on disk: replaced as a whole, durably. */
export class IdentityFile {
  readonly #path: string;
  #current: Identity | undefined;
  /** One after the other, as they go through one file. */
  #saving: Promise<void> = Promise.resolve();

  constructor(directory: string) {
    this.#path = join(directory, FILE);
    this.#current = read(this.#path);
  }

  /** Undefined in a data_dir that is used for the first time. */
  get current(): Identity | undefined {
    return this.#current;
  }

  /** Durable when it resolves. */
  save(identity: Identity): Promise<void> {
    const saved = this.#saving.then(() => this.#write(identity));
    // Whoever asked for it learns that it failed; the next one is tried all the same.
    this.#saving = saved.catch(() => undefined);
    return saved;
  }

  async #write(identity: Identity): Promise<void> {
    const { postgres } = identity;
    const text = JSON.stringify({
      ...identity,
      postgres: postgres === null ? null : { ...postgres, flushed: formatLsn(postgres.flushed) },
    });
    await replaceDurably(this.#path, `${text}\n`);
    this.#current = identity;
  }
}

/** Of a log that begins now. */
export function newIdentity(cluster: string, node: NodeId): Identity {
  const voice = { counts: false, founders: null };
  return { cluster, node, log: randomUUID(), postgres: null, decided: 0 as LogIndex, voice };
}

/** The log as a voter's memory. One that an earlier version has used counts: every log did. */
export function memoryOf(own: Identity, { hardState, snapshot, entries }: Restored): Memory {
  const wasUsed = hardState.term > 0 || snapshot !== null || entries.length > 0;
  return { name: own.log, ...(own.voice ?? { counts: wasUsed, founders: null }) };
}

/** Throws on a file that can't be understood: it must not be taken for a first start. */
function read(path: string): Identity | undefined {
  let text: string;
  try {
    text = readFileSync(path, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
  try {
    const found = JSON.parse(text) as Identity & { postgres: { flushed: string } | null };
    const { postgres } = found;
    return { ...found, postgres: postgres === null ? null : { ...postgres, flushed: parseLsn(postgres.flushed) } };
  } catch (error) {
    throw new Error(`${path} is damaged: ${(error as Error).message}`, { cause: error });
  }
}
