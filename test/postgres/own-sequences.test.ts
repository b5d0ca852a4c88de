import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type pg from 'pg';
import { afterAll, afterEach, beforeAll, beforeEach, expect, it } from 'vitest';
import { installCatalog } from '../../src/catalog/install.ts';
import { OwnSequences } from '../../src/cli/run/own-sequences.ts';
import { ControlClient } from '../../src/replication/control-client.ts';
import { startPostgres } from '../support/postgres.ts';
import type { TestPostgres } from '../support/postgres.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';

const NODE = 2;
let server: TestPostgres;
let client: pg.Client;
let dataDir: string;
let sequences: OwnSequences;

beforeAll(async () => {
  server = await startPostgres({ settings: { fsync: 'off' } });
});
afterAll(() => server.stop());

/** A database of node 2, whose sequences are as they are in no copy. */
beforeEach(async () => {
  const admin = await server.connect();
  await admin.query('DROP DATABASE IF EXISTS app WITH (FORCE)');
  await admin.query('CREATE DATABASE app');
  await admin.end();
  client = await server.connect({ database: 'app' });
  await client.query('SET session_replication_role = replica');
  await client.query('CREATE SEQUENCE s; CREATE SEQUENCE near MAXVALUE 40; CREATE SEQUENCE round CYCLE MAXVALUE 1000');
  await installCatalog(client, { nodeId: NODE, stride: 16 });
  dataDir = makeTempDir('sequences');
  sequences = new OwnSequences({ dataDir, databases: ['app'], node: NODE }, async (database) => {
    const control = new ControlClient({
      ...{ host: server.host, port: server.port, user: 'postgres', database, applicationName: 'test' },
    });
    await control.connect();
    return control;
  });
});
afterEach(async () => {
  await client.end();
  removeTempDir(dataDir);
});

async function take(sequence: string, count = 1): Promise<number> {
  const { rows } = await client.query<{ v: string }>(
    `SELECT nextval('${sequence}') AS v FROM generate_series(1, ${count})`,
  );
  return Number(rows.at(-1)?.v);
}

/** As in a copy of node 1. */
async function copied(...statements: string[]): Promise<void> {
  await installCatalog(client, { nodeId: 1, stride: 16 });
  await client.query('DROP SEQUENCE s, near, round');
  await client.query('CREATE SEQUENCE s; CREATE SEQUENCE near MAXVALUE 40; CREATE SEQUENCE round CYCLE MAXVALUE 1000');
  for (const statement of statements) await client.query(statement);
}

const becomeOwn = () => installCatalog(client, { nodeId: NODE, stride: 16 });

it('are noted before the data go, and again without harm when the copy is in their place', async () => {
  expect(await take('s', 100)).toBe(2 + 16 * 99);
  await sequences.note();
  await copied(`SELECT setval('s', 17)`);
  await sequences.note();
  await sequences.goBeyond();
  await sequences.goBeyond();
  await becomeOwn();
  expect(await take('s')).toBe(2 + 16 * 100);
  // Now it is this node's own, as that of a logical copy is from the beginning.
  await sequences.goBeyond();
  expect(await take('s')).toBe(2 + 16 * 101);
  await sequences.forget();
  expect(() => readFileSync(join(dataDir, 'sequences.json'))).toThrow('ENOENT');
});

it('stay where the cluster has put them since, if that is further', async () => {
  await take('s', 100);
  await sequences.note();
  await copied('ALTER SEQUENCE s RESTART WITH 5000');
  await sequences.goBeyond();
  await becomeOwn();
  expect(await take('s')).toBe(5010);
});

it('are at their end when all values of the node have been handed out', async () => {
  expect(await take('near', 3)).toBe(34);
  expect(await take('round', 50)).toBeLessThan(1000);
  await sequences.note();
  await copied('ALTER SEQUENCE near MAXVALUE 34', 'DROP SEQUENCE s');
  await sequences.goBeyond();
  await becomeOwn();
  await expect(take('near')).rejects.toThrow('reached maximum value');
  expect(await take('round')).toBe(2);
});

it('have the class of a definition that is another one by now', async () => {
  await take('s', 100);
  await sequences.note();
  await client.query('ALTER SEQUENCE s INCREMENT BY 3 RESTART WITH 1');
  await sequences.goBeyond();
  const value = await take('s');
  expect(value).toBeGreaterThan(2 + 16 * 99);
  expect(value % 48).toBe(4);
});
