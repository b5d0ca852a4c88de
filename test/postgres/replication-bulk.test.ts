import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { installedBin } from '../support/postgres.ts';
import { ReplicationPair } from './replication-pair.ts';

const versions = [
  { name: '15', bin: installedBin },
  { name: '18', bin: undefined },
].filter(({ name, bin }) => name === '18' || bin !== undefined);

const MB = 1 << 20;

describe.each(versions)('replay of large transactions, PostgreSQL $name', ({ name, bin }) => {
  let pair: ReplicationPair;
  beforeAll(async () => {
    pair = await ReplicationPair.start({ originBin: bin, targetBin: bin });
    await pair.both(`CREATE TABLE big (id int PRIMARY KEY, a int, v text);
      CREATE TABLE parent (id int PRIMARY KEY); INSERT INTO parent SELECT g FROM generate_series(0, 99) g;
      CREATE TABLE child (id int PRIMARY KEY, p int REFERENCES parent, note text)`);
  });
  afterAll(() => pair.stop());

  /** Count and sum of hashes: as good as comparing the rows, and quicker. */
  async function expectSame(table: string): Promise<number> {
    const sql = `SELECT count(*)::int AS n, sum(hashtextextended(t::text, 0))::text AS hash FROM ${table} t`;
    const [a, b] = await Promise.all([pair.a, pair.b].map((c) => c.query<{ n: number; hash: string }>(sql)));
    expect(b.rows).toEqual(a.rows);
    return a.rows[0].n;
  }

  /** Replays, and says how fast and with how much memory at the most. */
  async function measure(what: string, ...statements: string[]): Promise<void> {
    const gid = await pair.prepare(statements);
    const source = await pair.decoded(gid);
    const { memory, disk } = pair.spool.usage;
    const before = process.memoryUsage().rss;
    let most = before;
    const timer = setInterval(() => (most = Math.max(most, process.memoryUsage().rss)), 20);
    const cpu = process.cpuUsage();
    const begun = performance.now();
    const result = await pair.session.apply(gid, source);
    const seconds = (performance.now() - begun) / 1000;
    clearInterval(timer);
    const used = process.cpuUsage(cpu);
    if (result.type !== 'prepared') throw result.error;
    await pair.commit(gid);
    const size = (memory + disk) / MB;
    const growth = (most - before) / MB;
    const own = (used.user + used.system) / 1e6;
    console.log(
      `${name} ${what}: ${result.rows} rows, ${size.toFixed(0)} MB in ${seconds.toFixed(1)} s (${(size / seconds).toFixed(0)} MB/s, ${(result.rows / seconds / 1000).toFixed(0)} k rows/s), own CPU ${own.toFixed(1)} s, RSS +${growth.toFixed(0)} MB`,
    );
    // Garbage that is not collected yet included; a transaction of 200 MB fits in no such limit by accident.
    expect(growth).toBeLessThan(180);
  }

  it('keeps memory bounded for 200 MB of inserts, for updates and deletes', async () => {
    // Once is enough: the server's version makes no difference to this side's memory.
    const rows = bin === undefined ? 900_000 : 100_000;
    await measure('insert', `INSERT INTO big SELECT g, g, repeat(md5(g::text), 6) FROM generate_series(1, ${rows}) g`);
    expect(await expectSame('big')).toBe(rows);
    await measure('update', 'UPDATE big SET a = a + 1 WHERE id <= 100000');
    await measure('delete', 'DELETE FROM big WHERE id <= 50000');
    expect(await expectSame('big')).toBe(rows - 50_000);
  });

  it('checks a large child’s keys once each', async () => {
    await measure('children', `INSERT INTO child SELECT g, g % 100, 'x' FROM generate_series(1, 100000) g`);
    await measure('children updated', `UPDATE child SET note = 'y'`);
    await expectSame('child');
  });

  it('carries values of many megabytes, and what COPY has to escape', async () => {
    await measure(
      'large values',
      `INSERT INTO big SELECT -g, g, repeat(E'\\\\\\t\\n\\r\\b\\x01é', 2000000) FROM generate_series(1, 6) g`,
    );
    await measure(
      'escapes',
      `INSERT INTO big SELECT 1000000 + g, NULLIF(g % 3, 0), CASE g % 5 WHEN 0 THEN NULL WHEN 1 THEN '' WHEN 2 THEN '\\N' WHEN 3 THEN '\\.' ELSE E'a\\tb\\\\c\\nd' END FROM generate_series(1, 50000) g`,
    );
    await expectSame('big');
  });
});
