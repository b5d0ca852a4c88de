import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Socket } from 'node:net';
import type { LogIndex } from '../runtime/ids.ts';
import type { ShownLog, WentBack } from './peer-logs.ts';

/**
 * Mutual proof of the cluster's secret at the start of a peer connection, by challenge and response; the secret itself
 * does not travel. Three lines of JSON: the dialler's hello, the acceptor's challenge with its own proof, the dialler's
 * proof with what it shows of its decision log. An acceptor that remembers more of that log says so in a fourth line and hangs up; else it says nothing
 * more. What follows is in clear text: put peer links on a private network.
 */
export interface Hello {
  readonly protocol: number;
  readonly cluster: string;
  readonly node: number;
  /** The node that the dialler means to reach: a wrong address is noticed at once. */
  readonly to: number;
  readonly kind: LinkKind;
  readonly nonce: string;
  /** Random, made by the process that dials. Earlier versions have none. */
  readonly run?: string;
}

/** `control` carries messages in order; `bulk` carries the chunks of large transactions. */
export type LinkKind = 'control' | 'bulk';

export const PROTOCOL = 1;
const MAX_LINE = 4096;
/** The role in the proof of an acceptor's fourth line. */
const OBJECTOR = 'objector';

function proof(secret: string, role: string, hello: Hello, challenge: string): string {
  const text = [role, hello.protocol, hello.cluster, hello.node, hello.to, hello.kind, hello.nonce, challenge].join(
    '\n',
  );
  return createHmac('sha256', secret).update(text).digest('hex');
}

function sameProof(a: unknown, b: string): boolean {
  return typeof a === 'string' && a.length === b.length && timingSafeEqual(Buffer.from(a), Buffer.from(b));
}

/** Reads one line and leaves the rest of the stream unread. Rejects on a long line, the end, or an error. */
function readLine(socket: Socket): Promise<string> {
  return new Promise((resolve, reject) => {
    let held = Buffer.alloc(0);
    const finish = (act: () => void) => {
      socket.off('readable', onReadable).off('close', onClose).off('error', reject);
      act();
    };
    const onClose = () => finish(() => reject(new Error('connection closed during the handshake')));
    const onReadable = () => {
      let chunk: Buffer | null;
      while ((chunk = socket.read() as Buffer | null) !== null) {
        held = Buffer.concat([held, chunk]);
        const end = held.indexOf(10);
        if (end >= 0) {
          if (end + 1 < held.length) socket.unshift(held.subarray(end + 1));
          finish(() => resolve(held.toString('utf8', 0, end)));
          return;
        }
        if (held.length > MAX_LINE) {
          finish(() => reject(new Error('handshake line too long')));
          return;
        }
      }
    };
    socket.on('readable', onReadable).once('close', onClose).once('error', reject);
    onReadable();
  });
}

/** What the dialler needs to know the acceptor's fourth line by. */
export interface Greeting {
  readonly hello: Hello;
  readonly challenge: string;
}

/** The dialler's side. `ownLog` is asked when the acceptor's challenge is there. Rejects with the acceptor's reason if it refuses. */
export async function greet(
  socket: Socket,
  secret: string,
  identity: Omit<Hello, 'nonce' | 'protocol'>,
  ownLog: () => ShownLog,
): Promise<Greeting> {
  const hello: Hello = { ...identity, protocol: PROTOCOL, nonce: randomBytes(16).toString('hex') };
  socket.write(`${JSON.stringify(hello)}\n`);
  const answer = JSON.parse(await readLine(socket)) as { challenge?: string; proof?: string; refused?: string };
  if (answer.refused !== undefined) throw new Error(`refused by node ${identity.to}: ${answer.refused}`);
  const challenge = String(answer.challenge);
  if (!sameProof(answer.proof, proof(secret, 'acceptor', hello, challenge))) {
    throw new Error(`node ${identity.to} does not know this cluster's secret`);
  }
  socket.write(`${JSON.stringify({ proof: proof(secret, 'dialler', hello, challenge), log: ownLog() })}\n`);
  return { hello, challenge };
}

/** Reads on after `greet`: the acceptor's word that the log went back. Rejects when the connection ends without one, or anything else comes. */
export async function objection(socket: Socket, secret: string, { hello, challenge }: Greeting): Promise<WentBack> {
  const line = await readLine(socket);
  const { refused, had, proof: given } = JSON.parse(line) as { refused: string; had: LogIndex; proof: unknown };
  if (!sameProof(given, proof(secret, OBJECTOR, hello, `${challenge} ${had}`)))
    throw new Error(`node ${hello.to} says something that nothing was asked about`);
  return { reason: `refused by node ${hello.to}: ${refused}`, had };
}

/**
 * The acceptor's side. `check` gives the reason to refuse a caller, if there is one; `remember`, asked before the challenge goes out, what the log that is
 * shown after it must have. Earlier versions show none.
 */
export async function receive(
  socket: Socket,
  secret: string,
  check: (hello: Hello) => string | undefined,
  remember: (hello: Hello) => (shown: ShownLog) => WentBack | undefined,
): Promise<{ readonly hello: Hello; readonly log: ShownLog | undefined }> {
  const hello = JSON.parse(await readLine(socket)) as Hello;
  const reason = hello.protocol === PROTOCOL ? check(hello) : `peer protocol ${hello.protocol}, expected ${PROTOCOL}`;
  if (reason !== undefined) {
    socket.end(`${JSON.stringify({ refused: reason })}\n`);
    throw new Error(reason);
  }
  // What is heard of the log while this connection is being made may be more than it had when it was shown.
  const judge = remember(hello);
  const challenge = randomBytes(16).toString('hex');
  socket.write(`${JSON.stringify({ challenge, proof: proof(secret, 'acceptor', hello, challenge) })}\n`);
  const answer = JSON.parse(await readLine(socket)) as { proof?: unknown; log?: ShownLog };
  if (!sameProof(answer.proof, proof(secret, 'dialler', hello, challenge))) {
    socket.end();
    throw new Error(`node ${hello.node} at ${socket.remoteAddress} does not know this cluster's secret`);
  }
  const { log } = answer;
  const wentBack = log === undefined ? undefined : judge(log);
  if (wentBack !== undefined) {
    const { reason: refused, had } = wentBack;
    // The dialler acts upon it, so it must know whose word it is.
    const given = proof(secret, OBJECTOR, hello, `${challenge} ${had}`);
    socket.end(`${JSON.stringify({ refused, had, proof: given })}\n`);
    throw new Error(refused);
  }
  return { hello, log };
}
