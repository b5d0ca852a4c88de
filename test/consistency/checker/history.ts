/** One step of a transaction: a value appended to a key's list, or the list that a read returned. */
export type Step =
  | { readonly kind: 'append'; readonly key: string; readonly value: number }
  | { readonly kind: 'read'; readonly key: string; readonly values: readonly number[] };

/** Unknown: the client was not told (08007, a broken connection), so it may or may not be committed. */
export type Outcome = 'committed' | 'aborted' | 'unknown';

export interface Transaction {
  readonly id: number;
  /** The session that ran it; sessions run one transaction at a time. */
  readonly process: number;
  readonly steps: readonly Step[];
  readonly outcome: Outcome;
  /**
   * Before BEGIN was sent and after the answer to COMMIT came, on one monotonic clock. `ended` is Infinity for one that
   * is known to be committed only because the cluster was asked afterwards: then nothing says when.
   */
  readonly begun: number;
  readonly ended: number;
  /** Whether what was acknowledged before it began had to be shown by it, whatever holds for others. */
  readonly strict?: boolean;
}

export interface History {
  readonly transactions: readonly Transaction[];
  /** Each key's list when all was over; what was acknowledged has to be in it. */
  readonly final?: ReadonlyMap<string, readonly number[]>;
}
