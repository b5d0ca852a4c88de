import type { PgError } from '../../runtime/errors.ts';
import { Backend } from '../../wire/codes.ts';
import type { ServerConnection } from '../../wire/connection.ts';
import { FrontendWriter } from '../../wire/frontend.ts';

/** Bytes that travel together, and that are read ahead of whoever takes them. */
const CHUNK = 64 * 1024;
const READ_AHEAD = 1024 * 1024;

/**
 * What a COPY … TO STDOUT sends, in pieces of some size, as slowly as it is taken. Gives the number of rows at the end; throws the server's error.
 */
export async function* copyOut(connection: ServerConnection, statement: string): AsyncGenerator<Buffer, number> {
  const chunks: Buffer[] = [];
  let gathered: Buffer[] = [];
  let size = 0;
  const state = { rows: 0, ended: false, failure: undefined as PgError | undefined };
  let wake: (() => void) | undefined;
  const cut = (): void => {
    if (gathered.length > 0) chunks.push(Buffer.concat(gathered));
    gathered = [];
    size = 0;
    wake?.();
  };
  connection.request(new FrontendWriter(statement.length + 64).query(statement).take(), {
    message: (type, bytes, start, end) => {
      if (type === Backend.commandComplete) state.rows = rowsOf(bytes.toString('latin1', start + 5, end - 1));
      if (type !== Backend.copyData) return;
      gathered.push(Buffer.from(bytes.subarray(start + 5, end)));
      size += end - start - 5;
      if (size < CHUNK) return;
      cut();
      if (chunks.length * CHUNK > READ_AHEAD) connection.pause();
    },
    done: (error) => {
      state.failure = error;
      state.ended = true;
      cut();
    },
  });
  for (;;) {
    const chunk = chunks.shift();
    if (chunk !== undefined) {
      if (chunks.length * CHUNK < READ_AHEAD) connection.resume();
      yield chunk;
    } else if (state.failure !== undefined) throw state.failure;
    else if (state.ended) return state.rows;
    else await new Promise<void>((resolve) => (wake = resolve));
  }
}

/** Of a command tag: `COPY 5`. */
const rowsOf = (tag: string): number => Number(/^COPY (\d+)$/.exec(tag)?.[1] ?? 0);

/** A COPY … FROM STDIN that is under way. */
export interface CopyIn {
  /** Resolves when more can be taken; a failure is told at the end. */
  write(bytes: Buffer): Promise<void>;
  /** The number of rows. Rejects with the server's error. */
  finish(): Promise<number>;
}

export function copyIn(connection: ServerConnection, statement: string): CopyIn {
  let rows = 0;
  const done = new Promise<number>((resolve, reject) => {
    connection.request(new FrontendWriter(statement.length + 64).query(statement).take(), {
      message: (type, bytes, start, end) => {
        if (type === Backend.commandComplete) rows = rowsOf(bytes.toString('latin1', start + 5, end - 1));
      },
      done: (error) => (error === undefined ? resolve(rows) : reject(error)),
    });
  });
  // Whoever finishes it is told.
  done.catch(() => undefined);
  return {
    write: async (bytes) => {
      if (!connection.write(new FrontendWriter(bytes.length + 16).copyData(bytes).take())) await connection.drained();
    },
    finish: () => {
      connection.write(new FrontendWriter(16).copyDone().take());
      return done;
    },
  };
}
