import type { ControlClient } from '../control-client.ts';
import type { FoundRoles } from './roles.ts';

/** The roles of the server that the client is connected to. */
export async function findRoles(client: ControlClient): Promise<FoundRoles> {
  const { rows: roles } = await client.ask<{ name: string; isBootstrap: boolean }>(
    `SELECT rolname AS name, oid < 16384 AS "isBootstrap" FROM pg_catalog.pg_roles WHERE rolname !~ '^pg_'`,
  );
  const { rows: memberships } = await client.ask<{ role: string; member: string }>(
    `SELECT DISTINCT pg_catalog.pg_get_userbyid(roleid) AS role, pg_catalog.pg_get_userbyid(member) AS member
     FROM pg_catalog.pg_auth_members WHERE member >= 16384 OR roleid >= 16384`,
  );
  const { rows } = await client.ask<{ major: number; own: string }>(
    `SELECT pg_catalog.current_setting('server_version_num')::pg_catalog.int4 / 10000 AS major, session_user AS own`,
  );
  return { roles, memberships, ...rows[0] };
}
