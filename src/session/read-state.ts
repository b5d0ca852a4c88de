import { PgError } from '../runtime/errors.ts';
import type { LogIndex } from '../runtime/ids.ts';
import { READ_LEVELS } from './ports.ts';
import type { ReadLevel, ReadNeeds, Reads, ReadWait } from './ports.ts';

export const LEVEL_SETTING = 'multimaster.read_level';
export const AFTER_SETTING = 'multimaster.read_after';

/**
 * How new the reads of one session must be, as far as the session knows. PostgreSQL knows the settings, with all that ALTER ROLE, SET LOCAL and
 * savepoints do to them, and reports no change of them. So it is asked: at first, and again before the next read once a
 * statement has been run that may have changed them; in a block that holds such a statement before each read, and once
 * after its end. A session that asks for nothing pays one question when it connects. See procedures/reads.ts.
 */
export class ReadState {
  /** Something is to be asked or waited for before the next read. */
  active = true;
  /** A statement that may have changed the settings was run, and PostgreSQL has not been asked since. */
  changed = true;
  /** The same, or it has been asked in a transaction that may undo the change yet. */
  unsettled = true;
  /** The transaction in progress keeps the snapshot that it has taken; undefined where its isolation level is not known. */
  keepsSnapshot: boolean | undefined;
  /** What a read waits for at this moment. */
  wait: ReadWait | undefined;
  #level: ReadLevel;
  #after: LogIndex | undefined;
  /** The highest index that was waited for. */
  #reached = 0;
  /** The values of the settings as PostgreSQL told them last, for putting them back. */
  #texts: readonly [level: string, after: string];

  constructor(level: ReadLevel) {
    this.#level = level;
    this.#texts = [level, ''];
  }

  get level(): ReadLevel {
    return this.#level;
  }

  get texts(): readonly [level: string, after: string] {
    return this.#texts;
  }

  /** A statement that may change the settings is about to run. */
  touch(): void {
    this.changed = true;
    this.unsettled = true;
    this.active = true;
  }

  /** Transaction control, savepoints included, is about to run: it may undo such a change. */
  control(): void {
    if (this.unsettled) this.changed = true;
  }

  transactionEnded(): void {
    this.keepsSnapshot = undefined;
  }

  /** What the next read must wait for; undefined for nothing. */
  get needs(): ReadNeeds | undefined {
    const strict = this.#level === 'strict';
    return strict || this.#after !== undefined ? { strict, after: this.#after } : undefined;
  }

  /** What PostgreSQL says the settings are; `inBlock`: in a transaction, which may undo them. Answers why they can't be that. */
  told([level, after]: readonly [level: string, after: string], inBlock: boolean, reads: Reads): PgError | undefined {
    const known = level === '' ? reads.level : READ_LEVELS.find((one) => one === level.toLowerCase());
    if (known === undefined) return invalid(LEVEL_SETTING, level, `Available values: ${READ_LEVELS.join(', ')}.`);
    const index = after === '' ? undefined : reads.parseToken(after);
    if (after !== '' && index === undefined)
      return invalid(AFTER_SETTING, after, 'Give it what multimaster.token() answers on another node of this cluster.');
    this.#level = known;
    this.#after = index !== undefined && index > this.#reached ? index : undefined;
    this.#texts = [level, after];
    this.changed = false;
    if (!inBlock) this.unsettled = false;
    this.#update();
    return undefined;
  }

  /** This node has committed what the read waited for. */
  satisfied(): void {
    this.#reached = Math.max(this.#reached, this.#after ?? 0);
    this.#after = undefined;
    this.#update();
  }

  /** Ends a wait because the client wants it; false where there is none. */
  cancel(): boolean {
    if (this.wait === undefined) return false;
    this.wait.cancel();
    return true;
  }

  #update(): void {
    this.active = this.unsettled || this.needs !== undefined;
  }
}

function invalid(name: string, value: string, hint: string): PgError {
  return new PgError('22023', `invalid value for parameter "${name}": "${value}"`, { hint });
}
