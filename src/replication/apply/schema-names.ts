import { parse, text } from '../../sql/parser.ts';

export interface SchemaRename {
  readonly from: string;
  readonly to: string;
}

/** What an ALTER SCHEMA … RENAME TO does; undefined of any other statement. */
export function schemaRename(statement: string): SchemaRename | undefined {
  const only = parse(statement)?.at(0);
  if (only?.name !== 'RenameStmt' || text(only.node, 'renameType') !== 'OBJECT_SCHEMA') return undefined;
  return { from: text(only.node, 'subname'), to: text(only.node, 'newname') };
}

/** What one transaction calls the schemas that it has found. */
export class SchemaNames {
  /** The name now, by the one before the transaction. */
  readonly #names = new Map<string, string>();

  rename({ from, to }: SchemaRename): void {
    const before = [...this.#names].find(([, name]) => name === from)?.[0];
    if (before !== undefined) this.#names.set(before, to);
    // One of that name that is another's place by now was made by the transaction itself.
    else if (!this.#names.has(from)) this.#names.set(from, to);
  }

  now(before: string): string {
    return this.#names.get(before) ?? before;
  }
}
