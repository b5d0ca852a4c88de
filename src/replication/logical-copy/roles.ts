import { literal, quote } from '../../runtime/sql-text.ts';

/** A role as the donor has it. `password`: as it is stored, never in the clear. */
export interface CopiedRole {
  readonly name: string;
  /** The one that initdb made: every server has its own, and its attributes are not copied. */
  readonly isBootstrap: boolean;
  readonly attributes: string;
  readonly password: string | null;
  readonly validUntil: string | null;
  readonly comment: string | null;
}

/** `options`: as SQL after WITH; on a server before 16 there is only ADMIN. */
export interface Membership {
  readonly role: string;
  readonly member: string;
  readonly admin: boolean;
  readonly inherit: boolean | null;
  readonly set: boolean | null;
}

/** One entry of pg_db_role_setting; without a role it goes for all roles in the database, without a database everywhere. */
export interface RoleSetting {
  readonly role: string | null;
  readonly database: string | null;
  readonly name: string;
  readonly value: string;
}

/** What the server has that is copied to. */
export interface FoundRoles {
  readonly roles: readonly { readonly name: string; readonly isBootstrap: boolean }[];
  readonly memberships: readonly { readonly role: string; readonly member: string }[];
  readonly major: number;
  /** The role that the proxy itself connects as: it keeps its attributes and its password. */
  readonly own: string;
}

/** Privileges on an object; null while it has those that it was made with. Without a grantee: everybody's. */
export type Acl =
  readonly { readonly grantee: string | null; readonly privilege: string; readonly grantable: boolean }[] | null;

/** Statements that give an object these privileges, and no others. */
export function grantStatements(object: string, owner: string, acl: Acl): string[] {
  if (acl === null) return [];
  return [
    `REVOKE ALL ON ${object} FROM PUBLIC, ${quote(owner)};`,
    ...acl.map(({ grantee, privilege, grantable }) => {
      const option = grantable ? ' WITH GRANT OPTION' : '';
      return `GRANT ${privilege} ON ${object} TO ${grantee === null ? 'PUBLIC' : quote(grantee)}${option};`;
    }),
  ];
}

/** Settings whose value is a list of names, which ALTER ROLE takes one by one ("GUC_LIST_QUOTE" in PostgreSQL's sources). */
const NAME_LISTS = new Set([
  ...['search_path', 'temp_tablespaces', 'local_preload_libraries', 'session_preload_libraries'],
  ...['shared_preload_libraries', 'unix_socket_directories'],
]);

/** Says of a role that it was made for a copy that is not complete. */
export const UNFINISHED = 'pgmm: made for a copy that is not complete';

/** Statements that make the roles which are missing, for objects to belong to: without login, privileges or members. */
export function missingRoles(wanted: readonly CopiedRole[], found: FoundRoles): string[] {
  const known = new Set(found.roles.map(({ name }) => name));
  return wanted
    .filter(({ name }) => !known.has(name))
    .flatMap(({ name }) => [
      `CREATE ROLE ${quote(name)} NOLOGIN`,
      `COMMENT ON ROLE ${quote(name)} IS ${literal(UNFINISHED)}`,
    ]);
}

/** Statements after which the roles, all of which are there, are as the donor has them. */
export function alignRoles(
  roles: readonly CopiedRole[],
  memberships: readonly Membership[],
  settings: readonly RoleSetting[],
  found: FoundRoles,
): string[] {
  const bootstrap = new Set(found.roles.filter(({ isBootstrap }) => isBootstrap).map(({ name }) => name));
  const isKept = ({ name, isBootstrap }: CopiedRole) => bootstrap.has(name) || (isBootstrap && name === found.own);
  const own = (name: string) => name === found.own;
  return [
    ...roles.flatMap((role) => (isKept(role) || own(role.name) ? [] : alterRole(role))),
    'ALTER ROLE ALL RESET ALL',
    ...roles.map(({ name }) => `ALTER ROLE ${quote(name)} RESET ALL`),
    ...alignMemberships(memberships, found),
    ...settings.map((setting) => alterSetting(setting)),
  ];
}

function alterRole({ name, attributes, password, validUntil, comment }: CopiedRole): string[] {
  const secret = password === null ? 'NULL' : literal(password);
  return [
    `ALTER ROLE ${quote(name)} WITH ${attributes} PASSWORD ${secret}`,
    // There is no statement that takes the time limit away.
    validUntil === null
      ? `UPDATE pg_catalog.pg_authid SET rolvaliduntil = NULL WHERE rolname = ${literal(name)} AND rolvaliduntil IS NOT NULL`
      : `ALTER ROLE ${quote(name)} VALID UNTIL ${literal(validUntil)}`,
    `COMMENT ON ROLE ${quote(name)} IS ${comment === null ? 'NULL' : literal(comment)}`,
  ];
}

function alignMemberships(wanted: readonly Membership[], found: FoundRoles): string[] {
  const key = ({ role, member }: { role: string; member: string }) => `${quote(role)} ${quote(member)}`;
  const kept = new Set(wanted.map(key));
  return [
    ...found.memberships
      .filter((one) => !kept.has(key(one)))
      .map(({ role, member }) => `REVOKE ${quote(role)} FROM ${quote(member)}`),
    ...wanted.map((one) => grant(one, found.major)),
  ];
}

function grant({ role, member, admin, inherit, set }: Membership, major: number): string {
  const words = `GRANT ${quote(role)} TO ${quote(member)}`;
  if (major < 16) return admin ? `${words} WITH ADMIN OPTION` : words;
  const options = [
    `ADMIN ${admin}`,
    ...(inherit === null ? [] : [`INHERIT ${inherit}`]),
    ...(set === null ? [] : [`SET ${set}`]),
  ];
  return `${words} WITH ${options.join(', ')}`;
}

/** `database`: the name under which the database is now. */
export function alterSetting({ role, database, name, value }: RoleSetting): string {
  const inDatabase = database === null ? '' : `IN DATABASE ${quote(database)}`;
  const whose =
    role === null && database !== null
      ? `DATABASE ${quote(database)}`
      : `ROLE ${role === null ? 'ALL' : quote(role)} ${inDatabase}`;
  const values = NAME_LISTS.has(name) ? splitNames(value).map(literal).join(', ') : literal(value);
  // Names of settings of extensions have a dot, which is not a part of an identifier.
  const setting = name.split('.').map(quote).join('.');
  return `ALTER ${whose} SET ${setting} TO ${values}`;
}

/** The names of a list as PostgreSQL keeps it: separated by commas, quoted where they must be. An empty list is one empty name. */
export function splitNames(list: string): string[] {
  const names = [...list.matchAll(/\s*(?:"((?:[^"]|"")*)"|([^,\s"]+))\s*(?:,|$)/g)].map(
    ([, quoted, bare]: (string | undefined)[]) => quoted?.replaceAll('""', '"') ?? bare ?? '',
  );
  return names.length === 0 ? [''] : names;
}

/** Roles that the donor does not have, which are to go: but for the proxy's own and the server's first. */
export function surplusRoles(wanted: readonly CopiedRole[], found: FoundRoles): string[] {
  const names = new Set(wanted.map(({ name }) => name));
  return found.roles
    .filter(({ name, isBootstrap }) => !isBootstrap && name !== found.own && !names.has(name))
    .map(({ name }) => name);
}
