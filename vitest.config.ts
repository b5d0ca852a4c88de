import { defineConfig } from 'vitest/config';

/** Where .ci/run wants the machine-readable report; without it only the usual output is printed. */
const report = process.env['PGMM_TEST_REPORT'];

/** Of test/postgres: those that kill, pause or cut off nodes, and those that load the machine as much as they can. */
const ALONE = ['advisory-locks', 'cluster-pgbench', 'dev-lifecycle', 'dev', 'read-levels', 'replay-large'].map(
  (name) => `test/postgres/${name}.test.ts`,
);

/** Of test/faults: those that wait for data to be copied, however long it takes. */
const PATIENT = ['logical-copy', 'retention', 'tablespace'].map((name) => `test/faults/${name}.test.ts`);

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
          include: ['test/postgres/**/*.test.ts', ...PATIENT],
          exclude: ALONE,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          // Real servers that wait more than they compute: two files keep a machine of two cores busy.
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: 'faults',
          include: ['test/{faults,consistency}/**/*.test.ts', ...ALONE],
          exclude: PATIENT,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          // Timing is part of what they test: one file at a time.
          fileParallelism: false,
          sequence: { groupOrder: 2 },
        },
      },
    ],
  },
});
