import { beforeAll, describe, expect, it } from 'vitest';
import { SchemaNames, schemaRename } from '../../../../src/replication/apply/schema-names.ts';
import { loadParser } from '../../../../src/sql/parser.ts';

beforeAll(loadParser);

describe('schemaRename', () => {
  it('reads the names as the server does', () => {
    expect(schemaRename('/* once */ alter schema "a B" RENAME TO Cde')).toEqual({ from: 'a B', to: 'cde' });
  });

  it.each(['ALTER TABLE a RENAME TO b', 'ALTER SCHEMA a OWNER TO b', 'CREATE SCHEMA a', 'ALTER SCHEMA a RENAME'])(
    'is not %s',
    (statement) => expect(schemaRename(statement)).toBeUndefined(),
  );
});

describe('SchemaNames', () => {
  function namesAfter(...renames: readonly (readonly [string, string])[]): SchemaNames {
    const names = new SchemaNames();
    for (const [from, to] of renames) names.rename({ from, to });
    return names;
  }

  it('leaves the others their names', () => {
    expect(namesAfter(['a', 'b']).now('c')).toBe('c');
  });

  it('follows one that is renamed again', () => {
    expect(namesAfter(['a', 'b'], ['b', 'c']).now('a')).toBe('c');
  });

  it('follows two that change places', () => {
    const names = namesAfter(['a', 'x'], ['b', 'a'], ['x', 'b']);
    expect([names.now('a'), names.now('b')]).toEqual(['b', 'a']);
  });

  it('does not take one that the transaction made for the one that had its name', () => {
    expect(namesAfter(['a', 'b'], ['a', 'c']).now('a')).toBe('b');
  });
});
