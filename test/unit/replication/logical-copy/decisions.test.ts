import { describe, expect, it } from 'vitest';
import { databaseOptions, type SourceTable } from '../../../../src/replication/logical-copy/contents.ts';
import { lockStatements } from '../../../../src/replication/logical-copy/cut.ts';
import {
  encodeData,
  encodeFrame,
  FrameSplitter,
  type CopyHeader,
} from '../../../../src/replication/logical-copy/frames.ts';
import { judgeHeader } from '../../../../src/replication/logical-copy/judge-header.ts';
import { copyName, maintenanceDatabase, oldName, timeOf } from '../../../../src/replication/logical-copy/names.ts';
import { wantedEntries, withoutRestriction } from '../../../../src/replication/logical-copy/schema-dump.ts';
import { chooseTools, toolPlaces } from '../../../../src/replication/logical-copy/tools.ts';
import { logIndex } from '../../../../src/runtime/ids.ts';

describe('the tools for a dump', () => {
  const at = (place: string, major: number | undefined) => ({ tools: { dump: place, restore: place }, major });

  it('know the server, and write nothing that the other one may not know', () => {
    expect(chooseTools([at('/a', 15), at('/b', 17), at('/c', 18)], 16, 18).dump).toBe('/b');
    expect(() => chooseTools([at('/a', 15), at('/b', undefined), at('/c', 18)], 16, 17)).toThrow(
      'a logical copy needs a pg_dump of version 16 to 17, set reclone.tools_directory: /a is of version 15, /b is not there, /c is of version 18',
    );
  });

  it('are looked for where the setting says, or beside the server’s own', () => {
    expect(toolPlaces('/tools', '/bin').map(({ dump }) => dump)).toEqual(['/tools/pg_dump']);
    expect(toolPlaces(undefined, '/bin').map(({ dump }) => dump)).toEqual(['/bin/pg_dump', 'pg_dump']);
    expect(toolPlaces(undefined, null).map(({ restore }) => restore)).toEqual(['pg_restore']);
  });
});

describe('what a dump says', () => {
  it('is taken without what is each node’s own', () => {
    const list = [
      '; Archive created at some time',
      '215; 1259 16387 TABLE public t postgres',
      '3; 3466 16390 EVENT TRIGGER - multimaster_10_start postgres',
      '4; 0 0 COMMENT - EVENT TRIGGER multimaster_10_start postgres',
      '5; 3466 16391 EVENT TRIGGER - audit postgres',
      '6; 6104 16392 PUBLICATION - pgmm postgres',
      '7; 6104 16393 PUBLICATION - pgmm_reports postgres',
      '8; 2620 16394 TRIGGER public leaf PK_ConstraintTrigger_16412 postgres',
      '9; 2620 16395 TRIGGER public t shout postgres',
    ];
    const left = wantedEntries(list.join('\n')).split('\n');
    expect(left.map((line) => line.split(';')[0])).toEqual(['', '215', '5', '7', '9']);
  });

  it('is for a server, not for psql', () => {
    const script = '-- dump\n\\restrict aB3\n\nCREATE TABLE t ();\n-- done\n\\unrestrict aB3\n';
    expect(withoutRestriction(script)).toBe('-- dump\n\nCREATE TABLE t ();\n-- done\n');
    const body = "CREATE FUNCTION f() RETURNS text LANGUAGE sql AS '\n\\unrestrict aB3\n';\n";
    expect(withoutRestriction(body)).toBe(body);
  });
});

describe('frames', () => {
  it('come out as they went in, wherever they are cut', () => {
    const bytes = Buffer.concat([
      encodeFrame({ type: 'sql', sql: 'SELECT 1' }),
      encodeData(Buffer.from('a\tb\n')),
      encodeData(Buffer.alloc(0)),
      encodeFrame({ type: 'table-end', rows: 1 }),
    ]);
    for (let size = 1; size <= bytes.length; size++) {
      const splitter = new FrameSplitter();
      const frames = [];
      for (let at = 0; at < bytes.length; at += size) frames.push(...splitter.push(bytes.subarray(at, at + size)));
      expect(frames).toEqual([
        { type: 'sql', sql: 'SELECT 1' },
        { type: 'data', bytes: Buffer.from('a\tb\n') },
        { type: 'data', bytes: Buffer.alloc(0) },
        { type: 'table-end', rows: 1 },
      ]);
      expect(splitter.isEmpty).toBe(true);
    }
  });

  it('of something else are refused', () => {
    expect(() => new FrameSplitter().push(Buffer.from('\0\0\0\x05nbase.tar\0'))).toThrow('not a logical copy');
  });
});

