import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { LocalReplica, type ReplicaEvents } from '../../src/replication/local-replica.ts';
import { TransactionSpool } from '../../src/replication/spool.ts';
import { logIndex, nodeId } from '../../src/runtime/ids.ts';
import { createLogger } from '../../src/runtime/log.ts';
import { startPostgres, type TestPostgres } from '../support/postgres.ts';
import { makeTempDir, removeTempDir } from '../support/temp-dir.ts';

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
});
