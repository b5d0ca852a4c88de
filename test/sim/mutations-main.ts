/**
 * `npx tsx test/sim/mutations-main.ts [--seeds 3000] [--only TEXT]`: which rule notices each deliberate fault, and after how
 * many runs.
 */
import { parseArgs } from 'node:util';
import { isNoticedByTests, judge } from './mutate.ts';
import { MUTATIONS } from './mutations.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string', default: '3000' },
    steps: { type: 'string', default: '4000' },
    jobs: { type: 'string', default: '2' },
    only: { type: 'string', default: '' },
  },
});

const waiting = MUTATIONS.filter(({ name }) => name.includes(values.only));
const width = Math.max(...waiting.map(({ name }) => name.length));
let missed = 0;

async function work(): Promise<void> {
  let mutation;
  while ((mutation = waiting.shift()) !== undefined) {
    const { name, rule, runs } = await judge(mutation, Number(values.seeds), Number(values.steps));
    const isExplained = mutation.because !== undefined && (await isNoticedByTests(mutation));
    if (rule === undefined && !isExplained) missed++;
    const by = mutation.noticedBy === undefined ? 'changes nothing' : `noticed by ${mutation.noticedBy}`;
    const verdict = rule ?? (isExplained ? `${by}: ${mutation.because}` : 'NOT CAUGHT');
    console.log(`${name.padEnd(width)}  ${String(runs).padStart(5)} runs  ${verdict}`);
  }
}

await Promise.all(Array.from({ length: Number(values.jobs) }, () => work()));
console.log(missed === 0 ? 'every fault is caught or explained' : `${missed} faults are not caught`);
process.exitCode = missed === 0 ? 0 : 1;
