/** Writes pgoutput messages ("Logical Replication Message Formats") for tests. */

const int16 = (n: number) => {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(n);
  return bytes;
};
const int32 = (n: number) => {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(n);
  return bytes;
};
const int64 = (n: bigint) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64BE(n);
  return bytes;
};
const cstring = (text: string) => Buffer.from(`${text}\0`);
const join = (...parts: (Buffer | string)[]) => Buffer.concat(parts.map((part) => Buffer.from(part)));

export type Cell = string | Buffer | null | undefined;

export function tuple(cells: readonly Cell[]): Buffer {
  const parts = cells.map((cell) => {
    if (cell === null) return Buffer.from('n');
    if (cell === undefined) return Buffer.from('u');
    const bytes = Buffer.from(cell);
    return join('t', int32(bytes.length), bytes);
  });
  return join(int16(cells.length), ...parts);
}

export interface TestColumn {
  readonly name: string;
  readonly key?: boolean;
}

export const relation = (id: number, schema: string, name: string, columns: readonly TestColumn[], identity = 'd') =>
  join(
    'R',
    int32(id),
    cstring(schema),
    cstring(name),
    identity,
    int16(columns.length),
    ...columns.map(({ name: column, key }) =>
      join(Buffer.from([key === true ? 1 : 0]), cstring(column), int32(25), int32(0xffffffff)),
    ),
  );

export const insert = (id: number, row: readonly Cell[]) => join('I', int32(id), 'N', tuple(row));
export const update = (id: number, row: readonly Cell[], old?: { kind: 'K' | 'O'; row: readonly Cell[] }) =>
  join('U', int32(id), ...(old === undefined ? [] : [old.kind, tuple(old.row)]), 'N', tuple(row));
export const remove = (id: number, kind: 'K' | 'O', row: readonly Cell[]) => join('D', int32(id), kind, tuple(row));
export const truncate = (ids: readonly number[], flags: number) =>
  join('T', int32(ids.length), Buffer.from([flags]), ...ids.map(int32));
export const logical = (prefix: string, content: string, transactional = true) =>
  join('M', Buffer.from([transactional ? 1 : 0]), int64(1n), cstring(prefix), int32(content.length), content);
export const beginPrepare = (gid: string, lsn = 100n) =>
  join('b', int64(lsn), int64(lsn + 10n), int64(0n), int32(7), cstring(gid));
export const commitPrepared = (gid: string) =>
  join('K', Buffer.from([0]), int64(1n), int64(2n), int64(0n), int32(9), cstring(gid));
export const rollbackPrepared = (gid: string) =>
  join('r', Buffer.from([0]), int64(1n), int64(2n), int64(0n), int64(0n), int32(11), cstring(gid));

/** As the decoder hands them on. */
export const record = (message: Buffer) => join(int32(message.length), message);
