/** One thing that is not the same on all nodes, or not as it should be on one. */
export interface Difference {
  readonly kind: 'data' | 'schema' | 'prepared' | 'slot' | 'commit index' | 'order' | 'connection';
  readonly database?: string;
  /** What differs: `table public.t`, `function public.f(integer)`, `slot pgmm_1`. */
  readonly object: string;
  /** What each node has, by its name. */
  readonly nodes: Readonly<Record<string, string>>;
  /** Rows that some node has and another has not, up to the limit. */
  readonly rows?: readonly RowDifference[];
}

export interface RowDifference {
  readonly row: string;
  /** How often each node has it. */
  readonly counts: Readonly<Record<string, number>>;
}

export interface VerifyReport {
  readonly same: boolean;
  readonly nodes: readonly string[];
  readonly databases: readonly {
    readonly name: string;
    readonly tables: number;
    readonly rows: number;
    readonly objects: number;
    /** Commits that every node's WAL still has, and that were compared for their order. */
    readonly commits: number;
  }[];
  readonly differences: readonly Difference[];
  /** What was left out, and why. */
  readonly notes: readonly string[];
}

/** For people: one line per difference, its nodes and rows below. */
export function formatReport(report: VerifyReport): string[] {
  const lines: string[] = [];
  for (const { name, tables, rows, objects, commits } of report.databases) {
    lines.push(
      `database ${name}: ${tables} tables with ${rows} rows, ${objects} objects of its schema, ${commits} commits in WAL`,
    );
  }
  lines.push(...report.notes.map((note) => `note: ${note}`));
  for (const { kind, database, object, nodes, rows } of report.differences) {
    lines.push(`DIFFERENT  ${database === undefined ? '' : `${database}: `}${kind}: ${object}`);
    for (const [node, value] of Object.entries(nodes)) lines.push(`  ${node}: ${value}`);
    for (const { row, counts } of rows ?? []) {
      const found = Object.entries(counts).map(([node, count]) => `${node} ${count}×`);
      lines.push(`  ${found.join(', ')}: ${row.length > 200 ? `${row.slice(0, 199)}…` : row}`);
    }
  }
  const count = report.differences.length;
  lines.push(count === 0 ? `the same on ${report.nodes.join(', ')}` : `${count} difference${count === 1 ? '' : 's'}`);
  return lines;
}
