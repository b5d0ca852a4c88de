import type { Difference } from './report.ts';
import { SCHEMA_QUERIES } from './schema-queries.ts';
import type { Snapshot } from './snapshot.ts';
import { byNode } from './tables.ts';

/** Compares every definition: what there is, and what PostgreSQL says it is. */
export async function compareSchemas(
  snapshots: readonly Snapshot[],
): Promise<{ objects: number; differences: Difference[]; notes: string[] }> {
  const majors = new Set(await Promise.all(snapshots.map(majorOf)));
  const mixed = majors.size > 1;
  const schemas = await Promise.all(snapshots.map((snapshot) => readSchema(snapshot, mixed)));
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
  const notes = mixed
    ? [`PostgreSQL ${[...majors].sort().join(' and ')} write some definitions differently: compared without qualifiers`]
    : [];
  return { objects: objects.length, differences, notes };
}

/** `table public.t` → everything about it, as text. */
async function readSchema({ client }: Snapshot, mixed: boolean): Promise<Map<string, string>> {
  const schema = new Map<string, string>();
  for (const query of SCHEMA_QUERIES) {
    const { rows } = await client.query<{ object: string; definition: string | null }>(query);
    for (const { object, definition: text } of rows) {
      const definition = mixed && text !== null ? relax(text) : text;
      // Two of one name, such as overloaded operators, are told apart by what they are.
      const before = schema.get(object);
      schema.set(object, before === undefined ? (definition ?? '') : [before, definition ?? ''].sort().join('\n'));
    }
  }
  return schema;
}

async function majorOf({ client }: Snapshot): Promise<number> {
  const { rows } = await client.query<{ major: number }>(
    `SELECT current_setting('server_version_num')::int / 10000 AS major`,
  );
  return rows[0].major;
}

/** What servers of different versions have in common: 17 added the privilege MAINTAIN (m), 16 names a view's columns bare. */
function relax(definition: string): string {
  return definition
    .replaceAll(/=([A-Za-z*]+)\//g, (_, privileges: string) => `=${privileges.replace(/m\*?/, '')}/`)
    .replaceAll(/(?:\b[A-Za-z_][\w$]*|"(?:[^"]|"")+")\./g, '');
}
