import { ADMIT_WITHIN } from './leader-duties.ts';

export interface AdmissionSettings {
  /** Milliseconds that a member's vote is waited for, which is what it costs the others to let in a node that can't keep up. */
  readonly voteTimeout: number;
  readonly resendAfter: number;
}

/** Of membership in a row that ended for want of votes, from the second on: each pause is twice the one before. */
const LONGEST_PAUSE = 600_000;
/** A member for this many vote timeouts is taken to keep up. */
const STEADY = 20;
/** Requests that may go by without a commit. */
const PATIENCE = 4;

/**
 * When a node that is out may ask to be let in. Every member's vote is waited for, so one that can't keep up stops the others' writes until it is excluded
 * again; were it to ask again at once, it would stop them for good. Times are monotonic milliseconds.
 */
export class Admission {
  readonly #settings: AdmissionSettings;
  #askedAt = -Infinity;
  #committedAt = -Infinity;
  #admittedAt = 0;
  #notBefore = -Infinity;
  #failures = 0;

  constructor(settings: AdmissionSettings) {
    this.#settings = settings;
  }

  /** Something of the log was committed here. */
  committed(now: number): void {
    this.#committedAt = now;
  }

  admitted(now: number): void {
    this.#admittedAt = now;
  }

  /** `slow`: its votes did not come. */
  excluded(now: number, slow: boolean): void {
    if (!slow) return;
    const { voteTimeout } = this.#settings;
    this.#failures = now - this.#admittedAt < STEADY * voteTimeout ? this.#failures + 1 : 1;
    // The first time it may have been a moment of weakness.
    const pause = this.#failures === 1 ? 0 : voteTimeout * 2 ** (this.#failures - 2);
    this.#notBefore = now + Math.min(pause, LONGEST_PAUSE);
  }

  /** Another leader has to be asked. */
  leaderChanged(): void {
    this.#askedAt = -Infinity;
  }

  /**
   * Asks at intervals, when little is left to be committed here (`remaining` entries) and that little gets less: what is missing may not be to be had
   * from anyone.
   */
  isTime(now: number, remaining: number): boolean {
    const { resendAfter } = this.#settings;
    if (now < this.#notBefore || now - this.#askedAt < resendAfter || remaining > ADMIT_WITHIN) return false;
    if (remaining > 0 && now - this.#committedAt > PATIENCE * resendAfter) return false;
    this.#askedAt = now;
    return true;
  }

  /** Milliseconds until it may ask again, 0 if it is not held back. */
  pause(now: number): number {
    return Math.max(0, this.#notBefore - now);
  }
}