describe('whether a copy can be loaded', () => {
  const header: CopyHeader = {
    ...{ format: 1, node: 1, major: 15, index: logIndex(7), databases: ['app'] },
    ...{ extensions: [{ name: 'hstore', version: '1.8' }], roles: [], memberships: [], settings: [] },
  };
  const here = { major: 15, databases: ['app'], extensions: new Set(['hstore']) };

  it('is told beforehand', () => {
    expect(judgeHeader(header, here)).toBeUndefined();
    expect(judgeHeader(header, { ...here, major: 18 })).toBeUndefined();
    expect(judgeHeader({ ...header, major: 16 }, here)).toContain('PostgreSQL 16');
    expect(judgeHeader(header, { ...here, databases: ['app', 'other'] })).toContain('database other');
    expect(judgeHeader(header, { ...here, extensions: new Set() })).toContain('extension hstore');
    expect(judgeHeader({ ...header, format: 2 as 1 }, here)).toContain('format 2');
  });
});

describe('names', () => {
  it('are found beside those of the databases, where there is room', () => {
    expect(copyName('app')).toBe('app_pgmm_copy');
    expect(oldName('app', timeOf(new Date('2026-01-02T03:04:05.678Z')))).toBe('app_pgmm_old_20260102T030405Z');
    expect(() => copyName('ü'.repeat(27))).toThrow('leaves no room');
  });

  it('of databases to work from are of one that is not replaced', () => {
    expect(maintenanceDatabase(['app'], 'admin')).toBe('admin');
    expect(maintenanceDatabase(['app', 'postgres'], 'postgres')).toBe('template1');
    expect(() => maintenanceDatabase(['postgres', 'template1'], 'postgres')).toThrow('needs a database');
  });
});

describe('locks', () => {
  const table = (name: string, isLockable = true): SourceTable => ({
    ...{ schema: 's', name, kind: 'table', columns: [], size: 0, query: '', isLockable },
  });

  it('can be given back in the order in which tables are read', () => {
    expect(lockStatements([table('first'), table('view', false), table('last')], ['"s"."parent"'])).toEqual([
      'SAVEPOINT table_2',
      'LOCK TABLE ONLY "s"."last" IN ACCESS SHARE MODE',
      'SAVEPOINT table_1',
      'SAVEPOINT table_0',
      'LOCK TABLE ONLY "s"."first" IN ACCESS SHARE MODE',
      'SAVEPOINT schema',
      'LOCK TABLE ONLY "s"."parent" IN ACCESS SHARE MODE',
    ]);
  });
});

describe('a database', () => {
  const common = { datcollate: 'C', datctype: 'de_DE', datconnlimit: -1 };
  const options = (all: object) =>
    new Map(databaseOptions({ owner: 'o"k', encoding: 'UTF8', all: { ...common, ...all } }));

  it('is made as it was, whichever version tells of it', () => {
    expect([...options({ datlocprovider: 'c' })]).toEqual([
      ['OWNER', '"o""k"'],
      ['ENCODING', "'UTF8'"],
      ['LC_COLLATE', "'C'"],
      ['LC_CTYPE', "'de_DE'"],
      ['LOCALE_PROVIDER', 'libc'],
      ['CONNECTION LIMIT', '-1'],
    ]);
    expect(options({ datlocprovider: 'i', daticulocale: 'de' }).get('ICU_LOCALE')).toBe("'de'");
    expect(options({ datlocprovider: 'i', datlocale: 'de' }).get('ICU_LOCALE')).toBe("'de'");
    expect(options({ datlocprovider: 'b', datlocale: 'C.UTF-8' }).get('BUILTIN_LOCALE')).toBe("'C.UTF-8'");
  });
});
