import type { Lsn } from '../runtime/ids.ts';
import { classify } from './classify.ts';
import type { Statement } from './classify.ts';
import { examine } from './lexer.ts';
import type { Verdict } from './lexer.ts';
import { hashNames } from './names.ts';
import type { NameHashes, SafetyNames } from './names.ts';

/** Longer texts are rare and each different: they would only push the others out. */
const MAX_CACHED_LENGTH = 8192;
const MAX_CACHED = 1000;
/** The parser takes about 150 ns a byte, during which nothing else runs. */
const MAX_PARSED_LENGTH = 4 << 20;

export type Classified =
  | { readonly type: 'statements'; readonly statements: readonly Statement[] }
  | { readonly type: 'syntax-error' }
  | { readonly type: 'too-long' };

const NOTHING_HIDDEN = { functions: new Set<string>(), relations: new Set<string>() };

/** A bounded set of texts, least recently used first out. */
class Lru<Value> {
  readonly #entries = new Map<string, Value>();

  get(key: string): Value | undefined {
    const value = this.#entries.get(key);
    if (value !== undefined) {
      this.#entries.delete(key);
      this.#entries.set(key, value);
    }
    return value;
  }

  set(key: string, value: Value): void {
    if (this.#entries.size >= MAX_CACHED) {
      const oldest = this.#entries.keys().next();
      if (oldest.done !== true) this.#entries.delete(oldest.value);
    }
    this.#entries.set(key, value);
  }

  clear(): void {
    this.#entries.clear();
  }

  get size(): number {
    return this.#entries.size;
  }
}

/** Judges query texts of one database: the lexer first, the parser behind a cache where the lexer can't tell. */
export class Classifier {
  readonly #safety: () => SafetyNames;
  readonly #followLocks: boolean;
  readonly #parsed = new Lru<Classified>();
  /** Texts that looked like reads and turned out to write. */
  readonly #writing = new Lru<true>();
  #hashedFrom: SafetyNames | undefined;
  #hashes: NameHashes | undefined;

  /** `safety` may answer another object at any time; the same object means the same names. `followLocks`: advisory locks are the cluster's. */
  constructor(safety: () => SafetyNames, followLocks = false) {
    this.#safety = safety;
    this.#followLocks = followLocks;
  }

  /** A transaction may have taken advisory locks that no text shows. */
  get hidesAdvisoryLocks(): boolean {
    if (!this.#followLocks) return false;
    const { hiddenAdvisory, changingSince } = this.#safety();
    return changingSince !== undefined || (hiddenAdvisory?.functions.size ?? 0) > 0;
  }

  examine(bytes: Buffer, start: number, end: number): Verdict {
    const verdict = examine(bytes, start, end, this.#names());
    if (verdict !== 'read' || this.#writing.size === 0) return verdict;
    // What it does is not to be seen in it.
    return this.#writing.get(bytes.toString('latin1', start, end)) === undefined ? 'read' : 'locking';
  }

  /** To be called when the server refused a statement that was passed on as a read, because it tried to write. */
  learnWriting(bytes: Buffer, start: number, end: number): void {
    if (end - start <= MAX_CACHED_LENGTH) this.#writing.set(bytes.toString('latin1', start, end), true);
  }

  classify(text: string): Classified {
    // What was parsed was judged by the names there were.
    if (this.#followLocks) this.#names();
    const known = this.#parsed.get(text);
    if (known !== undefined) return known;
    if (text.length > MAX_PARSED_LENGTH) return { type: 'too-long' };
    const statements = classify(
      text,
      this.#followLocks ? (this.#safety().hiddenAdvisory ?? NOTHING_HIDDEN) : undefined,
    );
    const result: Classified = statements === undefined ? { type: 'syntax-error' } : { type: 'statements', statements };
    if (text.length <= MAX_CACHED_LENGTH) this.#parsed.set(text, result);
    return result;
  }

  /** Functions, triggers or views of the database lock rows or tables, so that no text tells whether a statement does. */
  get hidesLocks(): boolean {
    return this.#safety().hidesLocks;
  }

  /** Since this position in the WAL they may, and nobody has looked yet. */
  get changingSince(): Lsn | undefined {
    return this.#safety().changingSince;
  }

  #names(): NameHashes {
    const names = this.#safety();
    if (this.#hashes === undefined || names !== this.#hashedFrom) {
      if (this.#hashedFrom?.hiddenAdvisory !== names.hiddenAdvisory) this.#parsed.clear();
      this.#hashes = hashNames(names, this.#followLocks);
      this.#hashedFrom = names;
    }
    return this.#hashes;
  }
}
