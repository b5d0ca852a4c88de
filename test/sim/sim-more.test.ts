/** The other half of the runs of sim.test.ts: test files run side by side. */
import { test } from 'vitest';
import { runShare, SEEDS } from './share.ts';

const FIRST = Math.floor(SEEDS / 2) + 1;

test(`the runs from ${FIRST} to ${SEEDS} break no rule`, { timeout: 3_600_000 }, () => runShare(FIRST, SEEDS));
