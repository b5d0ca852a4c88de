/**
 * Prints "N passed, N failed" from vitest's JSON report, as the last line of .ci/run. What fails outside a test (the
 * build, a rule, a file that can't be loaded, an error after the last test) is a failure too, so that this line never
 * says 0 failed when the run has failed.
 */
import { readFileSync } from 'node:fs';

const [file, status] = process.argv.slice(2);

function count() {
  let report;
  try {
    report = JSON.parse(readFileSync(file, 'utf8'));
  } catch {
    console.log('no test has run: an earlier step failed, or the report is missing');
    return { passed: 0, failed: 1 };
  }
  const broken = report.testResults.filter(
    ({ status, assertionResults }) => status === 'failed' && assertionResults.length === 0,
  );
  const failed = report.numFailedTests + broken.length;
  const skipped = report.numPendingTests + report.numTodoTests;
  if (skipped > 0) console.log(`${skipped} skipped`);
  const outside = failed === 0 && (!report.success || status !== '0') ? 1 : 0;
  return { passed: report.numPassedTests, failed: failed + outside };
}

const { passed, failed } = count();
if (passed === 0 && failed === 0) console.log('the report holds no test');
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed > 0 || passed === 0 ? 1 : 0;
