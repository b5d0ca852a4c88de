import { printFailure, runSeed } from './run.ts';
const args = process.argv.slice(2);
const value = (name: string, fallback: string) => {
  const i = args.indexOf(`--${name}`);
  return i < 0 ? fallback : (args[i + 1] ?? fallback);
};
const steps = Number(value('steps', '4000'));
if (args.includes('--seed')) {
  const r = runSeed(Number(value('seed', '1')), steps, args.includes('--verbose'));
  if (r.failure) console.log(printFailure(r));
  else console.log(r.hash, r.steps, r.time, r.counts);
} else {
  const [a, b] = value('seeds', '1..100').split('..').map(Number) as [number, number];
  const total = new Map<string, number>();
  const rules = new Map<string, number[]>();
  const t0 = Date.now();
  let st = 0;
  for (let s = a; s <= b; s++) {
    const r = runSeed(s, steps);
    st += r.steps;
    for (const [k, v] of r.counts) total.set(k, (total.get(k) ?? 0) + v);
    if (r.failure) {
      const key =
        r.failure.rule +
        ' | ' +
        r.failure.message
          .slice(0, 100)
          .replace(/pgmm:\S+/g, 'GID')
          .replace(/\d+/g, 'N');
      rules.set(key, [...(rules.get(key) ?? []), s]);
    }
  }
  console.log(
    [...total]
      .sort()
      .map(([k, v]) => `${k}: ${v}`)
      .join('\n'),
  );
  console.log(`${b - a + 1} seeds, ${st} steps, ${Date.now() - t0} ms`);
  for (const [k, v] of rules) console.log(v.length, k, v.slice(0, 8));
}
