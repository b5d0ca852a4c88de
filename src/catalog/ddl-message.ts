import { createHmac, timingSafeEqual } from 'node:crypto';

/** What a peer must know to run a DDL statement as its origin did. */
export interface DdlStatement {
  /** One statement, as the client wrote it. */
  readonly statement: string;
  /** current_user at the origin: becomes the owner of what is created. */
  readonly role: string;
  /** session_user, which a statement may name as an owner. */
  readonly sessionRole: string;
  /** The settings that can change what the statement means, by name. */
  readonly settings: Readonly<Record<string, string>>;
}

/**
 * The transactional logical message that carries a DDL statement inside its own transaction, before its effects. Anyone may
 * emit a logical message, and peers replay with a superuser's rights: so each is signed with the cluster's secret, for one
 * place in one transaction. An unsigned or a copied message is refused, and the transaction with it.
 */
export class DdlMessages {
  readonly #secret: string;

  constructor(secret: string) {
    this.#secret = secret;
  }

  /** `ordinal` counts the DDL statements of the transaction from 0, those that failed or were rolled back as well. */
  encode(gid: string, ordinal: number, ddl: DdlStatement): string {
    const { statement, role, sessionRole, settings } = ddl;
    const body = JSON.stringify({ gid, ordinal, statement, role, sessionRole, settings });
    return `${this.#sign(body)} ${body}`;
  }

  /** Undefined when the content was not signed for this very place. */
  decode(content: Buffer, gid: string, ordinal: number): DdlStatement | undefined {
    const text = content.toString('utf8');
    const space = text.indexOf(' ');
    const body = text.slice(space + 1);
    const signature = Buffer.from(text.slice(0, Math.max(space, 0)));
    const expected = Buffer.from(this.#sign(body));
    if (signature.length !== expected.length || !timingSafeEqual(signature, expected)) return undefined;
    const message = JSON.parse(body) as DdlStatement & { gid: string; ordinal: number };
    return message.gid === gid && message.ordinal === ordinal ? message : undefined;
  }

  #sign(body: string): string {
    return createHmac('sha256', this.#secret).update('ddl\n').update(body).digest('base64');
  }
}

/**
 * The ordinal that a message says it has, before anything is verified; undefined where there is none. Ordinals rise from
 * message to message, with gaps where a savepoint was rolled back.
 */
export function statedOrdinal(content: Buffer): number | undefined {
  const text = content.toString('utf8');
  const match = /^\S+ \{"gid":"[^"]*","ordinal":(\d+),/.exec(text);
  return match === null ? undefined : Number(match[1]);
}

/** The statements that replay a DDL statement inside the apply session's transaction, and leave the session as it was. */
export function replayStatements(ddl: DdlStatement): string[] {
  const settings = Object.entries(ddl.settings);
  return [
    ...settings.map(([name, value]) => `SELECT pg_catalog.set_config(${literal(name)}, ${literal(value)}, true)`),
    `SET LOCAL SESSION AUTHORIZATION ${identifier(ddl.sessionRole)}`,
    `SET LOCAL ROLE ${identifier(ddl.role)}`,
    ddl.statement,
    'SET LOCAL SESSION AUTHORIZATION DEFAULT',
    ...settings.map(([name]) => `SET LOCAL ${identifier(name)} TO DEFAULT`),
  ];
}

/** A string constant that means the same whatever standard_conforming_strings is. */
function literal(text: string): string {
  const quoted = text.replaceAll("'", "''");
  return quoted.includes('\\') ? `E'${quoted.replaceAll('\\', '\\\\')}'` : `'${quoted}'`;
}

function identifier(name: string): string {
  return `"${name.replaceAll('"', '""')}"`;
}
