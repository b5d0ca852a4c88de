import { HOST, PortPlan, portProblem } from '../../src/cli/dev/ports.ts';
import { createServer } from 'node:net';

/** Below what operating systems hand out by themselves, so that no outgoing connection takes one in between. */
const LOWEST = 10_000;
const HIGHEST = 32_000;
/**
 * Test files that run at a time each draw from a range of their own: what is free now may be taken before it is used. The last ports that
 * are derived from the first one stand some hundreds above it.
 */
const RANGES = 2;
const RANGE = Math.floor((HIGHEST - LOWEST) / RANGES);
const DERIVED = 1000;
const BEGIN = LOWEST + (Number(process.env['VITEST_POOL_ID'] ?? 1) % RANGES) * RANGE;

/** A port that nothing listens on. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = randomPort();
    if ((await portProblem(port)) === undefined) return port;
  }
}

/** A first port for `pgmm dev up --port`, such that all the ports derived from it are free. */
export async function freeFirstPort(nodes: number): Promise<number> {
  for (;;) {
    const first = randomPort();
    const ports = new PortPlan(first, nodes).purposes(true).map(({ port }) => port);
    const problems = await Promise.all(ports.map(portProblem));
    if (problems.every((problem) => problem === undefined)) return first;
  }
}

/** Takes a port until the returned function is called. */
export async function occupy(port: number): Promise<() => Promise<void>> {
  const server = createServer();
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(port, HOST, resolve);
  });
  return () => new Promise((resolve) => server.close(() => resolve()));
}

function randomPort(): number {
  return BEGIN + Math.floor(Math.random() * (RANGE - DERIVED));
}
