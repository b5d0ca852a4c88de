import type { CommitConnection } from '../commit/committer.ts';
import type { DecidedCommit } from '../commit/core/commit-queue.ts';
import type { PgError } from '../runtime/errors.ts';
import { formatLsn, lsn, type LogIndex } from '../runtime/ids.ts';
import { literal } from '../runtime/sql-text.ts';
import { Backend } from '../wire/codes.ts';
import type { ServerConnection } from '../wire/connection.ts';
import { FrontendWriter } from '../wire/frontend.ts';

/** Statements per entry in the pipeline below; the last one is COMMIT PREPARED. */
const STATEMENTS = 4;

/** Prepared once: parsing them for every commit costs a tenth of all that PostgreSQL does for it. */
const STATEMENT_TEXTS = {
  begin: 'BEGIN',
  setup:
    'SELECT pg_catalog.pg_replication_origin_xact_setup($1::pg_catalog.pg_lsn, pg_catalog.to_timestamp($2::pg_catalog.float8))',
  commit: 'COMMIT',
};

/**
 * The connection that commits in one database. Its replication origin's position is the log index, which PostgreSQL stores
 * with the commit record: what is committed is known exactly after any crash (I7).
 */
export class OriginCommitConnection implements CommitConnection {
  readonly #connection: ServerConnection;
  readonly #writer = new FrontendWriter();
  #parsed = false;

  /** The connection must hold the origin already. */
  constructor(connection: ServerConnection) {
    this.#connection = connection;
  }

  /**
   * One pipeline with a single Sync, so that the first error stops all that follows. COMMIT PREPARED may not follow another
   * statement in a pipeline unless that ended its transaction, hence BEGIN and COMMIT around the call.
   */
  commit(entries: readonly DecidedCommit[], done: (index: LogIndex) => void): Promise<void> {
    if (!this.#parsed) {
      this.#parsed = true;
      for (const [name, sql] of Object.entries(STATEMENT_TEXTS)) this.#writer.parse(name, sql);
    }
    for (const { index, gid, time } of entries) {
      const position = Buffer.from(formatLsn(lsn(BigInt(index))));
      this.#writer.bind('begin', []).execute();
      this.#writer.bind('setup', [position, Buffer.from(String(time / 1000))]).execute();
      this.#writer.bind('commit', []).execute();
      this.#writer.run(`COMMIT PREPARED ${literal(gid)}`);
      // Without it the answers would wait for the Sync, and the first client for the last commit.
      if (entries.length > 1) this.#writer.flush();
    }
    this.#writer.sync();
    return new Promise((resolve, reject) => {
      let completed = 0;
      this.#connection.request(this.#writer.take(), {
        message: (type) => {
          if (type !== Backend.commandComplete) return;
          completed += 1;
          if (completed % STATEMENTS === 0) done(entries[completed / STATEMENTS - 1].index);
        },
        done: (error: PgError | undefined) => (error === undefined ? resolve() : reject(error)),
      });
    });
  }
}
