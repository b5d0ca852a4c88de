import type { Difference } from './report.ts';
import { SCHEMA_QUERIES } from './schema-queries.ts';
import type { Snapshot } from './snapshot.ts';
import { byNode } from './tables.ts';

/** Compares every definition: what there is, and what PostgreSQL says it is. */
export async function compareSchemas(
  snapshots: readonly Snapshot[],
): Promise<{ objects: number; differences: Difference[] }> {
  const schemas = await Promise.all(snapshots.map(readSchema));
  const objects = [...new Set(schemas.flatMap((schema) => [...schema.keys()]))].sort();
  const differences = objects
    .filter((object) => new Set(schemas.map((schema) => schema.get(object))).size > 1)
    .map((object): Difference => {
      return {
        kind: 'schema',
        object,
        nodes: byNode(snapshots, (_, index) => schemas[index].get(object) ?? 'does not exist'),
      };
    });
  return { objects: objects.length, differences };
}

/** `table public.t` → everything about it, as text. */
async function readSchema({ client }: Snapshot): Promise<Map<string, string>> {
  const schema = new Map<string, string>();
  for (const query of SCHEMA_QUERIES) {
    const { rows } = await client.query<{ object: string; definition: string | null }>(query);
    for (const { object, definition } of rows) {
      // Two of one name, such as overloaded operators, are told apart by what they are.
      const before = schema.get(object);
      schema.set(object, before === undefined ? (definition ?? '') : [before, definition ?? ''].sort().join('\n'));
    }
  }
  return schema;
}
