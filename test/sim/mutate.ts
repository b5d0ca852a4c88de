import { spawn } from 'node:child_process';
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { createRequire } from 'node:module';
import type { Mutation } from './mutations.ts';

export interface Verdict {
  readonly name: string;
  /** The rule that was broken; undefined if no seed broke one. */
  readonly rule: string | undefined;
  /** How many runs it took. */
  readonly runs: number;
}

const root = fileURLToPath(new URL('../..', import.meta.url));

/** The sources with the mutation in them, and the simulator, in a directory of their own. */
async function copyWith(mutation: Mutation): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), 'sim-mutation-'));
  for (const folder of ['src/cluster', 'src/commit', 'src/consensus', 'src/runtime', 'test/sim']) {
    await cp(join(root, folder), join(directory, folder), { recursive: true });
  }
  await writeFile(join(directory, 'package.json'), '{ "type": "module" }\n');
  for (const [file, from, to] of mutation.edits) {
    const path = join(directory, file);
    const source = await readFile(path, 'utf8');
    const parts = source.split(from);
    if (parts.length < 2) throw new Error(`mutation "${mutation.name}" does not apply to ${file}: ${from}`);
    await writeFile(path, [parts[0], parts.slice(1).join(from)].join(to));
  }
  return directory;
}

/** Whether the tests that a mutation names fail with it, and pass without; true if it names none, as there is nothing to notice. */
export async function isNoticedByTests(mutation: Mutation): Promise<boolean> {
  const { noticedBy } = mutation;
  if (noticedBy === undefined) return true;
  return (await passes({ ...mutation, edits: [] }, noticedBy)) && !(await passes(mutation, noticedBy));
}

async function passes(mutation: Mutation, tests: string): Promise<boolean> {
  const directory = await copyWith(mutation);
  try {
    await cp(join(root, 'test'), join(directory, 'test'), { recursive: true });
    await symlink(join(root, 'node_modules'), join(directory, 'node_modules'));
    const vitest = join(root, 'node_modules/vitest/vitest.mjs');
    const child = spawn(process.execPath, [vitest, 'run', tests], { cwd: directory, stdio: 'ignore' });
    return (await new Promise<number | null>((resolve) => child.once('close', resolve))) === 0;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

/** Runs seeds with the mutated sources until a rule is broken. */
export async function judge(mutation: Mutation, seeds: number, steps: number): Promise<Verdict> {
  const directory = await copyWith(mutation);
  const loader = pathToFileURL(createRequire(import.meta.url).resolve('tsx')).href;
  const main = join(directory, 'test/sim/main.ts');
  const args = ['--import', loader, main, '--seeds', `1..${seeds}`, '--steps', String(steps), '--stride', '1'];
  try {
    const child = spawn(process.execPath, args, { cwd: directory, stdio: ['ignore', 'pipe', 'pipe'] });
    let runs = 0;
    let rule: string | undefined;
    let complaint = '';
    child.stderr.on('data', (chunk: Buffer) => (complaint += chunk.toString().slice(0, 2000)));
    createInterface({ input: child.stdout }).on('line', (line) => {
      if (rule !== undefined) return;
      runs++;
      rule = (JSON.parse(line) as { rule?: string }).rule;
      if (rule !== undefined) child.kill();
    });
    await new Promise<void>((resolve) => child.once('close', () => resolve()));
    if (runs === 0) throw new Error(`mutation "${mutation.name}" does not run: ${complaint}`);
    return { name: mutation.name, rule, runs };
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}
