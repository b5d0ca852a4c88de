import { PgError } from '../runtime/errors.ts';
import { cstringEnd } from '../wire/backend-messages.ts';
import { takeSetting } from '../wire/startup-packet.ts';

/** What becomes of a StartupMessage. */
export type StartupPlan =
  /** A walsender connection: passed through untouched, both ways. */
  | { readonly type: 'replication' }
  | { readonly type: 'refused'; readonly error: PgError }
  | {
      readonly type: 'session';
      readonly database: string;
      /** For the server. */
      readonly parameters: ReadonlyMap<string, string>;
      /** The client's own default_transaction_read_only. */
      readonly readOnly: boolean;
    };

const READ_ONLY = 'default_transaction_read_only';
/** Tells the guard that a session goes through the proxy; see catalog/sql/guard.ts. */
const PROXY = 'multimaster.proxy';

/**
 * Server sessions of a coordinated database run with default_transaction_read_only on: what is passed on as a read can't
 * write, whatever functions and views it hides. The client's own setting is taken out and kept by the session. Parameters named in the packet
 * override `options` (process_startup_options in PostgreSQL), so both places are looked at.
 */
export function planStartup(parameters: ReadonlyMap<string, string>, databases: ReadonlySet<string>): StartupPlan {
  const user = parameters.get('user');
  if (user === undefined || user === '') {
    return { type: 'refused', error: fatal('28000', 'no PostgreSQL user name specified in startup packet') };
  }
  const replication = parameters.get('replication')?.toLowerCase() ?? 'false';
  if (!['false', 'off', 'no', '0', 'f', 'n'].includes(replication)) return { type: 'replication' };
  const given = parameters.get('database') ?? '';
  const database = given === '' ? user : given;
  if (!databases.has(database)) {
    return {
      type: 'refused',
      error: fatal('0A000', `database "${database}" is not coordinated by this cluster`, {
        hint: 'Add it to the configured databases, or connect to the PostgreSQL server itself.',
      }),
    };
  }
  const inOptions = takeSetting(parameters.get('options') ?? '', READ_ONLY);
  const value = parameters.get(READ_ONLY) ?? inOptions.values.at(-1) ?? 'off';
  const forServer = new Map(parameters);
  forServer.delete(READ_ONLY);
  forServer.set('options', [inOptions.rest, `-c ${READ_ONLY}=on -c ${PROXY}=on`].join(' ').trim());
  return {
    type: 'session',
    database,
    parameters: forServer,
    readOnly: ['on', 'true', 'yes', '1'].includes(value.toLowerCase()),
  };
}

/** An error before or instead of a session; FATAL as PostgreSQL's own are. */
export function fatal(sqlstate: string, message: string, more: { hint?: string; detail?: string } = {}): PgError {
  return new PgError(sqlstate, message, { severity: 'FATAL', ...more });
}

const AUTHENTICATION_SASL = 10;
const CHANNEL_BINDING = 'SCRAM-SHA-256-PLUS';

/**
 * AuthenticationSASL without the mechanism that binds to the TLS channel: the client's channel ends at the proxy, so the
 * server's is another one. The same buffer when there is nothing to take out.
 */
export function withoutChannelBinding(message: Buffer): Buffer {
  if (message.length < 10 || message.readInt32BE(5) !== AUTHENTICATION_SASL) return message;
  const mechanisms: string[] = [];
  for (let at = 9; at < message.length && message[at] !== 0;) {
    const end = cstringEnd(message, at, message.length);
    if (end === undefined) break;
    mechanisms.push(message.toString('latin1', at, end));
    at = end + 1;
  }
  if (!mechanisms.includes(CHANNEL_BINDING)) return message;
  const kept = mechanisms.filter((mechanism) => mechanism !== CHANNEL_BINDING);
  const body = Buffer.from(`${kept.map((mechanism) => `${mechanism}\0`).join('')}\0`, 'latin1');
  const result = Buffer.concat([message.subarray(0, 9), body]);
  result.writeUInt32BE(result.length - 1, 1);
  return result;
}
