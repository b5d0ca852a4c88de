import { PgError } from '../../runtime/errors.ts';
import type { RowChange } from '../pgoutput/tuples.ts';
import { sameValue, type PlacedForeignKey, type Statement, type TableStatements } from './statements.ts';

/** One distinct key whose parent must exist. */
export interface ForeignKeyCheck {
  readonly table: TableStatements;
  readonly placed: PlacedForeignKey;
  readonly values: readonly Buffer[];
}

/** Whether an update gave the foreign key another value: `unknown` where the old row was not sent. */
type Changed = 'yes' | 'no' | 'unknown';

function changed(table: TableStatements, { foreignKey, positions }: PlacedForeignKey, change: RowChange): Changed {
  const { old, row } = change;
  if (change.type === 'insert' || row === undefined) return 'yes';
  let answer: Changed = 'no';
  for (const i of positions) {
    if (i < 0) throw new PgError('42703', `a column of foreign key "${foreignKey.name}" was not sent`);
    const column = table.relation.columns[i];
    // Not sent: a TOASTed value that stayed. Part of the key, and no old key sent: it stayed as well.
    if (row[i] === undefined || (old === undefined && column.key)) continue;
    if (old === undefined || (change.oldIsKey && !column.key)) answer = 'unknown';
    else if (!sameValue(old[i], row[i])) return 'yes';
  }
  return answer;
}

/** Undefined for a key that needs no parent. MATCH FULL's mixture of NULL and values was refused at the origin. */
function keyOf({ foreignKey, positions }: PlacedForeignKey, { row, old }: RowChange): Buffer[] | undefined {
  const values: Buffer[] = [];
  for (const i of positions) {
    const value = row?.[i] === undefined ? old?.[i] : row[i];
    if (value === null) return undefined;
    if (value === undefined) {
      throw new PgError('0A000', `cannot check foreign key "${foreignKey.name}": a large value of it was not sent`);
    }
    values.push(value);
  }
  return values;
}

/**
 * Replay fires no triggers, so the child side of foreign keys is checked here: after all rows and before PREPARE, once for
 * each distinct key that was written. The lock matters as much as the answer: the replay holds FOR KEY SHARE on the parent,
 * as the child's own transaction does where it ran.
 *
 * - A parent that another node's transaction has deleted here and prepared makes the check wait, which is then seen as a
 *   conflict. One whose deletion is committed is missing: 23503.
 * - Where that deletion is replayed and the child's transaction ran, the latter's trigger has locked the parent, so the
 *   DELETE waits: seen as a conflict too.
 * - A child that is committed anywhere was prepared on every member, so its lock was held everywhere. A deletion that
 *   started after that saw the child, in the trigger at its origin. So the parent's side needs no check on replay.
 */
export class ForeignKeyChecks {
  #checks = new Map<string, ForeignKeyCheck>();

  get size(): number {
    return this.#checks.size;
  }

  /** Forgets all but these. */
  keepOnly(checks: readonly ForeignKeyCheck[]): void {
    const kept = new Set(checks);
    this.#checks = new Map([...this.#checks].filter(([, check]) => kept.has(check)));
  }

  [Symbol.iterator](): Iterator<ForeignKeyCheck> {
    return this.#checks.values();
  }

  /**
   * Remembers what a row change has to have checked. Gives statements to be run before it, for updates that don't say
   * whether they change the key, unless `late`: then every key that was written is checked at the end, changed or not.
   */
  add(table: TableStatements, change: RowChange, late: boolean): Statement[] {
    const before: Statement[] = [];
    if (change.row === undefined) return before;
    for (const placed of table.foreignKeys) {
      const answer = changed(table, placed, change);
      if (answer === 'no') continue;
      const values = keyOf(placed, change);
      if (values === undefined) continue;
      if (answer === 'unknown' && !late) before.push(table.keyOrParent(placed, change, values));
      else this.#remember({ table, placed, values });
    }
    return before;
  }

  #remember(check: ForeignKeyCheck): void {
    const { table, placed, values } = check;
    // Lengths keep keys apart whose values hold the separator.
    const parts = values.map((value) => `${value.length}:${value.toString('latin1')}`);
    const key = `${table.name} ${placed.foreignKey.name} ${parts.join(',')}`;
    if (!this.#checks.has(key)) this.#checks.set(key, check);
  }
}

/** As PostgreSQL's own trigger words it (ri_triggers.c, ri_ReportViolation). */
export function foreignKeyViolation({ table, placed: { foreignKey }, values }: ForeignKeyCheck): PgError {
  const { schema, name } = table.relation;
  const key = `(${foreignKey.columns.join(', ')})=(${values.map((value) => value.toString('utf8')).join(', ')})`;
  return new PgError(
    '23503',
    `insert or update on table "${name}" violates foreign key constraint "${foreignKey.name}"`,
    {
      detail: `Key ${key} is not present in table "${foreignKey.parent}".`,
      fields: { s: schema, t: name, n: foreignKey.name },
    },
  );
}
