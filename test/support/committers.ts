import type { TestCluster } from './cluster.ts';
import { isReady } from './ready.ts';
import { waitFor } from './wait-for.ts';

/** What a node says that can't use its new committers yet. */
const STRICT_FOR_NOW = 'this node commits in the order';

const timesSaid = (cluster: TestCluster, node: number): number =>
  cluster.log(node, 'proxy').split(STRICT_FOR_NOW).length - 1;

/** Starts a node's proxy anew, and says whether that uses the committers that its configuration asks for. */
export async function restartProxy(cluster: TestCluster, node: number): Promise<boolean> {
  const before = timesSaid(cluster, node);
  await cluster.dev('kill', String(node), 'proxy');
  await cluster.dev('start', String(node), 'proxy');
  await waitFor(`node ${node} is back`, () => isReady(cluster, node), { timeoutMs: 120_000 });
  return timesSaid(cluster, node) === before;
}

/** Until every node of a fresh cluster uses its committers: not where something in progress began before they were there. */
export async function useCommitters(cluster: TestCluster, nodes: readonly number[]): Promise<void> {
  for (const node of nodes) if (timesSaid(cluster, node) > 0) while (!(await restartProxy(cluster, node)));
}
