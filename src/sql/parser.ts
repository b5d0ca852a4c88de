import { loadModule, parseSync } from 'libpg-query';

/** A node of PostgreSQL's raw parse tree as libpg_query writes it: `{ "SelectStmt": { … } }`. */
export type Node = Readonly<Record<string, unknown>>;

export interface RawStatement {
  readonly name: string;
  readonly node: Node;
  /** Offsets into the text in UTF-16 units, without the white space and comments before it. */
  readonly start: number;
  readonly end: number;
}

let loaded: Promise<void> | undefined;

/** The parser is WebAssembly: call once before the first `parse`. */
export function loadParser(): Promise<void> {
  loaded ??= loadModule();
  return loaded;
}

interface ParseTree {
  readonly stmts?: readonly { readonly stmt?: Node; readonly stmt_location?: number; readonly stmt_len?: number }[];
}

/** The statements of a query string; undefined when PostgreSQL's grammar refuses it. */
export function parse(text: string): RawStatement[] | undefined {
  if (text.trim() === '') return [];
  let tree: ParseTree;
  try {
    tree = parseSync(text);
  } catch {
    return undefined;
  }
  const offset = offsetConverter(text);
  return (tree.stmts ?? []).map(({ stmt = {}, stmt_location: location = 0, stmt_len: length = 0 }) => {
    const [name, node] = firstEntry(stmt);
    // No length: up to the end of the text.
    return {
      name,
      node,
      start: offset(location),
      end: length === 0 ? text.length : offset(location + length),
    };
  });
}

/** libpg_query counts UTF-8 bytes. */
function offsetConverter(text: string): (byte: number) => number {
  const bytes = Buffer.from(text, 'utf8');
  if (bytes.length === text.length) return (byte) => byte;
  return (byte) => bytes.toString('utf8', 0, byte).length;
}

/** The single entry of a node that wraps another: its type and its body. */
export function firstEntry(wrapper: Node): [string, Node] {
  for (const [name, body] of Object.entries(wrapper)) return [name, isNode(body) ? body : {}];
  return ['', {}];
}

/** Property access on the untyped tree; every one of these is total. */
export const text = (node: Node, key: string): string => (typeof node[key] === 'string' ? node[key] : '');
export const flag = (node: Node, key: string): boolean => node[key] === true;
export const child = (node: Node, key: string): Node => (isNode(node[key]) ? node[key] : {});
export const list = (node: Node, key: string): Node[] => (Array.isArray(node[key]) ? node[key].filter(isNode) : []);

function isNode(value: unknown): value is Node {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

/** Every node of one type below `root`, however deep. */
export function* descendants(root: unknown, type: string): Generator<Node> {
  if (Array.isArray(root)) {
    for (const item of root) yield* descendants(item, type);
  } else if (isNode(root)) {
    for (const [key, value] of Object.entries(root)) {
      if (key === type && isNode(value)) yield value;
      yield* descendants(value, type);
    }
  }
}
