import { hashName } from './names.ts';
import type { NameHashes } from './names.ts';

/**
 * `read`: certainly changes nothing, as far as names tell. `plain`: one SELECT, INSERT, UPDATE, DELETE, MERGE or the like that
 * needs no closer look but may change data. `locking`: the same, and it may name rows to be locked. `parse`: only the real parser
 * can tell.
 */
export type Verdict = 'read' | 'plain' | 'locking' | 'parse';

const START = new Uint8Array(256);
const WORD = new Uint8Array(256);
const LOWER = new Uint8Array(256);
for (let c = 0; c < 256; c++) {
  const upper = c >= 0x41 && c <= 0x5a;
  const letter = upper || (c >= 0x61 && c <= 0x7a) || c === 0x5f || c >= 0x80;
  const digit = c >= 0x30 && c <= 0x39;
  START[c] = letter ? 1 : 0;
  WORD[c] = letter || digit || c === 0x24 ? 1 : 0;
  LOWER[c] = upper ? c + 32 : c;
}

const QUOTE = 0x27;
const DOUBLE_QUOTE = 0x22;
const BACKSLASH = 0x5c;
const FNV = 0x01000193;
const FNV_START = 0x811c9dc5 | 0;

const hashes = (...words: string[]): ReadonlySet<number> => new Set(words.map(hashName));

/** First words of statements that change nothing, unless a word below or a function call says otherwise. */
const READ_FIRST = hashes('select', 'values', 'table', 'with', 'show', 'explain');
const WRITE_FIRST = hashes('insert', 'update', 'delete', 'merge');
/** Data-changing WITH, and FOR UPDATE, FOR NO KEY UPDATE, FOR SHARE, FOR KEY SHARE. As names of columns they cost a little time. */
const CHANGING = hashes('insert', 'update', 'delete', 'merge', 'share');
const ANALYZE = hashes('analyze', 'analyse', 'execute');
const HIDDEN_SETTINGS = hashes('default_transaction_read_only', 'transaction_read_only');
const INTO = hashName('into');
const FOR = hashName('for');
const KEY = hashName('key');
const SHARE = hashName('share');
const UPDATE = hashName('update');
const INSERT = hashName('insert');
const MERGE = hashName('merge');
const EXPLAIN = hashName('explain');
const SHOW = hashName('show');

/**
 * One pass over a query string by the rules of "Lexical Structure", in less than a microsecond for ordinary statements. It
 * must never call something a read that is not: whatever it is not sure of, the parser gets.
 */
