import { quote } from '../../runtime/sql-text.ts';
import type { Relation } from '../pgoutput/messages.ts';
import type { RowChange, Tuple, Value } from '../pgoutput/tuples.ts';
import type { ColumnInfo, ForeignKey, TableInfo } from './table-info.ts';

/** A statement and its parameters in text format. */
export interface Statement {
  /** Tells it from every other statement of the same session. */
  readonly key: string;
  readonly sql: string;
  readonly parameters: readonly (Buffer | null)[];
}

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

/** How a row is found; `shape` tells apart the conditions that one table can need. Written only when it's first needed. */
interface Match {
  readonly shape: string;
  readonly condition: () => string;
}

/** A foreign key with the places of its columns in the rows that arrive. */
export interface PlacedForeignKey {
  readonly foreignKey: ForeignKey;
  readonly positions: readonly number[];
  readonly types: readonly string[];
}

/**
 * Writes row changes as statements on the local table: found by name, as ids differ from node to node. Every value comes
 * as text and takes the column's type, so only the same columns have to exist on both sides.
 */
export class TableStatements {
  readonly relation: Relation;
  readonly info: TableInfo;
  readonly name: string;
  readonly foreignKeys: readonly PlacedForeignKey[];
  /** Positions of the columns that replay writes: what the server generates, it generates here too. */
  readonly writtenColumns: readonly number[];
  readonly #keyColumns: readonly number[];
  readonly #sql = new Map<string, string>();
  readonly #prefix: string;
  /** GENERATED ALWAYS AS IDENTITY outside the key: whether an UPDATE changed it isn't said. */
  readonly #hiddenIdentity: readonly number[];
  readonly #identityKey: readonly number[];

  /** `id` tells it from other tables, and from other definitions of the same one. */
  constructor(relation: Relation, info: TableInfo, id: string) {
    this.relation = relation;
    this.info = info;
    this.name = tableName(relation);
    this.#prefix = `${id} `;
    const places = relation.columns.map((_, i) => i);
    this.writtenColumns = places.filter((i) => this.#column(i)?.generated !== true);
    this.#keyColumns = places.filter((i) => relation.columns[i].key);
    const always = places.filter((i) => this.#column(i)?.identityAlways === true);
    this.#hiddenIdentity = always.filter((i) => !relation.columns[i].key);
    this.#identityKey = always.filter((i) => relation.columns[i].key);
    this.foreignKeys = info.foreignKeys.map((foreignKey) => {
      const positions = foreignKey.columns.map((name) => relation.columns.findIndex((column) => column.name === name));
      return { foreignKey, positions, types: positions.map((i) => this.#column(i)?.type ?? 'pg_catalog.text') };
    });
  }

  #column(i: number): ColumnInfo | undefined {
    return i < 0 ? undefined : this.info.columns.get(this.relation.columns[i].name);
  }

  #cast(i: number): string {
    const column = this.#column(i);
    return column === undefined ? '' : `::${column.type}`;
  }

  #quoted(i: number): string {
    return quote(this.relation.columns[i].name);
  }

  /**
   * The statement that carries out a change. `careful` makes an UPDATE of a table with an identity column outside its key a
   * DELETE and INSERT, which is the only way to set one, and finds rows without a key by their text where nothing else does.
   */
  build(change: RowChange, careful: boolean): Statement {
    const { old, row } = change;
    if (change.type === 'delete') {
      if (old === undefined) throw new Error(`delete without the old row on ${this.name}`);
      return this.#delete(old, change.oldIsKey, careful);
    }
    if (row === undefined) throw new Error(`${change.type} without a row on ${this.name}`);
    if (change.type === 'insert') return this.#insert(row);
    const byKey = old === undefined || change.oldIsKey;
    const identityChanged = old !== undefined && this.#identityKey.some((i) => !sameValue(old[i], row[i]));
    if (identityChanged || (careful && this.#hiddenIdentity.length > 0))
      return this.#replace(old ?? row, row, byKey, careful);
    return this.#update(old ?? row, row, byKey, careful);
  }

  #insert(row: Tuple): Statement {
    const columns = this.writtenColumns;
    const parameters = columns.map((i) => row[i] ?? null);
    return this.#statement('i', parameters, () => this.#insertSql());
  }

  #insertSql(): string {
    const columns = this.writtenColumns;
    if (columns.length === 0) return `INSERT INTO ${this.name} DEFAULT VALUES`;
    const names = columns.map((i) => this.#quoted(i)).join(', ');
    const values = columns.map((_, at) => `$${at + 1}`).join(', ');
    return `INSERT INTO ${this.name} (${names}) OVERRIDING SYSTEM VALUE VALUES (${values})`;
  }

  #update(before: Tuple, row: Tuple, byKey: boolean, careful: boolean): Statement {
    const parameters = new Parameters();
    const written = this.writtenColumns.filter((i) => row[i] !== undefined && !this.#always(i));
    const sent = written.map((i) => parameters.add(row[i]));
    const { condition, shape } = this.match(before, byKey, parameters, careful);
    // A changed identity shows as a missing row; the caller then replaces rows instead.
    const unchanged = this.#hiddenIdentity.map((i) => `${this.#quoted(i)} = ${parameters.add(row[i])}`);
    const complete = written.length === this.writtenColumns.length;
    return this.#statement(`u${complete ? '' : written.join(',')};${shape}`, parameters.values, () => {
      const where = [condition(), ...unchanged].join(' AND ');
      const set = written.map((i, at) => `${this.#quoted(i)} = ${sent[at]}`);
      // Only an identity column is left: the row itself stays as it is, but it has to be there.
      if (set.length === 0) return `SELECT FROM ONLY ${this.name} WHERE ${where} FOR UPDATE`;
      return `UPDATE ONLY ${this.name} SET ${set.join(', ')} WHERE ${where}`;
    });
  }

