import { describe, expect, it } from 'vitest';
import {
  alignRoles,
  alterSetting,
  grantStatements,
  missingRoles,
  splitNames,
  surplusRoles,
  type CopiedRole,
  type FoundRoles,
} from '../../../../src/replication/logical-copy/roles.ts';

const role = (name: string, more: Partial<CopiedRole> = {}): CopiedRole => ({
  ...{ name, isBootstrap: false, attributes: 'LOGIN', password: null, validUntil: null, comment: null },
  ...more,
});
const found = (names: readonly string[], more: Partial<FoundRoles> = {}): FoundRoles => ({
  roles: [{ name: 'postgres', isBootstrap: true }, ...names.map((name) => ({ name, isBootstrap: false }))],
  memberships: [],
  major: 15,
  own: 'postgres',
  ...more,
});

describe('roles', () => {
  it('that are missing are made without any rights', () => {
    const statements = missingRoles([role('a'), role('b')], found(['a']));
    expect(statements[0]).toBe('CREATE ROLE "b" NOLOGIN');
    expect(statements).toHaveLength(2);
  });

  it('become as they are at the donor, but for the one that a server began with and the proxy’s own', () => {
    const roles = [role('postgres', { isBootstrap: true }), role('pgmm'), role('a', { password: "SCRAM'x" })];
    const statements = alignRoles(roles, [], [], found(['a', 'pgmm'], { own: 'pgmm' }));
    expect(statements).toContain(`ALTER ROLE "a" WITH LOGIN PASSWORD 'SCRAM''x'`);
    expect(statements.filter((one) => / ROLE "(postgres|pgmm)" WITH /.test(one))).toEqual([]);
    expect(statements).toContain('ALTER ROLE "pgmm" RESET ALL');
  });

  it('that a donor began with under another name are ordinary ones here', () => {
    const roles = [role('admin', { isBootstrap: true, attributes: 'SUPERUSER' })];
    expect(alignRoles(roles, [], [], found(['admin']))).toContain('ALTER ROLE "admin" WITH SUPERUSER PASSWORD NULL');
  });

  it('are members of what they are at the donor', () => {
    const wanted = [{ role: 'a', member: 'b', admin: true, inherit: false, set: null }];
    const old = [{ role: 'a', member: 'c' }];
    const statements = (major: number) =>
      alignRoles([], wanted, [], found([], { memberships: old, major })).filter((one) => / (TO|FROM) /.test(one));
    expect(statements(15)).toEqual(['REVOKE "a" FROM "c"', 'GRANT "a" TO "b" WITH ADMIN OPTION']);
    expect(statements(18)[1]).toBe('GRANT "a" TO "b" WITH ADMIN true, INHERIT false');
  });

  it('that the donor does not have go', () => {
    expect(surplusRoles([role('a')], found(['a', 'b', 'pgmm'], { own: 'pgmm' }))).toEqual(['b']);
  });
});

describe('settings', () => {
  it('are written as PostgreSQL reads them', () => {
    const setting = (name: string, value: string, role: string | null, database: string | null = null) =>
      alterSetting({ role, database, name, value }).replaceAll(/ +/g, ' ');
    expect(setting('work_mem', '7MB', 'a')).toBe(`ALTER ROLE "a" SET "work_mem" TO '7MB'`);
    expect(setting('work_mem', '7MB', 'a', 'd')).toBe(`ALTER ROLE "a" IN DATABASE "d" SET "work_mem" TO '7MB'`);
    expect(setting('my.setting', "it's", null, 'd')).toBe(`ALTER DATABASE "d" SET "my"."setting" TO 'it''s'`);
    expect(setting('search_path', '"$user", public', null)).toBe(
      `ALTER ROLE ALL SET "search_path" TO '$user', 'public'`,
    );
  });

  it('that are lists of names are taken apart', () => {
    expect(splitNames('"", "a ""b""", public,pg_temp')).toEqual(['', 'a "b"', 'public', 'pg_temp']);
    expect(splitNames('"a,b"')).toEqual(['a,b']);
    expect(splitNames('')).toEqual(['']);
  });
});

describe('privileges', () => {
  it('are given from none on', () => {
    expect(grantStatements('DATABASE "d"', 'o', null)).toEqual([]);
    expect(
      grantStatements('DATABASE "d"', 'o', [
        { grantee: null, privilege: 'CONNECT', grantable: false },
        { grantee: 'a"b', privilege: 'CREATE', grantable: true },
      ]),
    ).toEqual([
      'REVOKE ALL ON DATABASE "d" FROM PUBLIC, "o";',
      'GRANT CONNECT ON DATABASE "d" TO PUBLIC;',
      'GRANT CREATE ON DATABASE "d" TO "a""b" WITH GRANT OPTION;',
    ]);
  });
});
