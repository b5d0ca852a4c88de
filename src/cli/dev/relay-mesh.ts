import { DevError } from './dev-error.ts';
import { HOST } from './ports.ts';
import type { PortPlan } from './ports.ts';
import { OPEN, Relay } from './relay.ts';

/** Groups of nodes that can't reach each other. A node that is in no group reaches all, and is reached by all. */
export interface Partition {
  readonly groups: readonly (readonly number[])[];
  /** Only what the first group sends to the second is lost. */
  readonly oneWay: boolean;
  /** Connections are reset instead of falling silent. */
  readonly reset: boolean;
}

export function assertPartition({ groups, oneWay, reset }: Partition, ids: readonly number[]): void {
  if (groups.length < 2) throw new DevError('a partition has at least two groups, such as: partition 1 2,3');
  if (oneWay && groups.length > 2) throw new DevError('--one-way takes exactly two groups');
  if (oneWay && reset) throw new DevError("--one-way and --reset don't go together: a reset is seen on both sides");
  const named = groups.flat();
  const unknown = named.find((id) => !ids.includes(id));
  if (unknown !== undefined) throw new DevError(`there is no node ${unknown}; the nodes are ${ids.join(', ')}`);
  const twice = named.find((id, index) => named.indexOf(id) !== index);
  if (twice !== undefined) throw new DevError(`node ${twice} is named twice`);
}

/** Whether what `from` sends is lost on its way to `to`. */
export function isCut({ groups, oneWay }: Partition, from: number, to: number): boolean {
  const source = groups.findIndex((group) => group.includes(from));
  const target = groups.findIndex((group) => group.includes(to));
  if (source === -1 || target === -1) return false;
  return oneWay ? source === 0 && target === 1 : source !== target;
}

/** The network between the nodes: a relay for each ordered pair of nodes and each thing that one wants of the other. */
export class RelayMesh {
  readonly #relays: { readonly from: number; readonly to: number; readonly relay: Relay }[] = [];
  #partition: Partition | undefined;
  /** Milliseconds by node: what it sends and what is sent to it takes that long. */
  readonly #delays = new Map<number, number>();

  get partition(): Partition | undefined {
    return this.#partition;
  }

  async open(plan: PortPlan): Promise<void> {
    for (const { from, to, port, target } of plan.relays) {
      const relay = new Relay(target);
      await relay.listen({ host: HOST, port });
      this.#relays.push({ from, to, relay });
    }
  }

  /** Replaces the partition there is; undefined heals it, and makes every link quick again. */
  apply(partition: Partition | undefined): void {
    this.#partition = partition;
    if (partition === undefined) this.#delays.clear();
    this.#set();
  }

  delay(node: number, milliseconds: number): void {
    this.#delays.set(node, milliseconds);
    this.#set();
  }

  #set(): void {
    const partition = this.#partition;
    for (const { from, to, relay } of this.#relays) {
      const delay = Math.max(this.#delays.get(from) ?? 0, this.#delays.get(to) ?? 0);
      relay.set(
        partition === undefined
          ? { ...OPEN, delay }
          : {
              forward: isCut(partition, from, to),
              backward: isCut(partition, to, from),
              reset: partition.reset,
              delay,
            },
      );
    }
  }

  async close(): Promise<void> {
    await Promise.all(this.#relays.map(({ relay }) => relay.close()));
  }
}
