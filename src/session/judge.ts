import type { StatementKind } from '../sql/kinds.ts';
import { MAYBE, READ, WRITE, changesReads, locksTables, takesSnapshot, unsupported } from '../sql/kinds.ts';
import type { Statement } from '../sql/classify.ts';
import type { Context } from './context.ts';

/** What a query text is to the session. */
export type Judgement =
  | { readonly type: 'read' }
  /**
   * One or more statements that need no attention of their own, some of which may write. `locks`: they may lock rows or tables.
   * `query`: it is a single INSERT, UPDATE, DELETE, MERGE or SELECT. `setsReads`: a single one that calls set_config() for one of the settings of reads.
   */
  | {
      readonly type: 'plain';
      readonly certain: boolean;
      readonly copyIn: boolean;
      readonly locks: boolean;
      readonly query: boolean;
      readonly setsReads?: boolean;
    }
  /** Statements that concern this session or server only. */
  | { readonly type: 'local'; readonly statement: Statement }
  | { readonly type: 'single'; readonly statement: Statement; readonly text: string }
  | { readonly type: 'several'; readonly statements: readonly Statement[]; readonly text: string }
  /** The parser here may be older than the server. */
  | { readonly type: 'syntax-error'; readonly several: boolean }
  | { readonly type: 'refused'; readonly reason: string; readonly hint: string };

type Plain = Extract<Judgement, { type: 'plain' }>;

const TOO_LONG = unsupported('the query is too long to be examined', 'Send it in several parts.');
const AMBIGUOUS = unsupported(
  'a backslash can mean different things with these settings',
  'Set standard_conforming_strings to on, and use UTF8 or a single-byte client_encoding.',
);
const NOT_BY_EXECUTE = unsupported(
  'EXECUTE runs nothing but queries in a coordinated database',
  'Execute the prepared statement through the protocol, or send its text.',
);
const READING: Judgement = { type: 'read' };
const PLAIN_MAYBE: Plain = { type: 'plain', certain: false, copyIn: false, locks: false, query: true };
const PLAIN_WRITE: Plain = { type: 'plain', certain: true, copyIn: false, locks: false, query: true };
const LOCKING_MAYBE: Plain = { ...PLAIN_MAYBE, locks: true };
const LOCKING_WRITE: Plain = { ...PLAIN_WRITE, locks: true };

/** Client encodings in which the second byte of a character may look like ASCII. */
const UNSAFE_ENCODINGS = new Set(['SJIS', 'SHIFT_JIS_2004', 'BIG5', 'GBK', 'GB18030', 'UHC', 'JOHAB']);

const FIRST_WORD = /^\s*(insert|update|delete|merge)\b/i;

/** Judges the text of a Query. */
export function judge(context: Context, bytes: Buffer, start: number, end: number): Judgement {
  if (isAmbiguous(context, bytes, start, end)) return refusal(AMBIGUOUS);
  const verdict = context.classifier.examine(bytes, start, end);
  if (verdict === 'read') return READING;
  if (verdict !== 'parse') {
    const certain = isCertain(bytes, start, end);
    const judgement =
      verdict === 'plain' ? (certain ? PLAIN_WRITE : PLAIN_MAYBE) : certain ? LOCKING_WRITE : LOCKING_MAYBE;
    return namesReadSetting(bytes.subarray(start, end)) ? { ...judgement, setsReads: true } : judgement;
  }
  const text = context.decode(bytes, start, end);
  const classified = context.classifier.classify(text);
  if (classified.type === 'too-long') return refusal(TOO_LONG);
  if (classified.type === 'syntax-error') return { type: 'syntax-error', several: /;\s*\S/.test(text) };
  if (classified.statements.some((statement) => !isExecutable(context, statement))) return refusal(NOT_BY_EXECUTE);
  return summarise(classified.statements, text);
}

/**
 * EXECUTE can name what was prepared through the protocol, and PostgreSQL lets that be anything. Whatever the session would attend to
 * if it came by itself must not come this way.
 */
function isExecutable(context: Context, { executes }: Statement): boolean {
  if (executes === undefined) return true;
  // As the protocol's messages name it.
  const { kind } = context.statements.find(context.encode(executes).toString('latin1'));
  return kind.type === 'write' || kind.type === 'show-read-only' || (isHarmlessLocal(kind) && !changesReads(kind));
}

