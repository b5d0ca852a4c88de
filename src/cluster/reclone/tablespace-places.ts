import { isAbsolute } from 'node:path';
import type { Tablespace } from '../../replication/base-backup/tablespaces.ts';

/** Where a tablespace goes, or is. */
interface Place {
  readonly name: string;
  readonly location: string;
}

export interface OwnPlaces {
  /** As `reclone.tablespaces` says. */
  readonly set: readonly Place[];
  /** What this node's PostgreSQL has now; or why that is not known. */
  readonly present: readonly Place[] | { readonly problem: string };
}

/**
 * Where each of the donor's tablespaces goes on this node: where the configuration says; else where this node has one of the same name; else to the
 * donor's own path. Throws if that is not known, or not possible.
 */
export function placeTablespaces(donors: readonly Tablespace[], own: OwnPlaces): readonly Tablespace[] {
  const placed = donors.map((tablespace) => ({ ...tablespace, location: locate(tablespace, own) }));
  for (const [i, { name, location }] of placed.entries()) {
    const other = placed.slice(0, i).find((one) => one.location === location);
    if (other !== undefined)
      throw new Error(
        `tablespaces "${other.name}" and "${name}" would both go to ${location}: see reclone.tablespaces`,
      );
  }
  return placed;
}

function locate({ name, location }: Tablespace, { set, present }: OwnPlaces): string {
  const named = set.find((place) => place.name === name);
  if (named !== undefined) return named.location;
  if ('problem' in present)
    throw new Error(
      `where tablespace "${name}" is to go must be set in reclone.tablespaces, as this node's PostgreSQL can't be asked where it has it: ${present.problem}`,
    );
  const same = present.find((place) => place.name === name)?.location ?? location;
  if (isAbsolute(same)) return same;
  throw new Error(`tablespace "${name}" lies in the data directory, and such are not copied`);
}
