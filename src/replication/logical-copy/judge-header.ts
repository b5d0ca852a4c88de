import { COPY_FORMAT, type CopyHeader } from './frames.ts';
import { copyName } from './names.ts';

/** What there is where a copy is to be loaded. */
export interface Surroundings {
  readonly major: number;
  readonly databases: readonly string[];
  /** Names of extensions that can be created. */
  readonly extensions: ReadonlySet<string>;
}

/** Why a copy can't be loaded, as far as that can be told before any of it is there; undefined when it can. */
export function judgeHeader(header: CopyHeader, { major, databases, extensions }: Surroundings): string | undefined {
  if ((header.format as number) !== COPY_FORMAT)
    return `the donor sends a logical copy of format ${header.format}, and this version knows ${COPY_FORMAT}`;
  if (header.major > major)
    return `the donor runs PostgreSQL ${header.major}, whose contents PostgreSQL ${major} may not understand`;
  const missing = databases.filter((name) => !header.databases.includes(name));
  if (missing.length > 0) return `the donor does not send database ${missing.join(', ')}`;
  const unknown = header.extensions.map(({ name }) => name).filter((name) => !extensions.has(name));
  if (unknown.length > 0) return `extension ${[...new Set(unknown)].join(', ')} is not installed on this server`;
  for (const name of databases) copyName(name);
  return undefined;
}
