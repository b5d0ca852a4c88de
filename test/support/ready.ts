import type { TestCluster } from './cluster.ts';

/** Whether the node's proxy says that it takes writes. */
export async function isReady(cluster: TestCluster, node: number): Promise<boolean> {
  const url = new URL('/readyz', cluster.node(node).metrics);
  // A proxy that is stopped takes the connection and says nothing.
  const response = await fetch(url, { signal: AbortSignal.timeout(2000) }).catch(() => undefined);
  return response?.status === 200;
}
