import { readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Steps of the commit protocol at which a test can make a process die, each on the node where it happens. What is named `sent` has
 * been handed to the kernel; what is named `before-send` has not.
 */
export const FAULT_POINTS = {
  coordinator: [
    'prepare.before-send',
    'prepare.answered',
    'changes.decoded',
    'announce.sent',
    'vote.received',
    'proposal.before-send',
    'proposal.sent',
    'decision.received',
    'commit.before-send',
    'commit.answered',
    'answer.before-send',
  ],
  participant: [
    'announce.received',
    'replay.prepared',
    'vote.sent',
    'decision.received',
    'commit.before-send',
    'commit.answered',
  ],
  leader: ['proposal.received', 'entry.appended', 'entry.durable', 'entry.committed'],
} as const;

/** Steps in which a logical copy takes the place of the former databases. */
export const COPY_FAULT_POINTS = ['copy.noted', 'copy.first-replaced', 'copy.adopted'] as const;

type Role = keyof typeof FAULT_POINTS;
type FaultPoint =
  { [R in Role]: `${R}.${(typeof FAULT_POINTS)[R][number]}` }[Role] | (typeof COPY_FAULT_POINTS)[number];

/** A test puts files here, named after nodes, that hold the point, and the process to kill instead of this one. */
const directory = process.env['PGMM_FAULT_DIR'];
let armed: string | undefined;

/** Called once by a process that runs a node. Without the variable nothing is ever armed, and a point costs one comparison. */
export function armFaultPoints(node: number): void {
  if (directory !== undefined) armed = join(directory, String(node));
}

/** Dies here, as by `kill -9`, if a test wants that. */
export function faultPoint(point: FaultPoint): void {
  if (armed !== undefined) strike(armed, point);
}

function strike(file: string, point: string): void {
  let wanted: string[];
  try {
    wanted = readFileSync(file, 'utf8').trim().split(' ');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw error;
  }
  if (wanted[0] !== point) return;
  rmSync(file);
  process.kill(wanted.length > 1 ? Number(wanted[1]) : process.pid, 'SIGKILL');
}
