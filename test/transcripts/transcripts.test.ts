/**
 * Runs every transcript beside this file: blocks of a command line, `----`, and what happens, separated by blank lines.
 * Lines that begin with # tell the story. `REWRITE=1 npx vitest run test/transcripts` writes what happens now into the
 * files, so that a change of the protocol is read, and reviewed, as a change of the stories.
 */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { RaftStage } from './raft-stage.ts';

const directory = import.meta.dirname;
const rewrite = process.env['REWRITE'] !== undefined;

/** The first word of a file's name says who plays it. */
const stages = new Map<string, () => { perform(command: string): string[] }>([['raft', () => new RaftStage()]]);

for (const name of readdirSync(directory).filter((one) => one.endsWith('.txt'))) {
  test(name, () => {
    const stage = stages.get(name.slice(0, name.indexOf('-')));
    if (stage === undefined) throw new Error(`nobody plays ${name}`);
    const path = join(directory, name);
    const before = readFileSync(path, 'utf8');
    const after = play(before, stage());
    if (rewrite) writeFileSync(path, after);
    else expect(after).toBe(before);
  });
}

/** The transcript with what happens now in the place of what it said. */
function play(transcript: string, stage: { perform(command: string): string[] }): string {
  const blocks = transcript.trimEnd().split(/\n{2,}/);
  return `${blocks.map((block) => playBlock(block, stage)).join('\n\n')}\n`;
}

function playBlock(block: string, stage: { perform(command: string): string[] }): string {
  const lines = block.split('\n');
  const comments = lines.filter((line) => line.startsWith('#'));
  const rest = lines.slice(comments.length);
  const end = rest.indexOf('----');
  const commands = end === -1 ? rest : rest.slice(0, end);
  if (commands.length === 0) return block;
  const happened = commands.flatMap((command) => stage.perform(command));
  return [...comments, ...commands, '----', ...(happened.length === 0 ? ['nothing'] : happened)].join('\n');
}
