import { z } from 'zod';

/** A tablespace of one server; pg_default and pg_global, which lie in the data directory, are none of these. */
export interface Tablespace {
  readonly oid: string;
  readonly name: string;
  /** An absolute path there. */
  readonly location: string;
}

/** Rows of `Tablespace`. */
export const TABLESPACES =
  "SELECT oid::pg_catalog.text, spcname, pg_catalog.pg_tablespace_location(oid) FROM pg_catalog.pg_tablespace WHERE spcname NOT IN ('pg_default', 'pg_global') ORDER BY 1";

const format = z.array(z.tuple([z.string().regex(/^\d+$/), z.string(), z.string()]));

export function readTablespaces(rows: unknown): readonly Tablespace[] {
  return format.parse(rows).map(([oid, name, location]) => ({ oid, name, location }));
}
