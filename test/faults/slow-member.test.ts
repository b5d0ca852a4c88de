import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import { parse, stringify } from 'yaml';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import type { ClusterStatus } from '../../src/admin/status.ts';
import { targetsOfPlayground, verify } from '../../src/cli/verify.ts';
import { startCluster } from '../support/cluster.ts';
import type { TestCluster } from '../support/cluster.ts';
import { isReady } from '../support/ready.ts';
import { withoutDecoding } from '../support/stopped-backends.ts';
import { waitFor } from '../support/wait-for.ts';

const PATIENCE = { timeoutMs: 120_000 };
const SLOW = 3;

describe('a member whose votes take longer than member.vote_timeout', () => {
  let cluster: TestCluster;
  let client: pg.Client;
  let written = 0;
  let refused = 0;
  let load: Promise<void>;
  const life = { isOver: false };

  beforeAll(async () => {
    cluster = await (await startCluster()).ready();
    for (const node of [1, 2, 3]) {
      const file = join(cluster.dir, `node${node}`, 'pgmm.yaml');
      const config = parse(readFileSync(file, 'utf8')) as Record<string, unknown>;
      writeFileSync(file, stringify({ ...config, member: { vote_timeout: '1s' } }));
      await cluster.dev('kill', String(node), 'proxy');
      await cluster.dev('start', String(node), 'proxy');
      await waitFor(`node ${node} is back`, () => isReady(cluster, node), PATIENCE);
    }
    client = new pg.Client({ connectionString: cluster.node(1).uri });
    await client.connect();
    await client.query('CREATE TABLE t (id serial PRIMARY KEY)');
  });
  afterAll(async () => {
    await client.end();
    await cluster.stop();
  });

  beforeEach(() => {
    written = refused = 0;
    life.isOver = false;
    load = (async () => {
      while (!life.isOver) {
        await client.query('INSERT INTO t DEFAULT VALUES').then(
          () => written++,
          () => refused++,
        );
      }
    })();
  });
  afterEach(async () => {
    await cluster.dev('heal');
    life.isOver = true;
    await load;
    expect(await verify(targetsOfPlayground(cluster.dir), { waitMs: 60_000 })).toMatchObject({ same: true });
  });

  const statusOf = async (node: number): Promise<ClusterStatus> =>
    (await (await fetch(new URL('/status', cluster.node(node).metrics))).json()) as ClusterStatus;
  const slowAsSeen = async () => (await statusOf(1)).nodes.find(({ id }) => id === SLOW)!;
  const isMember = async (): Promise<boolean> => (await slowAsSeen()).state === 'member';

  async function othersGoOn(): Promise<void> {
    const before = written;
    await waitFor('the others go on', () => written > before + 20, PATIENCE);
  }

  it('is excluded when its link takes two seconds', { timeout: 300_000 }, async () => {
    await othersGoOn();
    await cluster.dev('delay', String(SLOW), '2000');
    await waitFor('it is out', async () => !(await isMember()), PATIENCE);
    await othersGoOn();
    await cluster.dev('delay', String(SLOW), '0');
    await waitFor('it is a member again', () => isReady(cluster, SLOW), PATIENCE);
    expect(refused).toBe(0);
  });

  it('is let in later and later when it is heard and its votes come late', { timeout: 300_000 }, async () => {
    await othersGoOn();
    await cluster.dev('delay', String(SLOW), '900');
    const epochs = new Set<number>();
    await waitFor(
      'it has to wait',
      async () => {
        epochs.add((await slowAsSeen()).epoch);
        return (await statusOf(SLOW)).reasons.some((reason) => reason.includes('did not come in time again and again'));
      },
      PATIENCE,
    );
    await waitFor('it is out', async () => !(await isMember()), PATIENCE);
    await othersGoOn();
    // Excluded, let in once more, excluded, and told to wait.
    expect(epochs.size).toBeLessThanOrEqual(4);
    await cluster.dev('delay', String(SLOW), '0');
    await waitFor('it is a member again', () => isReady(cluster, SLOW), PATIENCE);
    expect(refused).toBe(0);
  });

  it('is not excluded for what the coordinator itself does not get out of its WAL', { timeout: 300_000 }, async () => {
    await othersGoOn();
    const epochs = async () => (await statusOf(1)).nodes.map(({ epoch }) => epoch);
    const before = await epochs();
    await withoutDecoding(cluster, 1, () =>
      waitFor(
        'a commit has waited three times as long as a vote may take',
        async () =>
          (await statusOf(1)).inDoubt.some(({ ageMs, waitsFor }) => ageMs > 3000 && /out of the WAL/.test(waitsFor[0])),
        PATIENCE,
      ),
    );
    await othersGoOn();
    expect(await epochs()).toEqual(before);
    expect(refused).toBe(0);
  });

  it('is excluded when its PostgreSQL is stopped', { timeout: 300_000 }, async () => {
    await othersGoOn();
    await cluster.dev('pause', String(SLOW), 'postgres');
    await waitFor('it is out', async () => !(await isMember()), PATIENCE);
    await othersGoOn();
    await cluster.dev('resume', String(SLOW), 'postgres');
    await waitFor('it is a member again', () => isReady(cluster, SLOW), PATIENCE);
    expect(refused).toBe(0);
  });
});
