import { createHmac, randomBytes, timingSafeEqual } from 'node:crypto';
import type { Socket } from 'node:net';
import type { LogIndex } from '../runtime/ids.ts';
import type { ShownLog, WentBack } from './peer-logs.ts';

/**
 * Mutual proof of the cluster's secret at the start of a peer connection, by challenge and response; the secret itself
 * does not travel. Three lines of JSON: the dialler's hello, the acceptor's challenge with its own proof, the dialler's
 * proof. What follows is in clear text: put peer links on a private network.
 */
export interface Hello {
  readonly protocol: number;
  readonly cluster: string;
  readonly node: number;
  /** The node that the dialler means to reach: a wrong address is noticed at once. */
  readonly to: number;
  readonly kind: LinkKind;
  readonly nonce: string;
  /** The dialler's decision log. Not said by earlier versions. */
  readonly log?: ShownLog;
}

/** The acceptor, which knows the secret, remembers more of the dialler's decision log than the dialler has. */
export class LogWentBack extends Error {
  override readonly name = 'LogWentBack';
  readonly had: LogIndex;

  constructor({ reason, had }: WentBack) {
    super(reason);
    this.had = had;
  }
}

/** `control` carries messages in order; `bulk` carries the chunks of large transactions. */
export type LinkKind = 'control' | 'bulk';

export const PROTOCOL = 1;
const MAX_LINE = 4096;
/** The role in the proof of an acceptor that refuses the dialler's log; what it has had stands for the challenge. */
const REFUSES = 'refuses log';

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

/** The dialler's side. Rejects with the acceptor's reason if it refuses, as LogWentBack where that is it. */
export async function greet(
  socket: Socket,
  secret: string,
  identity: Omit<Hello, 'nonce' | 'protocol'>,
): Promise<void> {
  const hello: Hello = { ...identity, protocol: PROTOCOL, nonce: randomBytes(16).toString('hex') };
  socket.write(`${JSON.stringify(hello)}\n`);
  const answer = JSON.parse(await readLine(socket)) as {
    challenge?: string;
    proof?: string;
    refused?: string;
    had?: LogIndex;
  };
  const { refused, had } = answer;
  if (refused !== undefined) {
    const reason = `refused by node ${identity.to}: ${refused}`;
    if (had !== undefined && sameProof(answer.proof, proof(secret, REFUSES, hello, String(had))))
      throw new LogWentBack({ reason, had });
    throw new Error(reason);
  }
  const challenge = String(answer.challenge);
  if (!sameProof(answer.proof, proof(secret, 'acceptor', hello, challenge))) {
    throw new Error(`node ${identity.to} does not know this cluster's secret`);
  }
  socket.write(`${JSON.stringify({ proof: proof(secret, 'dialler', hello, challenge) })}\n`);
}

/** The acceptor's side. `check` gives the reason to refuse a caller, if there is one. */
export async function receive(
  socket: Socket,
  secret: string,
  check: (hello: Hello) => string | WentBack | undefined,
): Promise<Hello> {
  const hello = JSON.parse(await readLine(socket)) as Hello;
  const reason = hello.protocol === PROTOCOL ? check(hello) : `peer protocol ${hello.protocol}, expected ${PROTOCOL}`;
  if (typeof reason === 'string') {
    socket.end(`${JSON.stringify({ refused: reason })}\n`);
    throw new Error(reason);
  }
  if (reason !== undefined) {
    // The dialler acts upon it, so it must know whose word it is.
    const { had } = reason;
    const refusal = { refused: reason.reason, had, proof: proof(secret, REFUSES, hello, String(had)) };
    socket.end(`${JSON.stringify(refusal)}\n`);
    throw new LogWentBack(reason);
  }
  const challenge = randomBytes(16).toString('hex');
  socket.write(`${JSON.stringify({ challenge, proof: proof(secret, 'acceptor', hello, challenge) })}\n`);
  const answer = JSON.parse(await readLine(socket)) as { proof?: unknown };
  if (!sameProof(answer.proof, proof(secret, 'dialler', hello, challenge))) {
    socket.end();
    throw new Error(`node ${hello.node} at ${socket.remoteAddress} does not know this cluster's secret`);
  }
  return hello;
}
