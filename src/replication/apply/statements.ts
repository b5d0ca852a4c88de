import type { Relation } from '../pgoutput/messages.ts';
import type { RowChange, Tuple, Value } from '../pgoutput/tuples.ts';
import type { TableInfo } from './table-info.ts';

/** A statement and its parameters in text format. */
export interface Statement {
  /** Tells it from every other statement of the same table. */
  readonly key: string;
  readonly sql: string;
  readonly parameters: Buffer[] | (Buffer | null)[];
}

export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;

export const tableName = (relation: { schema: string; name: string }): string =>
  `${quote(relation.schema)}.${quote(relation.name)}`;

/** Collects parameters and gives their placeholders. */
class Parameters {
  readonly values: (Buffer | null)[] = [];

  add(value: Value): string {
    this.values.push(value ?? null);
    return `$${this.values.length}`;
  }
}

/**
 * Writes row changes as statements on the local table: found by name, as ids differ from node to node. Every value comes
 * as text and takes the column's type, so only the same columns have to exist on both sides.
 */
export class TableStatements {
  readonly relation: Relation;
  readonly info: TableInfo;
  readonly #table: string;
  readonly #sql = new Map<string, string>();
  /** GENERATED ALWAYS AS IDENTITY outside the key: whether an UPDATE changed it isn't said. */
  readonly #hiddenIdentity: boolean;
  /** Positions of the columns that replay writes: what the server generates, it generates here too. */
  readonly writtenColumns: number[];

  constructor(relation: Relation, info: TableInfo) {
    this.relation = relation;
    this.info = info;
    this.#table = tableName(relation);
    this.writtenColumns = relation.columns.flatMap(({ name }, i) => (info.columns.get(name)?.generated === true ? [] : [i]));
    this.#hiddenIdentity = relation.columns.some((column) => !column.key && this.#always(column.name));
  }

  #always(column: string): boolean {
    return this.info.columns.get(column)?.identityAlways ?? false;
  }

  /** The statements that carry out a change; two for an update that only a delete and an insert can do. */
  build(change: RowChange, replaceRows: boolean): Statement[] {
    const { old, row } = change;
    if (change.type === 'insert' && row !== undefined) return [this.#insert(row)];
    if (change.type === 'delete' && old !== undefined) return [this.#delete(old, change.oldIsKey)];
    if (row === undefined) throw new Error(`${change.type} without a row on ${this.#table}`);
    const before = old ?? row;
    const identityChanged = this.relation.columns.some(
      ({ name, key }, i) => key && old !== undefined && this.#always(name) && !sameValue(old[i], row[i]),
    );
    if (identityChanged || (replaceRows && this.#hiddenIdentity)) {
      // UPDATE may not set such a column. Nothing is TOASTed out of reach here only if the whole row was sent.
      if (row.includes(undefined)) throw new Error(`cannot replay an identity change on ${this.#table}: a value was not sent`);
      return [this.#delete(before, old === undefined || change.oldIsKey), this.#insert(row)];
    }
    return [this.#update(before, row, old === undefined || change.oldIsKey)];
  }

  #insert(row: Tuple): Statement {
    const columns = this.writtenColumns;
    const parameters = columns.map((i) => row[i] ?? null);
    return { key: 'i', sql: this.#once('i', () => this.#insertSql(columns)), parameters };
  }

  #insertSql(columns: readonly number[]): string {
    if (columns.length === 0) return `INSERT INTO ${this.#table} DEFAULT VALUES`;
    const names = columns.map((i) => quote(this.relation.columns[i].name)).join(', ');
    const values = columns.map((_, at) => `$${at + 1}`).join(', ');
    return `INSERT INTO ${this.#table} (${names}) OVERRIDING SYSTEM VALUE VALUES (${values})`;
  }

  #update(before: Tuple, row: Tuple, byKey: boolean): Statement {
    const parameters = new Parameters();
    const written = this.writtenColumns.filter((i) => row[i] !== undefined && !this.#always(this.relation.columns[i].name));
    const sent = written.map((i) => parameters.add(row[i]));
    const { condition, shape } = this.#match(before, byKey, parameters, byKey ? row : undefined);
    const key = `u${byKey ? 'k' : 'f'}${written.join(',')};${shape}`;
    return {
      key,
      sql: this.#once(key, () => {
        const set = written.map((i, at) => `${quote(this.relation.columns[i].name)} = ${sent[at]}`);
        // Only an identity column is left: the row itself stays as it is, but it has to be there.
        if (set.length === 0) return `SELECT FROM ${this.#table} WHERE ${condition} FOR UPDATE`;
        return `UPDATE ${this.#table} SET ${set.join(', ')} WHERE ${condition}`;
      }),
      parameters: parameters.values,
    };
  }

  #delete(before: Tuple, byKey: boolean): Statement {
    const parameters = new Parameters();
    const { condition, shape } = this.#match(before, byKey, parameters, undefined);
    const key = `d${byKey ? 'k' : 'f'}${shape}`;
    return {
      key,
      sql: this.#once(key, () => `DELETE FROM ${this.#table} WHERE ${condition}`),
      parameters: parameters.values,
    };
  }

  /** Finds exactly one row: by the key, or, under identity FULL, one of those whose image is the same. */
  #match(before: Tuple, byKey: boolean, parameters: Parameters, updated: Tuple | undefined): { condition: string; shape: string } {
    return byKey ? this.#matchKey(before, parameters, updated) : this.#matchImage(before, parameters);
  }

  #matchKey(before: Tuple, parameters: Parameters, updated: Tuple | undefined): { condition: string; shape: string } {
    const conditions: string[] = [];
    this.relation.columns.forEach(({ name, key }, i) => {
      if (key) conditions.push(`${quote(name)} = ${parameters.add(before[i])}`);
      // A changed identity shows as a missing row; the caller then replaces rows instead.
      else if (updated?.[i] && this.#always(name)) conditions.push(`${quote(name)} = ${parameters.add(updated[i])}`);
    });
    if (conditions.length === 0) throw new Error(`${this.#table} has no replica identity`);
    return { condition: conditions.join(' AND '), shape: '' };
  }

  #matchImage(before: Tuple, parameters: Parameters): { condition: string; shape: string } {
    const names: string[] = [];
    const values: string[] = [];
    const lookups: string[] = [];
    let shape = '';
    for (const i of this.writtenColumns) {
      const { name } = this.relation.columns[i];
      const column = this.info.columns.get(name);
      if (column === undefined) throw new Error(`column "${name}" of ${this.#table} does not exist on this node`);
      const placeholder = `${parameters.add(before[i])}::${column.type}`;
      names.push(`t.${quote(name)}`);
      values.push(placeholder);
      if (!column.indexed) continue;
      lookups.push(before[i] === null ? `t.${quote(name)} IS NULL` : `t.${quote(name)} = ${placeholder}`);
      shape += before[i] === null ? 'n' : 'v';
    }
    const image = `ROW(${names.join(', ')}) OPERATOR(pg_catalog.*=) ROW(${values.join(', ')})`;
    const where = [...lookups, image].join(' AND ');
    return { condition: `ctid = (SELECT t.ctid FROM ${this.#table} t WHERE ${where} LIMIT 1)`, shape };
  }

  #once(key: string, write: () => string): string {
    let sql = this.#sql.get(key);
    if (sql === undefined) this.#sql.set(key, (sql = write()));
    return sql;
  }
}

function sameValue(a: Value, b: Value): boolean {
  return a === b || (Buffer.isBuffer(a) && Buffer.isBuffer(b) && a.equals(b));
}
