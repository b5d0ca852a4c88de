import { describe, expect, it } from 'vitest';
import { check, countKinds } from '../../consistency/checker/check.ts';
import { isForbidden, type Level } from '../../consistency/levels.ts';
import { Rng } from '../../sim/rng.ts';
import { ToyStore, type Bug, type ToyLevel } from './toy-store.ts';

const LEVEL: Record<ToyLevel, Level> = {
  serial: 'SERIALIZABLE',
  snapshot: 'REPEATABLE READ',
  'read-committed': 'READ COMMITTED',
};
const SEEDS = Array.from({ length: 12 }, (_, i) => i + 1);

function forbidden(seed: number, level: ToyLevel, bug?: Bug): Record<string, number> {
  const history = new ToyStore(new Rng(seed), level, bug).run(400);
  const anomalies = check(history, { process: true, realtime: true });
  return countKinds(anomalies.filter(({ kind }) => isForbidden(kind, LEVEL[level], 'strict')));
}

/** As in a run under faults: what is of unknown outcome is asked for, and strict transactions alone keep the order of time. */
function underFaults(seed: number, level: ToyLevel, bug?: Bug): Record<string, number> {
  const store = new ToyStore(new Rng(seed), level, bug);
  const { transactions, final } = store.run(400);
  const asked = transactions.map((one, i) => ({
    ...one,
    strict: i % 3 !== 0,
    ...(one.outcome === 'unknown' && i % 2 === 0 ? { outcome: store.outcomeOf(one.id), ended: Infinity } : {}),
  }));
  const anomalies = check({ transactions: asked, final: final! }, { process: true });
  return countKinds(anomalies.filter(({ kind }) => isForbidden(kind, LEVEL[level], 'strict')));
}

describe('random histories', () => {
  it.each<ToyLevel>(['serial', 'snapshot', 'read-committed'])(
    'of a correct %s store show nothing forbidden',
    (level) => {
      for (const seed of SEEDS)
        for (const found of [forbidden(seed, level), underFaults(seed, level)])
          expect({ seed, found }).toEqual({ seed, found: {} });
    },
  );

  it.each<[Bug, ToyLevel, string]>([
    ['dirty-reads', 'read-committed', 'G1a'],
    ['no-row-locks', 'read-committed', 'G0'],
    ['no-first-committer', 'snapshot', 'lost-update'],
    ['lost-writes', 'serial', 'lost-append'],
    ['lost-writes', 'read-committed', 'lost-append'],
    ['old-snapshots', 'serial', 'stale-read'],
    ['old-snapshots', 'read-committed', ''],
    ['torn-snapshots', 'snapshot', 'G-single'],
    ['replayed-twice', 'read-committed', 'duplicate-elements'],
  ])('of a store with %s at %s show %s', (bug, level, kind) => {
    for (const seed of SEEDS)
      for (const found of [forbidden(seed, level, bug), underFaults(seed, level, bug)]) {
        // A store that reads afresh has no snapshots to be old.
        if (kind === '') expect({ seed, found }).toEqual({ seed, found: {} });
        else
          expect({ seed, kinds: Object.keys(found) }).toEqual({
            seed,
            kinds: expect.arrayContaining([kind]) as unknown,
          });
      }
  });
});