  #always(i: number): boolean {
    return this.#hiddenIdentity.includes(i) || this.#identityKey.includes(i);
  }

  /** The same row anew; a value that was not sent is taken from the deleted one. */
  #replace(before: Tuple, row: Tuple, byKey: boolean, careful: boolean): Statement {
    const parameters = new Parameters();
    const { condition, shape } = this.match(before, byKey, parameters, careful);
    const columns = this.writtenColumns;
    const values = columns.map((i) => {
      if (row[i] === undefined) return `d.${this.#quoted(i)}`;
      return `${parameters.add(row[i])}::${this.#column(i)?.type ?? 'pg_catalog.text'}`;
    });
    const unsent = columns.filter((i) => row[i] === undefined);
    return this.#statement(`r${unsent.join(',')};${shape}`, parameters.values, () => {
      const names = columns.map((i) => this.#quoted(i)).join(', ');
      return `WITH d AS (DELETE FROM ONLY ${this.name} WHERE ${condition()} RETURNING *)
        INSERT INTO ${this.name} (${names}) OVERRIDING SYSTEM VALUE SELECT ${values.join(', ')} FROM d`;
    });
  }

  #delete(before: Tuple, byKey: boolean, careful: boolean): Statement {
    const parameters = new Parameters();
    const { condition, shape } = this.match(before, byKey, parameters, careful);
    return this.#statement(`d${shape}`, parameters.values, () => `DELETE FROM ONLY ${this.name} WHERE ${condition()}`);
  }

  /**
   * Finds the row, without a key, that an update will change, if its foreign key is still the new one; else its parent. Says
   * found for both, so that a parent is locked only when PostgreSQL's own trigger would have locked it.
   */
  keyOrParent(placed: PlacedForeignKey, change: RowChange, values: readonly Buffer[]): Statement {
    const parameters = new Parameters();
    const { condition, shape } = this.match(
      change.old ?? change.row ?? [],
      change.old === undefined || change.oldIsKey,
      parameters,
    );
    const sent = values.map((value) => parameters.add(value));
    return this.#statement(`k${placed.foreignKey.name};${shape}`, parameters.values, () => {
      const columns = placed.positions.map((i) => this.#quoted(i)).join(', ');
      const image = sent.map((value, at) => `${value}::${placed.types[at]}`).join(', ');
      return `SELECT WHERE CASE WHEN EXISTS (SELECT FROM ONLY ${this.name} WHERE ${condition()}
          AND ROW(${columns})::record OPERATOR(pg_catalog.*=) ROW(${image})::record) THEN true
        ELSE EXISTS (${parentSql(placed, sent)}) END`;
    });
  }

  /** Finds the parent and takes FOR KEY SHARE on it, as PostgreSQL's own trigger does. */
  parent(placed: PlacedForeignKey, values: readonly Buffer[]): Statement {
    return this.#statement(`p${placed.foreignKey.name}`, values, () =>
      parentSql(
        placed,
        values.map((_, at) => `$${at + 1}`),
      ),
    );
  }

  /** Locks a row without changing it. `mode`: what follows FOR. */
  lock(before: Tuple, byKey: boolean, mode: string): Statement {
    const parameters = new Parameters();
    const { condition, shape } = this.match(before, byKey, parameters);
    return this.#statement(
      `l${mode};${shape}`,
      parameters.values,
      () => `SELECT FROM ONLY ${this.name} WHERE ${condition()} FOR ${mode}`,
    );
  }

  /** Finds a child row with this key. */
  child(placed: PlacedForeignKey, values: readonly Buffer[]): Statement {
    const { childOperators } = placed.foreignKey;
    return this.#statement(`c${placed.foreignKey.name}`, values, () => {
      const conditions = placed.positions.map(
        (i, at) => `${this.#quoted(i)} ${childOperators[at]} $${at + 1}::${placed.types[at]}`,
      );
      return `SELECT FROM ONLY ${this.name} WHERE ${conditions.join(' AND ')} LIMIT 1`;
    });
  }

  /** Finds exactly one row: by the key, or, under identity FULL, one of those whose image is the same. */
  match(before: Tuple, byKey: boolean, parameters: Parameters, careful = false): Match {
    return byKey ? this.#matchKey(before, parameters) : this.#matchImage(before, parameters, careful);
  }

  #matchKey(before: Tuple, parameters: Parameters): Match {
    const columns = this.#keyColumns;
    if (columns.length === 0) throw new Error(`${this.name} has no replica identity`);
    const first = parameters.values.length + 1;
    for (const i of columns) parameters.add(before[i]);
    // With its type: for the operators of records and of other polymorphic types a bare parameter could be anything.
    const condition = () =>
      columns
        .map((i, at) => `${this.#quoted(i)} ${this.#column(i)?.equals ?? '='} $${first + at}${this.#cast(i)}`)
        .join(' AND ');
    return { condition, shape: '' };
  }

  #matchImage(before: Tuple, parameters: Parameters, careful: boolean): Match {
    const first = parameters.values.length + 1;
    let shape = careful ? 't' : 'f';
    for (const i of this.writtenColumns) {
      parameters.add(before[i]);
      if (this.#column(i)?.indexed === true) shape += before[i] === null ? 'n' : 'v';
    }
    return { condition: () => this.#imageSql(before, first, careful), shape };
  }

  /**
   * Equal values need not be the same bytes: an array that once had a NULL in it keeps room for more of them. So if none has the same, one
   * whose text is the same will do, which is all that the origin has sent.
   */
  #imageSql(before: Tuple, first: number, careful: boolean): string {
    const names: string[] = [];
    const values: string[] = [];
    const lookups: string[] = [];
    this.writtenColumns.forEach((i, at) => {
      const column = this.#column(i);
      if (column === undefined)
        throw new Error(`column ${this.#quoted(i)} of ${this.name} does not exist on this node`);
      const placeholder = `$${first + at}::${column.type}`;
      names.push(`t.${this.#quoted(i)}`);
      values.push(placeholder);
      if (!column.indexed) return;
      const isNull = before[i] === null;
      lookups.push(`t.${this.#quoted(i)} ${isNull ? 'IS NULL' : `${column.equals ?? '='} ${placeholder}`}`);
    });
    // Two bare row constructors would be compared column by column, with each type's own `*=`.
    const [here, sent] = [`ROW(${names.join(', ')})::record`, `ROW(${values.join(', ')})::record`];
    const found = (image: string) =>
      `(SELECT t.ctid FROM ONLY ${this.name} t WHERE ${[...lookups, image].join(' AND ')} LIMIT 1)`;
    const same = found(`${here} OPERATOR(pg_catalog.*=) ${sent}`);
    if (!careful) return `ctid = ${same}`;
    const text = found(`${here}::pg_catalog.text OPERATOR(pg_catalog.=) ${sent}::pg_catalog.text`);
    return `ctid = COALESCE(${same}, ${text})`;
  }

  #statement(kind: string, parameters: readonly (Buffer | null)[], write: () => string): Statement {
    let sql = this.#sql.get(kind);
    if (sql === undefined) this.#sql.set(kind, (sql = write()));
    return { key: this.#prefix + kind, sql, parameters };
  }
}

