import type { StatementKind } from './kinds.ts';
import { MAYBE, READ_SETTING, SETTING, unsupported } from './kinds.ts';
import { child, flag, list, text } from './parser.ts';
import type { Node } from './parser.ts';

const USER_TWO_PHASE = unsupported(
  'the two-phase commit commands are used by the cluster itself',
  'End the transaction with COMMIT: it is prepared on every node before it commits.',
);

/** BEGIN, COMMIT and their relatives ("TransactionStmt"). */
export function classifyTransaction(node: Node): StatementKind {
  switch (text(node, 'kind')) {
    case 'TRANS_STMT_BEGIN':
      return begin('BEGIN', node);
    case 'TRANS_STMT_START':
      return begin('START TRANSACTION', node);
    case 'TRANS_STMT_COMMIT':
      return { type: 'commit', chain: flag(node, 'chain') };
    case 'TRANS_STMT_ROLLBACK':
      return { type: 'rollback', chain: flag(node, 'chain') };
    case 'TRANS_STMT_SAVEPOINT':
      return { type: 'savepoint', command: 'SAVEPOINT' };
    case 'TRANS_STMT_RELEASE':
      return { type: 'savepoint', command: 'RELEASE SAVEPOINT' };
    case 'TRANS_STMT_ROLLBACK_TO':
      return { type: 'savepoint', command: 'ROLLBACK TO SAVEPOINT' };
    default:
      return USER_TWO_PHASE;
  }
}

function begin(verb: string, node: Node): StatementKind {
  const options = list(node, 'options');
  const modes = transactionModes(options);
  const says = options.some((option) => modeName(option) === 'transaction_read_only');
  const write = (all: readonly string[]): string => [verb, all.join(', ')].join(' ').trim();
  return { type: 'begin', unchanged: write(modes), readWrite: write(says ? modes : [...modes, 'READ WRITE']) };
}

const modeName = (option: Node): string => text(child(option, 'DefElem'), 'defname');

/** The constant of a DefElem or a SET: A_Const in its several forms. An integer of zero is written as `{}`. */
function constant(node: Node): string {
  const value = child(node, 'A_Const');
  if ('sval' in value) return text(child(value, 'sval'), 'sval');
  if ('boolval' in value) return flag(child(value, 'boolval'), 'boolval') ? 'on' : 'off';
  if ('ival' in value)
    return typeof child(value, 'ival')['ival'] === 'number' ? String(child(value, 'ival')['ival']) : '0';
  return '';
}

/** Writes transaction modes back as SQL. */
function transactionModes(options: readonly Node[]): string[] {
  return options.map((option) => {
    const value = constant(child(child(option, 'DefElem'), 'arg'));
    switch (modeName(option)) {
      case 'transaction_isolation':
        return `ISOLATION LEVEL ${value.toUpperCase()}`;
      case 'transaction_read_only':
        return value === '0' ? 'READ WRITE' : 'READ ONLY';
      default:
        return value === '0' ? 'NOT DEFERRABLE' : 'DEFERRABLE';
    }
  });
}

/** As PostgreSQL's parse_bool: any unique beginning, in any case. */
function readBoolean(word: string): boolean | undefined {
  const value = word.toLowerCase();
  if (value === '') return undefined;
  if (['on', '1'].includes(value) || 'true'.startsWith(value) || 'yes'.startsWith(value)) return true;
  if (['of', 'off', '0'].includes(value) || 'false'.startsWith(value) || 'no'.startsWith(value)) return false;
  return undefined;
}

/**
 * SET and RESET ("VariableSetStmt"). Server sessions run with default_transaction_read_only on, so the client's own value is kept by
 * the session. Making the current transaction READ WRITE must never happen in a statement that is passed on as a read.
 */
export function classifySet(node: Node): StatementKind {
  const name = text(node, 'name').toLowerCase();
  const kind = text(node, 'kind');
  if (kind === 'VAR_RESET_ALL') return { type: 'set-read-only', value: 'reset', tag: 'RESET', sql: 'RESET ALL' };
  if (kind === 'VAR_SET_MULTI') return classifyModes(name, list(node, 'args'));
  if (name === 'transaction_read_only') return MAYBE;
  if (name === 'multimaster.read_after') return READ_SETTING;
  if (name === 'multimaster.read_level') return classifyReadLevel(kind, list(node, 'args').map(constant).join());
  if (name !== 'default_transaction_read_only' || flag(node, 'is_local')) return SETTING;
  if (kind === 'VAR_RESET') return { type: 'set-read-only', value: 'reset', tag: 'RESET', sql: undefined };
  if (kind === 'VAR_SET_DEFAULT') return { type: 'set-read-only', value: 'reset', tag: 'SET', sql: undefined };
  const value = readBoolean(list(node, 'args').map(constant).join());
  // What is no boolean gets PostgreSQL's own error.
  return value === undefined ? SETTING : { type: 'set-read-only', value, tag: 'SET', sql: undefined };
}

function classifyModes(name: string, modes: readonly Node[]): StatementKind {
  const access = modes.filter((mode) => modeName(mode) === 'transaction_read_only');
  if (access.length === 0) return SETTING;
  const readOnly = transactionModes(access).at(-1) === 'READ ONLY';
  if (name !== 'session characteristics') return readOnly ? SETTING : MAYBE;
  const others = transactionModes(modes.filter((mode) => !access.includes(mode)));
  const sql = others.length === 0 ? undefined : `SET SESSION CHARACTERISTICS AS TRANSACTION ${others.join(', ')}`;
  return { type: 'set-read-only', value: readOnly, tag: 'SET', sql };
}

const READ_LEVELS = ['local', 'session', 'strict'];

/** PostgreSQL takes any value for a setting that it does not know. */
function classifyReadLevel(kind: string, value: string): StatementKind {
  if (kind !== 'VAR_SET_VALUE' || value === '' || READ_LEVELS.includes(value.toLowerCase())) return READ_SETTING;
  return {
    ...{ type: 'unsupported', sqlstate: '22023' },
    reason: `invalid value for parameter "multimaster.read_level": "${value}"`,
    hint: `Available values: ${READ_LEVELS.join(', ')}.`,
  };
}
