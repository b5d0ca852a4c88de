import { defineConfig } from 'vitest/config';

/** Where .ci/run wants the machine-readable report; without it only the usual output is printed. */
const report = process.env['PGMM_TEST_REPORT'];

export default defineConfig({
  test: {
    teardownTimeout: 60_000,
    reporters: report === undefined ? ['default'] : ['default', ['json', { outputFile: report }]],
    projects: [
      {
        test: {
          name: 'unit',
          include: ['test/{unit,transcripts,sim}/**/*.test.ts'],
          // The simulator's runs are many small steps in one process: long for a unit test, and deterministic.
          testTimeout: 60_000,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'postgres',
          include: ['test/{postgres,faults,consistency}/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
          // Every file runs real servers, and timing is part of what they test: one file at a time.
          fileParallelism: false,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
});