/** As ri_triggers.c asks; `values` are the placeholders of the child's columns. */
function parentSql({ foreignKey, types }: PlacedForeignKey, values: readonly string[]): string {
  const { parentSchema: schema, parent: name, parentPartitioned, parentColumns, parentOperators, period } = foreignKey;
  const table = `${parentPartitioned ? '' : 'ONLY '}${tableName({ schema, name })}`;
  const value = (at: number) => `${values[at]}::${types[at]}`;
  const last = parentColumns.length - 1;
  const equal = parentColumns.map((column, at) => `p.${quote(column)} ${parentOperators[at]} ${value(at)}`);
  if (!period) return `SELECT FROM ${table} p WHERE ${equal.join(' AND ')} FOR KEY SHARE OF p`;
  const span = `p.${quote(parentColumns[last])}`;
  const conditions = [...equal.slice(0, last), `${span} OPERATOR(pg_catalog.&&) ${value(last)}`].join(' AND ');
  return `SELECT FROM (SELECT ${span} AS span FROM ${table} p WHERE ${conditions} FOR KEY SHARE OF p) x
    HAVING ${value(last)} OPERATOR(pg_catalog.<@) pg_catalog.range_agg(x.span)`;
}

export function sameValue(a: Value, b: Value): boolean {
  return a === b || (Buffer.isBuffer(a) && Buffer.isBuffer(b) && a.equals(b));
}
