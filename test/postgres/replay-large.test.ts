import { readFileSync, readdirSync } from 'node:fs';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { ReplayCluster } from '../support/replay-cluster.ts';
import { waitFor } from '../support/wait-for.ts';

/** Megabytes that one transaction changes. */
const SIZE = Number(process.env['PGMM_TEST_LARGE_MB'] ?? 100);
/** What a proxy may use at most, however large a transaction is. */
const MAX_RSS_MB = 300;
const ROW_BYTES = 200;
const ROWS = Math.round((SIZE * 1_000_000) / ROW_BYTES);
const TIMEOUT = 60_000 + SIZE * 1500;

describe(`replay of ${SIZE} MB in one transaction`, () => {
  let c: ReplayCluster;

  beforeAll(async () => {
    c = await ReplayCluster.start();
    await c.run('CREATE TABLE large (id int PRIMARY KEY, n int, v text)');
    await c.run('CREATE TABLE large_bag (n int, v text)');
  });
  afterAll(() => c.stop());
  afterEach(async () => {
    await waitFor('the spools are empty', () => spooled().length === 0, { describe: spooled });
  });

  /** Files of changes that any proxy keeps. */
  const spooled = (): string[] =>
    readdirSync(c.cluster.dir, { recursive: true, encoding: 'utf8' }).filter((name) => /\/spool\/./.test(name));

  /** The most memory that each proxy has ever used, in MB. */
  const peaks = (): number[] =>
    c.clients.map((_, i) => {
      const status = readFileSync(`/proc/${c.cluster.node(i + 1).pids.proxy}/status`, 'utf8');
      return Math.round(Number(/VmHWM:\s+(\d+) kB/.exec(status)![1]) / 1024);
    });

  async function measured(what: string, megabytes: number, work: () => Promise<unknown>): Promise<void> {
    const begun = performance.now();
    await work();
    const seconds = (performance.now() - begun) / 1000;
    const rate = (megabytes / seconds).toFixed(1);
    console.log(`${what}: ${seconds.toFixed(1)} s, ${rate} MB/s, peak RSS of the proxies ${peaks().join(', ')} MB`);
    for (const peak of peaks()) expect(peak).toBeLessThan(MAX_RSS_MB);
  }

  function* copyData(rows: number): Generator<Buffer> {
    const filler = 'x'.repeat(ROW_BYTES - 20);
    for (let first = 0; first < rows; first += 500) {
      const lines: string[] = [];
      for (let i = first; i < Math.min(first + 500, rows); i++) lines.push(`${i}\t${i % 100}\t${filler}\n`);
      yield Buffer.from(lines.join(''));
    }
  }

  const count = async (where = 'true'): Promise<number> =>
    Number((await c.rows(`SELECT count(*) FROM large WHERE ${where}`))[0][0]);

  it('copies', { timeout: TIMEOUT }, async () => {
    let most = 0;
    const watch = setInterval(() => (most = Math.max(most, spooled().length)), 100);
    await measured('COPY', SIZE, () => c.copyIn(1, 'COPY large FROM STDIN', copyData(ROWS)));
    clearInterval(watch);
    expect(most).toBeGreaterThan(0);
    expect(await count()).toBe(ROWS);
    await c.expectSame(120_000);
  });

  it('inserts what a query gives, where there is no key', { timeout: TIMEOUT }, async () => {
    const rows = Math.round(ROWS / 2);
    const sql = `INSERT INTO large_bag SELECT i % 1000, repeat('y', ${ROW_BYTES - 20}) FROM generate_series(1, ${rows}) i`;
    await measured('INSERT … SELECT', SIZE / 2, () => c.on(2, sql));
    await c.expectSame(120_000);
    await c.run('TRUNCATE large_bag');
  });

  it('updates every other row', { timeout: TIMEOUT * 2 }, async () => {
    const sql = `UPDATE large SET n = n + 1, v = 'z' || substr(v, 2) WHERE id % 2 = 0`;
    await measured('UPDATE', SIZE / 2, () => c.on(3, sql));
    expect(await count(`v LIKE 'z%'`)).toBe(ROWS / 2);
    await c.expectSame(120_000);
  });

  it('deletes and inserts in many subtransactions', { timeout: TIMEOUT }, async () => {
    await c.on(
      1,
      `DO $$ BEGIN FOR i IN 1..20000 LOOP BEGIN
         DELETE FROM large WHERE id = i; INSERT INTO large VALUES (-i, i, 'sub');
         IF i % 10 = 0 THEN RAISE EXCEPTION 'undo'; END IF;
       EXCEPTION WHEN raise_exception THEN NULL; END; END LOOP; END $$`,
    );
    expect(await count(`v = 'sub'`)).toBe(18_000);
    await c.expectSame(120_000);
  });

  it('leaves nothing of a transaction whose client is gone half way', { timeout: TIMEOUT }, async () => {
    const client = await c.connect(1);
    await client.query('BEGIN');
    await client.query(
      `INSERT INTO large SELECT -i, 0, repeat('g', 180) FROM generate_series(1000000, ${1_000_000 + ROWS / 2}) i`,
    );
    (client as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy();
    const doomed = c.copyIn(
      2,
      'COPY large FROM STDIN',
      (function* () {
        yield Buffer.from('-2000000\t0\tx\n');
        yield* copyData(ROWS / 2);
      })(),
    );
    await expect(doomed).rejects.toThrow('duplicate key');
    expect(await count('id < -100000')).toBe(0);
    await c.run(`INSERT INTO large VALUES (-1000000, 0, 'free')`);
    await c.expectSame(120_000);
  });

  it('leaves nothing of one that lost a conflict', { timeout: TIMEOUT }, async () => {
    const client = await c.connect(1);
    await client.query('BEGIN');
    await client.query(
      `INSERT INTO large SELECT -i, 0, repeat('l', 180) FROM generate_series(3000000, ${3_000_000 + ROWS / 4}) i`,
    );
    // Its replay finds the large one in its way, which is not prepared yet.
    await c.on(2, `INSERT INTO large VALUES (-3000001, 0, 'won')`);
    await expect(client.query('COMMIT')).rejects.toMatchObject({ code: '40001' });
    await client.query('ROLLBACK');
    await client.end();
    expect(await count('id <= -3000000')).toBe(1);
    await c.expectSame(120_000);
  });

  it('lets large transactions of all nodes pass at once', { timeout: TIMEOUT * 2 }, async () => {
    const each = Math.round(ROWS / 8);
    await measured('three at once', (SIZE / 8) * 3, () =>
      Promise.all(
        [1, 2, 3].map((node) => {
          const first = 10_000_000 * node;
          return c.on(
            node,
            `INSERT INTO large SELECT i, ${node}, repeat('p', 180) FROM generate_series(${first}, ${first + each - 1}) i`,
          );
        }),
      ),
    );
    expect(await count('id >= 10000000')).toBe(each * 3);
    await c.expectSame(120_000);
  });
});
