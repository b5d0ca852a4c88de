import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { startCluster, type TestCluster } from '../../support/cluster.ts';
import { startPostgres, type TestPostgres } from '../../support/postgres.ts';
import { SECTIONS } from './all.ts';
import { Possible } from './judge.ts';
import { allOrders, someOf } from './orders.ts';
import { COMMITTED } from './run-order.ts';
import { LEVELS, type Level, type Scenario } from './scenario.ts';
import { stepCounts, Target, type Outcome } from './target.ts';

/** PGMM_SCENARIO_ORDERS: how many orders of the steps run on the cluster, or `all`; PGMM_SCENARIO_SEED chooses others. */
const ORDERS = process.env['PGMM_SCENARIO_ORDERS'] ?? '2';
const SEED = Number(process.env['PGMM_SCENARIO_SEED'] ?? 0);
const COUNT = ORDERS === 'all' ? Infinity : Number(ORDERS);

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

  async function onCluster(scenario: Scenario, level: Level, orders: readonly number[][]): Promise<Outcome[]> {
    const outcomes: Outcome[] = [];
    for (const order of orders) outcomes.push(await three.run(scenario, level, order));
    return outcomes;
  }

  it.each(CASES)('$title: $name, in $level', { timeout: 1_200_000 }, async ({ scenario, level }) => {
    if (prepared !== scenario) await Promise.all([one.prepare(scenario), three.prepare(scenario)]);
    prepared = scenario;
    const orders = someOf(allOrders(stepCounts(scenario)), COUNT, SEED);
    const [could, outcomes] = await Promise.all([possible(scenario, level), onCluster(scenario, level, orders)]);
    const wrong = outcomes.flatMap((outcome, i) => {
      const verdict = could.verdict(outcome);
      return verdict === undefined ? [] : [`${orders[i].join('')}: ${verdict}`];
    });
    expect(wrong).toEqual([]);

    const { server: stated, cluster: statedOfCluster } = scenario;
    expect(could.waited).toBe(/waits|deadlock/.test(stated.text));
    expect(stated.errors[level]).toEqual(expect.arrayContaining([...could.codes]));
    // Not all, as RESTRICT has an SQLSTATE of its own from 18 on.
    expect(could.codes.size > 0).toBe(stated.errors[level].length > 0);
    const codes = outcomes.flatMap(({ ends }) => ends.map(({ end }) => end)).filter((end) => end !== COMMITTED);
    expect(statedOfCluster.errors[level]).toEqual(expect.arrayContaining(codes));
  });
});

/** Every choice of some of the sessions, but not of all or none. */
function subsets(sessions: number): number[][] {
  const all = Array.from({ length: 2 ** sessions }, (_, mask) =>
    Array.from({ length: sessions }, (_, i) => i).filter((i) => (mask & (1 << i)) !== 0),
  );
  return all.filter((who) => who.length > 0 && who.length < sessions);
}