function summarise(statements: readonly Statement[], text: string): Judgement {
  if (statements.length === 0) return READING;
  if (statements.length > 1) {
    // One by one, so that those behind it are read at the new level.
    if (statements.some(({ kind }) => changesReads(kind)) || namesReadSetting(text))
      return { type: 'several', statements, text };
    const locks = statements.some((statement) => statement.locks);
    if (!locks && statements.every(({ kind }) => isHarmlessLocal(kind))) return READING;
    if (!statements.every(({ kind }) => isQuiet(kind))) return { type: 'several', statements, text };
    return {
      type: 'plain',
      certain: statements.some(({ kind }) => kind.type === 'write' && kind.certain),
      copyIn: statements.some(({ kind }) => kind.type === 'write' && kind.copyIn),
      locks,
      query: false,
    };
  }
  const [statement] = statements;
  const { kind, locks, query } = statement;
  if (kind.type === 'read') return READING;
  if (kind.type === 'write' && !locksTables(kind))
    return {
      type: 'plain',
      certain: kind.certain,
      copyIn: kind.copyIn,
      locks,
      query,
      setsReads: namesReadSetting(text),
    };
  if (kind.type === 'local') return { type: 'local', statement };
  return { type: 'single', statement, text };
}

const READ_SETTINGS = /\bmultimaster\.read_(?:level|after)\b/i;
const MARK = 'multimaster.read_';

/** Whether a statement may call set_config() for one of the settings of reads. Lower case only: SET is known from the grammar. */
export function namesReadSetting(text: string | Buffer): boolean {
  return typeof text === 'string' ? READ_SETTINGS.test(text) : text.includes(MARK);
}

/** Whether a Query shows data. */
export function showsData(judgement: Judgement): boolean {
  switch (judgement.type) {
    case 'read':
    case 'plain':
      return true;
    case 'local':
    case 'single':
      return takesSnapshot(judgement.statement.kind);
    case 'several':
      return judgement.statements.some(({ kind }) => takesSnapshot(kind));
    case 'syntax-error':
    case 'refused':
      return false;
  }
}

const isHarmlessLocal = (kind: StatementKind): boolean =>
  kind.type === 'read' || (kind.type === 'local' && kind.forgets.what === 'nothing');

const isQuiet = (kind: StatementKind): boolean =>
  (kind.type === 'write' && !locksTables(kind)) || isHarmlessLocal(kind);

function refusal(kind: StatementKind): Judgement {
  return kind.type === 'unsupported' ? { type: 'refused', reason: kind.reason, hint: kind.hint } : READING;
}

function isAmbiguous(context: Context, bytes: Buffer, start: number, end: number): boolean {
  const { link } = context;
  if (link.standardStrings && !UNSAFE_ENCODINGS.has(link.encoding)) return false;
  return bytes.subarray(start, end).includes(0x5c);
}

/** Looks for the first word beyond white space only: behind a comment a write is found out a little later. */
function isCertain(bytes: Buffer, start: number, end: number): boolean {
  return FIRST_WORD.test(bytes.toString('latin1', start, Math.min(end, start + 64)));
}

interface ParsedText {
  readonly kind: StatementKind;
  /** Of a statement that is more than a query. */
  readonly text: string | undefined;
  readonly locks: boolean;
  /** See Judgement. */
  readonly query: boolean;
  readonly setsReads?: boolean | undefined;
}

/** Judges the text of a Parse: one statement. */
export function judgeParse(context: Context, bytes: Buffer, start: number, end: number): ParsedText {
  const judgement = judge(context, bytes, start, end);
  switch (judgement.type) {
    case 'read':
      return { kind: READ, text: undefined, locks: false, query: true };
    case 'plain':
      return {
        kind: judgement.copyIn ? { type: 'write', certain: true, copyIn: true } : judgement.certain ? WRITE : MAYBE,
        text: undefined,
        locks: judgement.locks,
        query: judgement.query,
        setsReads: judgement.setsReads,
      };
    case 'local':
      return { ...about(judgement.statement), text: undefined };
    case 'single':
      return {
        ...about(judgement.statement),
        text: judgement.text.slice(judgement.statement.start, judgement.statement.end),
      };
    case 'refused':
      return { kind: unsupported(judgement.reason, judgement.hint), text: undefined, locks: false, query: false };
    // PostgreSQL refuses both, with an error of its own.
    case 'several':
    case 'syntax-error':
      return { kind: MAYBE, text: undefined, locks: true, query: false };
  }
}

const about = ({ kind, locks }: Statement) => ({ kind, locks, query: false });
