import { Packr } from 'msgpackr';
import type { Epoch, Gid, LogIndex, NodeId } from '../runtime/ids.ts';
import type { GuardSnapshot } from './core/guard.ts';
import type { LogCommand } from './core/types.ts';

/**
 * How commands and snapshots stand in the decision log: msgpack arrays, the first element a kind number. What is on disk
 * outlives this version of the program, so kinds are never renumbered and fields only added at the end.
 */
const packr = new Packr({ useRecords: false });

const COMMIT = 1;
const ADMIT = 2;
const EXCLUDE = 3;
const VOTER = 4;
const LOCK = 5;
const UNLOCK = 6;
const FREE_LOCKS = 7;
const LOCK_WAITS = 8;

export function encodeCommand(command: LogCommand): Uint8Array {
  return packr.pack(toArray(command));
}

function toArray(command: LogCommand): unknown[] {
  switch (command.type) {
    case 'commit':
      return [COMMIT, command.gid, command.database, command.time, command.dependsOn, command.notify];
    case 'admit':
      return [ADMIT, command.node, command.previous, command.time];
    case 'exclude':
      return [EXCLUDE, command.node, command.epoch, command.reason, command.time, command.slow === true];
    case 'voter':
      return [VOTER, command.node, command.memory, command.time];
    case 'lock': {
      const { node, epoch, session, request, lock, shared, wait } = command;
      return [LOCK, node, epoch, session, request, lock, shared, wait];
    }
    case 'unlock':
      return [UNLOCK, command.node, command.epoch, command.session, command.request, command.locks ?? null];
    case 'lock-waits':
      return [LOCK_WAITS, command.node, command.epoch, command.session, command.request, command.blocks];
    case 'free-locks':
      return [FREE_LOCKS, command.node, command.epoch];
  }
}

/** An empty payload is a leader's no-op: undefined. Throws on an unknown kind, which a newer version wrote. */
export function decodeCommand(payload: Uint8Array): LogCommand | undefined {
  if (payload.length === 0) return undefined;
  const fields = packr.unpack(payload) as unknown[];
  switch (fields[0]) {
    case COMMIT: {
      const [, gid, database, time, dependsOn, notify] = fields as [number, Gid, string, number, LogIndex, boolean];
      return { type: 'commit', gid, database, time, dependsOn, notify };
    }
    case ADMIT: {
      const [, node, previous, time] = fields as [number, NodeId, Epoch, number];
      return { type: 'admit', node, previous, time };
    }
    case EXCLUDE: {
      const [, node, epoch, reason, time, slow] = fields as [
        number,
        NodeId,
        Epoch,
        string,
        number,
        boolean | undefined,
      ];
      return { type: 'exclude', node, epoch, reason, time, slow: slow === true };
    }
    case VOTER: {
      const [, node, memory, time] = fields as [number, NodeId, string, number];
      return { type: 'voter', node, memory, time };
    }
    case LOCK: {
      const [, node, epoch, session, request, lock, shared, wait] = fields as [
        ...[number, NodeId, Epoch, number, number],
        ...[string, boolean, boolean],
      ];
      return { type: 'lock', node, epoch, session, request, lock, shared, wait };
    }
    case UNLOCK: {
      const [, node, epoch, session, request, locks] = fields as [
        ...[number, NodeId, Epoch, number, number],
        [string, boolean][] | null,
      ];
      return { type: 'unlock', node, epoch, session, request, locks: locks ?? undefined };
    }
    case LOCK_WAITS: {
      const [, node, epoch, session, request, blocks] = fields as [number, NodeId, Epoch, number, number, number[]];
      return { type: 'lock-waits', node, epoch, session, request, blocks };
    }
    case FREE_LOCKS: {
      const [, node, epoch] = fields as [number, NodeId, Epoch];
      return { type: 'free-locks', node, epoch };
    }
    default:
      throw new Error(`decision log entry of unknown kind ${String(fields[0])}: it was written by a newer version`);
  }
}

export function encodeSnapshot(snapshot: GuardSnapshot): Uint8Array {
  return packr.pack(snapshot);
}

export function decodeSnapshot(state: Uint8Array): GuardSnapshot {
  return packr.unpack(state) as GuardSnapshot;
}
