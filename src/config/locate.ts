import { isMap, isPair, isScalar, visit } from 'yaml';
import type { Document, Node, Pair, LineCounter } from 'yaml';

/** Finds the place in a YAML file that a complaint about a setting should point at. */
export class Locator {
  readonly #document: Document.Parsed;
  readonly #lines: LineCounter;

  constructor(document: Document.Parsed, lines: LineCounter) {
    this.#document = document;
    this.#lines = lines;
  }

  /** One-based line and column of an offset into the file. */
  position(offset: number): { line: number; column: number } {
    const { line, col } = this.#lines.linePos(offset);
    return { line, column: col };
  }

  /** Where the setting's value stands; for a setting that is not there, the nearest group that should hold it. */
  offsetOf(path: readonly PropertyKey[]): number {
    for (let length = path.length; length > 0; length--) {
      const found = this.#offsetOfExactly(path.slice(0, length), length < path.length);
      if (found !== undefined) return found;
    }
    return startOf(this.#document.contents) ?? 0;
  }

  /** Where the name of a setting stands. */
  offsetOfKey(path: readonly PropertyKey[]): number {
    return startOf(this.#pair(path)?.key) ?? this.offsetOf(path);
  }

  /** The setting whose name stands at an offset, as a path. */
  pathAt(offset: number): PropertyKey[] {
    let found: PropertyKey[] = [];
    visit(this.#document, {
      Pair: (_key, pair, ancestors) => {
        if (startOf(pair.key) !== offset) return undefined;
        found = pathOf(ancestors, pair);
        return visit.BREAK;
      },
    });
    return found;
  }

  #offsetOfExactly(path: readonly PropertyKey[], preferKey: boolean): number | undefined {
    const pair = this.#pair(path);
    const key = startOf(pair?.key);
    if (preferKey && key !== undefined) return key;
    return startOf(this.#document.getIn(path, true)) ?? key;
  }

  #pair(path: readonly PropertyKey[]): Pair | undefined {
    const parent = path.length === 1 ? this.#document.contents : this.#document.getIn(path.slice(0, -1), true);
    if (!isMap(parent)) return undefined;
    return parent.items.find((item) => keyName(item) === String(path.at(-1)));
  }
}

/** `nodes[1].peer.port` */
export function settingName(path: readonly PropertyKey[]): string {
  return path.reduce<string>((name, part) => {
    if (typeof part === 'number') return `${name}[${part}]`;
    return name === '' ? String(part) : `${name}.${String(part)}`;
  }, '');
}

function startOf(node: unknown): number | undefined {
  return (node as Node | null | undefined)?.range?.[0];
}

function keyName(pair: Pair): string {
  return isScalar(pair.key) ? String(pair.key.value) : String(pair.key);
}

function pathOf(ancestors: readonly unknown[], pair: Pair): PropertyKey[] {
  const path: PropertyKey[] = [];
  ancestors.forEach((ancestor, depth) => {
    if (isPair(ancestor)) path.push(keyName(ancestor));
    const items = (ancestor as { items?: unknown[] }).items;
    const next = ancestors[depth + 1];
    if (Array.isArray(items) && !isMap(ancestor) && next !== undefined) path.push(items.indexOf(next));
  });
  return [...path, keyName(pair)];
}
