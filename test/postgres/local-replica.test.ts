import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { formatGid } from '../../src/commit/gid.ts';
import { LocalReplica, type ReplicaEvents } from '../../src/replication/local-replica.ts';
import { TransactionSpool } from '../../src/replication/spool.ts';
import { epoch, logIndex, nodeId } from '../../src/runtime/ids.ts';
import { createLogger } from '../../src/runtime/log.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';
import { waitFor } from '../support/wait-for.ts';

const NODE = nodeId(1);

describe('the local PostgreSQL', () => {
  let postgres: TestPostgres;
  const directory = makeTempDir('local-replica');

  beforeAll(async () => {
    postgres = await startPostgres();
  });
  afterAll(async () => {
    await postgres.stop();
    removeTempDir(directory);
  });

  async function open(events: Partial<ReplicaEvents>): Promise<LocalReplica> {
    const nothing = () => undefined;
    return new LocalReplica({
      cluster: 'test',
      databases: ['postgres'],
      database: {
        node: NODE,
        server: { host: postgres.host, port: postgres.port, user: 'postgres' },
        secret: 'secret',
        stride: 16,
        apply: { sessions: 1, statementCache: 10 },
        committers: 1,
        directory,
        handedOut: () => logIndex(0),
        retention: { wal: 1 << 30, time: 3_600_000 },
        guard: undefined,
      },
      order: 'strict',
      neededHistory: () => logIndex(0),
      spool: await TransactionSpool.open({ directory: `${directory}/spool`, inline: 1000, memory: 1000 }),
      conflictCheckAfter: 1000,
      log: createLogger('silent'),
      admission: { examine: () => Promise.resolve(), adopt: () => Promise.resolve() },
      isOwn: () => false,
      isAbandoned: () => false,
      victim: nothing,
      events: {
        ...{ up: nothing, down: nothing, committed: nothing, applied: nothing, rolledBack: nothing, blocked: nothing },
        ...{
          decoded: nothing,
          progress: nothing,
          decoding: nothing,
          bypass: nothing,
          unseen: nothing,
          readiness: nothing,
          replayed: nothing,
        },
        ...events,
      },
    });
  }

  it('is not taken for lost when the core finds that something can not be', async () => {
    const broken = new Error('an invariant does not hold');
    const rejected = new Promise((resolve) => {
      // What stops the process is the test's here, and nobody else's.
      const others = process.listeners('unhandledRejection');
      process.removeAllListeners('unhandledRejection');
      process.once('unhandledRejection', (reason) => {
        for (const one of others) process.on('unhandledRejection', one);
        resolve(reason);
      });
    });
    let downs = 0;
    const replica = await open({
      up: () => {
        throw broken;
      },
      down: () => (downs += 1),
    });
    replica.start();
    expect(await rejected).toBe(broken);
    expect(downs).toBe(0);
    await replica.stop();
  });

  it('is left while it does not answer a commit', async () => {
    let up = false;
    const replica = await open({ up: () => (up = true) });
    replica.start();
    await waitFor('it is up', () => up);
    const client = await postgres.connect();
    const gid = formatGid({ cluster: 'test', node: NODE, epoch: epoch(1), sequence: 1, clock: 1 });
    await client.query('BEGIN');
    await client.query(`SELECT pg_logical_emit_message(true, 'pgmm:gid', '${gid}')`);
    await client.query(`PREPARE TRANSACTION '${gid}'`);
    const { rows } = await client.query<{ pid: number }>(
      "SELECT pid FROM pg_stat_activity WHERE application_name LIKE '% committer'",
    );
    const [{ pid }] = rows;
    process.kill(pid, 'SIGSTOP');
    onTestFinished(() => void process.kill(pid, 'SIGCONT'));
    replica.commit({ index: logIndex(1), gid, database: 'postgres', time: 1, dependsOn: logIndex(0), notify: false });
    // By then it is sent.
    await new Promise(setImmediate);
    await replica.stop();
    await client.end();
  });
});
