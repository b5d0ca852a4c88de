import type { Relation } from '../pgoutput/messages.ts';
import type { RowChange } from '../pgoutput/tuples.ts';
import { quote, tableName, type Statement } from './statements.ts';
import type { ForeignKey, TableInfo } from './table-info.ts';

/** One distinct key whose parent must exist. */
export interface ForeignKeyCheck {
  readonly relation: Relation;
  readonly foreignKey: ForeignKey;
  readonly values: readonly Buffer[];
  /** Finds the parent and takes FOR KEY SHARE on it, as PostgreSQL's own trigger does. */
  readonly statement: Statement;
}

/**
 * Replay fires no triggers, so the child side of foreign keys is checked here: after all rows and before PREPARE, once for
 * each distinct key that was written. The lock matters as much as the answer. A parent that another node's transaction
 * has deleted here and prepared makes the check wait, which is then seen as a conflict. The other way round, where that
 * delete is replayed, the child's own transaction holds the same lock on the parent, and the delete waits.
 */
export class ForeignKeyChecks {
  readonly #checks = new Map<string, ForeignKeyCheck>();

  get size(): number {
    return this.#checks.size;
  }

  /** Forgets all but these. */
  keepOnly(checks: readonly ForeignKeyCheck[]): void {
    const kept = new Set(checks);
    for (const [key, check] of this.#checks) if (!kept.has(check)) this.#checks.delete(key);
  }

  *[Symbol.iterator](): Iterator<ForeignKeyCheck> {
    yield* this.#checks.values();
  }

  add(relation: Relation, info: TableInfo, change: RowChange): void {
    if (change.row === undefined) return;
    for (const foreignKey of info.foreignKeys) {
      const values: Buffer[] = [];
      for (const column of foreignKey.columns) {
        const value = change.row[relation.columns.findIndex(({ name }) => name === column)];
        // MATCH SIMPLE: a NULL needs no parent. A value that was not sent has not changed.
        if (value === null || value === undefined) break;
        values.push(value);
      }
      if (values.length < foreignKey.columns.length) continue;
      const key = [tableName(relation), foreignKey.name, ...values.map((value) => value.toString('latin1'))].join('\0');
      if (!this.#checks.has(key)) {
        this.#checks.set(key, { relation, foreignKey, values, statement: parentLookup(foreignKey, values) });
      }
    }
  }
}

function parentLookup(foreignKey: ForeignKey, values: readonly Buffer[]): Statement {
  const { parentSchema: schema, parent: name, parentPartitioned, parentColumns } = foreignKey;
  const conditions = parentColumns.map((column, i) => `p.${quote(column)} = $${i + 1}`).join(' AND ');
  const only = parentPartitioned ? '' : 'ONLY ';
  return {
    key: `f${foreignKey.name}`,
    sql: `SELECT FROM ${only}${tableName({ schema, name })} p WHERE ${conditions} FOR KEY SHARE OF p`,
    parameters: [...values],
  };
}

/** Whether a child row with this key is left at all: one that the transaction removed again needs no parent. */
export function childLookup({ relation, foreignKey, values }: ForeignKeyCheck): Statement {
  const conditions = foreignKey.columns.map((column, i) => `${quote(column)} = $${i + 1}`).join(' AND ');
  return { key: '', sql: `SELECT FROM ${tableName(relation)} WHERE ${conditions} LIMIT 1`, parameters: [...values] };
}
