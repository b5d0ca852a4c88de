import type { NodeEffect, NodeEvent } from '../../src/cluster/core/types.ts';
import type { PeerMessage } from '../../src/cluster/messages.ts';

/** Readable forms for the trace. What repeats without news is left out. */
export function describeEvent(event: NodeEvent): string | undefined {
  switch (event.type) {
    case 'tick':
    case 'leadership':
      return undefined;
    case 'entry':
      return `reads ${event.entry.index}`;
    case 'message':
      return event.message.t === 'beat' ? undefined : `<- n${event.from} ${describeMessage(event.message)}`;
    case 'postgres-up':
      return `sees its server at ${event.committed} (${event.progress.highest}), prepared: ${[...event.prepared.keys()].join(' ') || 'none'}`;
    case 'gap-filled':
      return `gap ${event.from}..${event.to} filled: ${event.entries.map(({ index, gid }) => `${index} ${gid}`).join(', ')}`;
    default:
      return JSON.stringify(event);
  }
}

export function describeEffect(effect: NodeEffect): string | undefined {
  switch (effect.type) {
    case 'send':
      return `-> n${effect.to} ${describeMessage(effect.message)}`;
    case 'commit':
      return `COMMIT PREPARED ${effect.entry.gid} as ${effect.entry.index}`;
    case 'release':
    case 'answer':
      return undefined;
    default:
      return JSON.stringify(effect);
  }
}

function describeMessage(message: PeerMessage): string {
  switch (message.t) {
    case 'raft':
      return 'raft';
    case 'vote':
      return `vote ${message.error === undefined ? 'yes' : `no (${message.error.sqlstate})`} on ${message.gid} in epoch ${message.epoch}`;
    case 'propose':
      return `propose in term ${message.term} as of ${message.asOf}: ${JSON.stringify(message.command)} votes ${JSON.stringify(message.votes)}`;
    default:
      return JSON.stringify(message);
  }
}