export function examine(bytes: Uint8Array, start: number, end: number, names: NameHashes): Verdict {
  let at = start;
  let first = 0;
  let statements = 0;
  let reading = true;
  let locking = false;
  /** The hash of the name just passed; 0 after anything else. A name before a parenthesis is called. */
  let name = 0;
  let afterDot = false;
  while (at < end) {
    const c = bytes[at];
    if (c <= 0x20) {
      at++;
      continue;
    }
    if (START[c] === 1) {
      const from = at;
      let hash = FNV_START;
      do hash = Math.imul(hash ^ LOWER[bytes[at++]], FNV);
      while (at < end && WORD[bytes[at]] === 1);
      hash |= 0;
      if (at < end && bytes[at] === QUOTE && at - from === 1 && LOWER[c] === 0x65) {
        at = skipEscapeString(bytes, at, end);
        if (at < 0 || first === 0) return 'parse';
        name = 0;
        continue;
      }
      if (at + 1 < end && bytes[at] === 0x26 && at - from === 1 && LOWER[c] === 0x75) {
        if (bytes[at + 1] === QUOTE || bytes[at + 1] === DOUBLE_QUOTE) return 'parse';
      }
      if (first === 0) {
        first = hash;
        statements++;
        if (WRITE_FIRST.has(hash)) reading = false;
        else if (!READ_FIRST.has(hash)) return 'parse';
      } else if (CHANGING.has(hash)) {
        if (first === EXPLAIN) return 'parse';
        reading = false;
        if (hash === SHARE || (hash === UPDATE && (name === FOR || name === KEY))) locking = true;
      } else if (hash === INTO) {
        if (first !== INSERT && first !== MERGE) return 'parse';
      } else if ((first === EXPLAIN && ANALYZE.has(hash)) || (first === SHOW && HIDDEN_SETTINGS.has(hash))) {
        return 'parse';
      }
      if (names.tainted.has(hash) || (afterDot && names.volatile.has(hash))) {
        if (names.locking.has(hash)) return 'parse';
        reading = false;
      }
      name = hash;
      afterDot = false;
      continue;
    }
    if (c === DOUBLE_QUOTE) {
      // What is quoted may be an option of EXPLAIN, or a setting.
      if (first === 0 || first === EXPLAIN || first === SHOW) return 'parse';
      const from = at + 1;
      let hash = FNV_START;
      for (at = from; at < end && bytes[at] !== DOUBLE_QUOTE; at++) hash = Math.imul(hash ^ bytes[at], FNV);
      // A doubled quote inside a name is rare enough for the parser.
      if (at >= end || bytes[at + 1] === DOUBLE_QUOTE) return 'parse';
      at++;
      name = hash | 0;
      if (names.tainted.has(name) || (afterDot && names.volatile.has(name))) {
        if (names.locking.has(name)) return 'parse';
        reading = false;
      }
      afterDot = false;
      continue;
    }
    if (c === 0x2d && bytes[at + 1] === 0x2d && at + 1 < end) {
      while (at < end && bytes[at] !== 0x0a && bytes[at] !== 0x0d) at++;
      continue;
    }
    if (c === 0x2f && bytes[at + 1] === 0x2a && at + 1 < end) {
      at = skipComment(bytes, at, end);
      if (at < 0) return 'parse';
      continue;
    }
    if (c === 0x28) {
      if (name !== 0) {
        if (names.unsupported.has(name)) return 'parse';
        if (names.volatile.has(name)) reading = false;
      }
      at++;
    } else if (c === QUOTE) {
      at = skipString(bytes, at, end);
      if (at < 0) return 'parse';
    } else if (c === 0x24) {
      at = skipDollar(bytes, at, end);
      if (at < 0) return 'parse';
    } else if (c === 0x3b) {
      first = 0;
      at++;
    } else if (c >= 0x30 && c <= 0x39) {
      do at++;
      while (at < end && (WORD[bytes[at]] === 1 || bytes[at] === 0x2e));
    } else {
      afterDot = c === 0x2e;
      name = 0;
      at++;
      continue;
    }
    name = 0;
    afterDot = false;
  }
  if (reading) return 'read';
  if (statements !== 1) return 'parse';
  return locking ? 'locking' : 'plain';
}

/** From the opening quote to after the closing one; -1 when there is none. A doubled quote stands for one. */
function skipString(bytes: Uint8Array, from: number, end: number): number {
  let at = from + 1;
  while (at < end) {
    if (bytes[at++] !== QUOTE) continue;
    if (at < end && bytes[at] === QUOTE) at++;
    else return at;
  }
  return -1;
}

/** E'…': a backslash takes the next byte with it. A continuation on the next line is left to the parser (-1). */
function skipEscapeString(bytes: Uint8Array, from: number, end: number): number {
  let at = from + 1;
  for (;;) {
    if (at >= end) return -1;
    const c = bytes[at++];
    if (c === BACKSLASH) at++;
    else if (c === QUOTE) {
      if (at < end && bytes[at] === QUOTE) at++;
      else break;
    }
  }
  let next = at;
  while (next < end && bytes[next] <= 0x20) next++;
  return next < end && (bytes[next] === QUOTE || bytes[next] === 0x2d) ? -1 : at;
}

/** Comments nest. */
function skipComment(bytes: Uint8Array, from: number, end: number): number {
  let depth = 1;
  let at = from + 2;
  while (at + 1 < end) {
    if (bytes[at] === 0x2f && bytes[at + 1] === 0x2a) {
      depth++;
      at += 2;
    } else if (bytes[at] === 0x2a && bytes[at + 1] === 0x2f) {
      depth--;
      at += 2;
      if (depth === 0) return at;
    } else at++;
  }
  return -1;
}

/** $1, $$…$$ or $tag$…$tag$; -1 when a quote does not end. */
function skipDollar(bytes: Uint8Array, from: number, end: number): number {
  let at = from + 1;
  if (at < end && bytes[at] !== 0x24 && START[bytes[at]] === 0) {
    while (at < end && WORD[bytes[at]] === 1) at++;
    return at;
  }
  while (at < end && bytes[at] !== 0x24) if (WORD[bytes[at++]] === 0) return -1;
  if (at >= end) return -1;
  const length = ++at - from;
  for (; at + length <= end; at++) {
    if (bytes[at] !== 0x24) continue;
    let same = 1;
    while (same < length && bytes[at + same] === bytes[from + same]) same++;
    if (same === length) return at + length;
  }
  return -1;
}
