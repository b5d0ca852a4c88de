import { Command } from 'commander';
import { parseGid } from '../commit/gid.ts';
import { forgetBypasses } from '../cluster/bypass-record.ts';
import { IdentityFile, judgePostgres, newIdentity } from '../cluster/identity.ts';
import { loadConfig } from '../config/load.ts';
import { clientConfig } from '../config/client-config.ts';
import { ControlClient } from '../replication/control-client.ts';
import { forgetSlots } from '../replication/database-slots.ts';
import { literal } from '../runtime/sql-text.ts';
import { markPostgres, readPostgresIdentity } from '../replication/postgres-identity.ts';
import type { Config } from '../config/schema.ts';
import { lockDirectory } from '../runtime/directory-lock.ts';
import { logIndex } from '../runtime/ids.ts';
import { OwnSequences } from './run/own-sequences.ts';

interface Options {
  readonly config: string;
  readonly lostLog?: true;
}

/** `pgmm adopt`: an operator's word that this PostgreSQL, or an empty decision log, is from now on this node's. */
export function adoptCommand(print: (line: string) => void = console.log): Command {
  return new Command('adopt')
    .description(
      "take the PostgreSQL that is there for this node's own, after it was copied from another node; with the proxy stopped",
    )
    .requiredOption('--config <file>', 'the configuration file')
    .option('--lost-log', 'the decision log is lost: begin with an empty one (read docs/identity.md first)')
    .action(async ({ config, lostLog }: Options) => {
      for (const line of await adopt(loadConfig(config), lostLog === true)) print(line);
    });
}

/** Gives what was done, as lines. */
async function adopt(config: Config, lostLog: boolean): Promise<string[]> {
  const release = lockDirectory(config.dataDir);
  try {
    return await takeIn(config, lostLog);
  } finally {
    release();
  }
}

/** The same for a process that has `data_dir` for itself already. */
export async function takeIn(config: Config, lostLog: boolean): Promise<string[]> {
  const file = new IdentityFile(config.dataDir);
  const before = file.current;
  if (before === undefined && !lostLog)
    throw new Error(`there is no identity in ${config.dataDir}: if its decision log is lost, give --lost-log`);
  const { name } = config.cluster;
  // What is remembered of the others stays true.
  const fresh = { ...newIdentity(name, config.node), peers: before?.peers ?? {} };
  const identity = lostLog || before === undefined ? fresh : { ...before, postgres: null };
  const sequences = new OwnSequences(config, (database) => connect(config, database));
  const client = await connect(config);
  try {
    const found = await readPostgresIdentity(client);
    const marked = { ...found, mark: { cluster: name, node: config.node, log: identity.log } };
    const refused = judgePostgres(identity, false, marked, logIndex(Number.MAX_SAFE_INTEGER));
    if (refused !== undefined) throw new Error(refused.reason);
    if (found.mark === undefined)
      throw new Error('this PostgreSQL has never been part of a cluster: there is nothing in it to go on from');
    if (found.mark.cluster !== name) throw new Error(`this PostgreSQL belongs to cluster "${found.mark.cluster}"`);
    if (found.mark.node !== config.node) {
      await dropPrepared(config);
      await sequences.goBeyond();
      forgetBypasses(config.dataDir);
      forgetSlots(config.dataDir);
    }
    await client.ask('BEGIN');
    await client.ask('SET LOCAL session_replication_role = replica');
    await markPostgres(client, marked.mark);
    await file.save(identity);
    await client.ask('COMMIT');
    await sequences.forget();
    const from = found.mark.node === config.node ? 'its own earlier data' : `a copy of node ${found.mark.node}`;
    return [
      `node ${config.node} goes on with ${from}, which has committed entry ${found.committed}; start the proxy now`,
    ];
  } finally {
    await client.end();
  }
}

/**
 * A copy has what was prepared on the other node at that moment. This node has voted for none of it: what the log commits of it is fetched from
 * others as a whole, and until then it would only stand in the way, of new replication slots above all.
 */
async function dropPrepared(config: Config): Promise<void> {
  for (const database of config.databases) {
    const client = await connect(config, database);
    try {
      const { rows } = await client.ask<{ gid: string }>(
        'SELECT gid FROM pg_catalog.pg_prepared_xacts WHERE database = pg_catalog.current_database()',
      );
      for (const { gid } of rows)
        if (parseGid(gid)?.cluster === config.cluster.name) await client.ask(`ROLLBACK PREPARED ${literal(gid)}`);
    } finally {
      await client.end();
    }
  }
}

export async function connect(config: Config, database = config.databases[0]): Promise<ControlClient> {
  const { host, port, user, password, ssl } = clientConfig(config.postgres);
  const client = new ControlClient({
    host: host ?? config.postgres.host,
    port: port ?? config.postgres.port,
    user: user ?? config.postgres.user,
    password: typeof password === 'string' ? password : undefined,
    ssl,
    database,
    applicationName: 'pgmm adopt',
  });
  await client.connect();
  return client;
}
