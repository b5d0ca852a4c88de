/** Identifiers that must not be mixed up. A brand costs nothing at run time. */
declare const brand: unique symbol;
type Branded<T, Name extends string> = T & { readonly [brand]: Name };

/** A node's number in the cluster's configuration, 1 to 63. */
export type NodeId = Branded<number, 'NodeId'>;
/** A position in the decision log; 0 is before the first entry. Stays below 2^53. */
export type LogIndex = Branded<number, 'LogIndex'>;
/** A byte position in a PostgreSQL server's WAL (pg_lsn, 64 bits). */
export type Lsn = Branded<bigint, 'Lsn'>;
/** The index of the log entry that admitted this incarnation of a node; 0 before the first admission. */
export type Epoch = Branded<number, 'Epoch'>;
/** The name of a prepared transaction, at most 200 bytes; see commit/gid.ts. */
export type Gid = Branded<string, 'Gid'>;

export const nodeId = (n: number): NodeId => n as NodeId;
export const logIndex = (n: number): LogIndex => n as LogIndex;
export const lsn = (n: bigint): Lsn => n as Lsn;
export const epoch = (n: number): Epoch => n as Epoch;

export const ZERO_LSN = lsn(0n);

/** PostgreSQL's text form of a pg_lsn: two hexadecimal halves, `16/B374D848`. */
export function formatLsn(value: Lsn): string {
  return `${(value >> 32n).toString(16).toUpperCase()}/${(value & 0xffffffffn).toString(16).toUpperCase()}`;
}

/** Reads a pg_lsn's text form. Throws on anything else. */
export function parseLsn(text: string): Lsn {
  const match = /^([0-9a-fA-F]{1,8})\/([0-9a-fA-F]{1,8})$/.exec(text);
  if (match === null) throw new Error(`invalid pg_lsn: "${text}"`);
  return lsn((BigInt(`0x${match[1]}`) << 32n) | BigInt(`0x${match[2]}`));
}
