import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCluster, type TestCluster } from '../../support/cluster.ts';
import { startPostgres, type TestPostgres } from '../../support/postgres.ts';
import { SECTIONS } from './all.ts';
import { Possible } from './judge.ts';
import { allOrders, someOf } from './orders.ts';
import { COMMITTED } from './run-order.ts';
import { LEVELS, type Level, type Scenario } from './scenario.ts';
import { stepCounts, Target } from './target.ts';

/** PGMM_SCENARIO_ORDERS: how many orders of the steps run on the cluster, or `all`; PGMM_SCENARIO_SEED chooses others. */
const ORDERS = process.env['PGMM_SCENARIO_ORDERS'] ?? '2';
const SEED = Number(process.env['PGMM_SCENARIO_SEED'] ?? 0);
const COUNT = ORDERS === 'all' ? Infinity : Number(ORDERS);
const DUMP = process.env['DUMP'];

const CASES = SECTIONS.flatMap(({ title, scenarios }) =>
  scenarios.flatMap((scenario) => LEVELS.map((level) => ({ title, scenario, level, name: scenario.conflict }))),
);

describe('transactions on two nodes end as on one server', () => {
  let cluster: TestCluster;
  let server: TestPostgres;
  let one: Target;
  let three: Target;
  let prepared: Scenario | undefined;

  beforeAll(async () => {
    cluster = await (await startCluster({ relays: false })).ready();
    server = await startPostgres({ settings: { deadlock_timeout: '50ms' } });
    one = await Target.connect([{ uri: server.uri(), postgresUri: server.uri() }]);
    three = await Target.connect([1, 2, 3].map((node) => cluster.node(node)));
  });

  afterAll(async () => {
    await one.end();
    await three.end();
    await cluster.stop();
    await server.stop();
  });

  /** All orders, also those of fewer sessions: a transaction that lost a conflict on the cluster is as if it had never been. */
  async function possible(scenario: Scenario, level: Level): Promise<Possible> {
    const result = new Possible();
    const counts = stepCounts(scenario);
    for (const order of allOrders(counts)) result.add(await one.run(scenario, level, order));
    for (const who of subsets(counts.length)) {
      const some = { ...scenario, sessions: who.map((i) => scenario.sessions[i]) };
      for (const order of allOrders(stepCounts(some)))
        result.addWithout(await one.run(some, level, order), who, counts.length);
    }
    return result;
  }

  it.each(CASES)('$title: $name, in $level', { timeout: 1_200_000 }, async ({ scenario, level }) => {
    if (prepared !== scenario) await Promise.all([one.prepare(scenario), three.prepare(scenario)]);
    prepared = scenario;
    const serverSide = await possible(scenario, level);
    const codes = new Set<string>();
    const wrong: string[] = [];
    let waited = false;
    for (const order of someOf(allOrders(stepCounts(scenario)), COUNT, SEED)) {
      const outcome = await three.run(scenario, level, order);
      for (const { end } of outcome.ends) if (end !== COMMITTED) codes.add(end);
      waited ||= outcome.waited;
      const verdict = serverSide.verdict(outcome);
      if (verdict !== undefined) wrong.push(`${order.join('')}: ${verdict}`);
    }
    if (DUMP !== undefined) {
      console.log(
        `@@ ${level} | ${scenario.conflict} | server ${[...serverSide.codes].sort().join()} ${serverSide.waited} | cluster ${[...codes].sort().join()} ${waited} | ${wrong.join(' ;; ')}`,
      );
      return;
    }
    if (scenario.missing?.levels.includes(level) === true) expect(wrong).not.toEqual([]);
    else expect(wrong).toEqual([]);
    expect([...serverSide.codes].sort()).toEqual([...scenario.server.errors[level]].sort());
    expect(
      [...scenario.cluster.errors[level], ...codes].filter((code) => !scenario.cluster.errors[level].includes(code)),
    ).toEqual([]);
  });
});

/** Every choice of some of the sessions, but not of all or none. */
function subsets(sessions: number): number[][] {
  const all = Array.from({ length: 2 ** sessions }, (_, mask) =>
    Array.from({ length: sessions }, (_, i) => i).filter((i) => (mask & (1 << i)) !== 0),
  );
  return all.filter((who) => who.length > 0 && who.length < sessions);
}
