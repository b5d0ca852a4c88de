import { literal, quote } from '../../runtime/sql-text.ts';
import { parse } from '../../sql/parser.ts';
import type { ServerConnection } from '../../wire/connection.ts';
import type { Relation } from '../pgoutput/messages.ts';

const STATEMENTS = new Set(['CreateExtensionStmt', 'AlterExtensionStmt']);

/** Whether a schema statement runs the script of an extension, which may fill the extension's own tables. */
export function runsScript(statement: string): boolean {
  return STATEMENTS.has(parse(statement)?.at(0)?.name ?? '');
}

/**
 * Which row changes of the origin its extension scripts made: those of tables that belong to an extension, between the statement and
 * the message that ends it. The statement makes them here as well. A table that is not here any more is one that the script dropped again.
 */
export class ExtensionScripts {
  readonly #connection: ServerConnection;
  /** While a script runs: its tables, by their number at the origin. */
  #found: Map<number, boolean> | undefined;

  constructor(connection: ServerConnection) {
    this.#connection = connection;
  }

  get running(): boolean {
    return this.#found !== undefined;
  }

  begin(): void {
    this.#found = new Map();
  }

  /** Answers whether one was running. */
  end(): boolean {
    const { running } = this;
    this.#found = undefined;
    return running;
  }

  /** Whether the changes of this table are made by the script. Everything before must have been run. */
  async make({ id, schema, name }: Relation): Promise<boolean> {
    const known = this.#found?.get(id);
    if (known !== undefined) return known;
    const table = `pg_catalog.to_regclass(${literal(`${quote(schema)}.${quote(name)}`)})`;
    const rows = await this.#connection.query(
      `SELECT ${table} IS NULL OR EXISTS (
         SELECT FROM pg_catalog.pg_depend d
         WHERE d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = ${table} AND d.deptype = 'e')`,
    );
    const made = rows[0][0] === 't';
    this.#found?.set(id, made);
    return made;
  }
}
