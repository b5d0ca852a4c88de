/** Codes in place of a protocol version ("Message Formats": SSLRequest, GSSENCRequest, CancelRequest). */
const SSL_REQUEST = 80877103;
const GSSENC_REQUEST = 80877104;
const CANCEL_REQUEST = 80877102;
/** PostgreSQL's MAX_STARTUP_PACKET_LENGTH. */
const MAX_LENGTH = 10000;

export type StartupPacket =
  | { readonly type: 'ssl' }
  | { readonly type: 'gssenc' }
  | { readonly type: 'cancel'; readonly pid: number; readonly key: Buffer }
  | { readonly type: 'startup'; readonly version: number; readonly parameters: ReadonlyMap<string, string> };

/**
 * Reads the untyped packet that opens a connection. Undefined while it is incomplete; throws RangeError on anything that
 * is no startup packet. `used` is how many bytes it took.
 */
export function readStartupPacket(bytes: Buffer): { packet: StartupPacket; used: number } | undefined {
  if (bytes.length < 4) return undefined;
  const length = bytes.readUInt32BE(0);
  if (length < 8 || length > MAX_LENGTH) throw new RangeError('invalid length of startup packet');
  if (bytes.length < length) return undefined;
  const code = bytes.readUInt32BE(4);
  return { packet: readBody(code, bytes.subarray(8, length)), used: length };
}

function readBody(code: number, body: Buffer): StartupPacket {
  switch (code) {
    case SSL_REQUEST:
      return { type: 'ssl' };
    case GSSENC_REQUEST:
      return { type: 'gssenc' };
    case CANCEL_REQUEST:
      // 4 bytes of key in protocol 3.0, up to 256 in 3.2.
      if (body.length < 8) throw new RangeError('invalid length of cancel request');
      return { type: 'cancel', pid: body.readInt32BE(0), key: Buffer.from(body.subarray(4)) };
    default:
      return { type: 'startup', version: code, parameters: readParameters(body) };
  }
}

function readParameters(body: Buffer): Map<string, string> {
  const parameters = new Map<string, string>();
  const strings = body.toString('latin1', 0, body.length).split('\0');
  for (let i = 0; i + 1 < strings.length && strings[i] !== ''; i += 2) parameters.set(strings[i], strings[i + 1]);
  return parameters;
}

/** Parameters are latin1 so that bytes of any encoding survive. */
export function startupMessage(version: number, parameters: ReadonlyMap<string, string>): Buffer {
  const text = [...parameters].map(([name, value]) => `${name}\0${value}\0`).join('');
  const body = Buffer.from(`${text}\0`, 'latin1');
  const bytes = Buffer.alloc(8 + body.length);
  bytes.writeUInt32BE(bytes.length, 0);
  bytes.writeUInt32BE(version, 4);
  body.copy(bytes, 8);
  return bytes;
}

export function cancelRequest(pid: number, key: Buffer): Buffer {
  const bytes = Buffer.alloc(12 + key.length);
  bytes.writeUInt32BE(bytes.length, 0);
  bytes.writeUInt32BE(CANCEL_REQUEST, 4);
  bytes.writeInt32BE(pid, 8);
  key.copy(bytes, 12);
  return bytes;
}

/**
 * Splits `options` as PostgreSQL's pg_split_opts: at white space, a backslash keeps the next character. Returns the values
 * given for one setting (`-c name=value`, `-cname=value` or `--name=value`) in order, and the text without them.
 */
export function takeSetting(options: string, setting: string): { values: string[]; rest: string } {
  const words = options.match(/(?:\\.|[^\s\\])+/g) ?? [];
  const values: string[] = [];
  const rest: string[] = [];
  for (let i = 0; i < words.length; i++) {
    const separate = words[i] === '-c' && i + 1 < words.length;
    const assignment = separate ? words[i + 1] : (/^(?:-c|--)(.+)$/.exec(words[i])?.[1] ?? '');
    const [name, value = ''] = assignment.split(/=(.*)/s);
    if (name.replaceAll('-', '_').toLowerCase() === setting) values.push(value.replace(/\\(.)/g, '$1'));
    else rest.push(separate ? `-c ${assignment}` : words[i]);
    if (separate) i++;
  }
  return { values, rest: rest.join(' ') };
}
