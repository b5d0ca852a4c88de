import { existsSync, readFileSync } from 'node:fs';
import { SourceMap } from 'node:module';
import { relative, resolve, dirname } from 'node:path';
import { fileURLToPath } from 'node:url';

/** What V8's profiler writes; times in microseconds. */
export interface CpuProfile {
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
  readonly startTime: number;
  readonly endTime: number;
}

interface ProfileNode {
  readonly id: number;
  readonly callFrame: CallFrame;
  readonly children?: readonly number[];
}

/** Lines and columns from 0. */
export interface CallFrame {
  readonly functionName: string;
  readonly url: string;
  readonly lineNumber: number;
  readonly columnNumber: number;
}

export interface HotSpot {
  readonly name: string;
  /** `src/a/b.ts:12`, a package, or a module of Node.js. */
  readonly where: string;
  /** Microseconds in the function itself, and with all that it calls. */
  readonly self: number;
  readonly total: number;
}

/** Where a function is in the sources. */
export type Locate = (frame: CallFrame) => string;

/** Not work: the event loop waits for something to do. */
const IDLE = '(idle)';

/** Functions by the time spent in them, most first. A function that calls itself counts once in its total. */
export function hotSpots(profile: CpuProfile, locate: Locate): HotSpot[] {
  const byId = new Map(profile.nodes.map((node) => [node.id, node]));
  const self = new Map<number, number>();
  profile.samples.forEach((id, index) => self.set(id, (self.get(id) ?? 0) + profile.timeDeltas[index]));
  const spots = new Map<string, { name: string; where: string; self: number; total: number }>();
  const visit = (node: ProfileNode, callers: ReadonlySet<string>): number => {
    const { functionName, url, lineNumber, columnNumber } = node.callFrame;
    const key = `${functionName} ${url}:${lineNumber}:${columnNumber}`;
    const own = self.get(node.id) ?? 0;
    const within = new Set(callers).add(key);
    let total = own;
    for (const child of node.children ?? []) total += visit(byId.get(child)!, within);
    let spot = spots.get(key);
    if (spot === undefined) {
      spot = {
        name: functionName === '' ? '(anonymous)' : functionName,
        where: locate(node.callFrame),
        self: 0,
        total: 0,
      };
      spots.set(key, spot);
    }
    spot.self += own;
    if (!callers.has(key)) spot.total += total;
    return total;
  };
  if (profile.nodes.length > 0) visit(profile.nodes[0], new Set());
  return [...spots.values()].sort((a, b) => b.self - a.self);
}

/** Microseconds in which the process did something. */
export function busyTime(spots: readonly HotSpot[]): number {
  return spots.reduce((sum, spot) => sum + (spot.name === IDLE ? 0 : spot.self), 0);
}

/** Self time by what it belongs to: a folder of src, a package, Node.js, the garbage collector, system calls. */
export function byArea(spots: readonly HotSpot[]): { area: string; self: number }[] {
  const areas = new Map<string, number>();
  for (const spot of spots) {
    const area = areaOf(spot);
    areas.set(area, (areas.get(area) ?? 0) + spot.self);
  }
  return [...areas].map(([area, self]) => ({ area, self })).sort((a, b) => b.self - a.self);
}

function areaOf({ name, where }: HotSpot): string {
  const source = /^src\/([^/]+)\//.exec(where);
  if (source !== null) return `src/${source[1]}`;
  if (where.startsWith('node:')) return 'node';
  return where === '' ? (name.startsWith('(') ? name : 'built in') : where.replace(/:\d+$/, '');
}

/** Finds functions of the build in the sources that it was made of, by the source maps beside it. */
export function locator(root: string): Locate {
  const maps = new Map<string, SourceMap | undefined>();
  const mapOf = (file: string): SourceMap | undefined => {
    if (!maps.has(file)) maps.set(file, readMap(file));
    return maps.get(file);
  };
  return ({ url, lineNumber, columnNumber }) => {
    if (!url.startsWith('file:')) return url === '' ? '' : `${url}:${lineNumber + 1}`;
    const file = fileURLToPath(url);
    const packaged = /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file);
    if (packaged !== null) return packaged[1];
    const entry = mapOf(file)?.findEntry(lineNumber, columnNumber);
    if (entry === undefined || !('originalSource' in entry)) return `${relative(root, file)}:${lineNumber + 1}`;
    return `${relative(root, resolve(dirname(file), entry.originalSource))}:${entry.originalLine + 1}`;
  };
}

function readMap(file: string): SourceMap | undefined {
  const map = `${file}.map`;
  if (!existsSync(map)) return undefined;
  return new SourceMap(JSON.parse(readFileSync(map, 'utf8')) as ConstructorParameters<typeof SourceMap>[0]);
}
