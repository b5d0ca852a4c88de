import type { Conditions } from './conditions.ts';
import { median } from './latency.ts';
import type { Measurement } from './measure.ts';
import type { WorkloadName } from './workloads.ts';

export const SERIES = ['plain', 'one', 'spread'] as const;
export type Series = (typeof SERIES)[number];

/** All repeats of one workload with so many clients; the n-th of each series ran side by side. */
export interface Result {
  readonly workload: WorkloadName;
  readonly clients: number;
  /** Without `spread` where there are fewer clients than nodes. */
  readonly series: Readonly<Partial<Record<Series, readonly Measurement[]>>>;
}

export interface Report {
  readonly conditions: Conditions;
  readonly settings: {
    readonly nodes: number;
    readonly scale: number;
    readonly seconds: number;
    readonly repeats: number;
  };
  /** Processor time per second that the idle cluster takes, in microseconds. */
  readonly idle: { readonly postgres: number; readonly proxies: number } | undefined;
  readonly results: readonly Result[];
}

const NAMES: Readonly<Record<Series, string>> = { plain: 'PostgreSQL', one: 'one node', spread: 'all nodes' };
/** Since PREPARE was sent: `total` ends with the answer to the client. `replay` and `raft_fsync` stand for themselves. */
const PHASE_ORDER = ['prepare', 'decode', 'vote', 'precommit', 'commit', 'total', 'replay', 'raft_fsync'];

/** The median of the ratios of pairs that ran side by side: what slows the machine for a while slows both. */
export function ratioToPlain(result: Result, series: Series): number | undefined {
  const { plain } = result.series;
  const own = result.series[series];
  if (plain === undefined || own === undefined || series === 'plain') return undefined;
  return median(own.map((one, index) => one.tps / plain[index].tps));
}

type Row = readonly string[];

const HEADER: Row = [
  'workload',
  'clients',
  'on',
  'tps',
  'ratio',
  'p50 ms',
  'p95 ms',
  'p99 ms',
  'failed',
  'retried',
  'CPU µs PostgreSQL',
  'proxies',
  'pgbench',
];

/** One row per series, medians of the repeats. */
export function resultRows(results: readonly Result[]): Row[] {
  return [
    HEADER,
    ...results.flatMap((result) =>
      present(result).map(({ series, runs }) => {
        const middle = (value: (run: Measurement) => number | undefined): number => medianOf(runs, value);
        return [
          result.workload,
          String(result.clients),
          NAMES[series],
          integer(middle((run) => run.tps)),
          ratioText(ratioToPlain(result, series)),
          decimal(middle((run) => run.latency?.p50)),
          decimal(middle((run) => run.latency?.p95)),
          decimal(middle((run) => run.latency?.p99)),
          integer(sum(runs, (run) => run.failed)),
          integer(sum(runs, (run) => run.retried)),
          integer(middle((run) => run.cpu?.postgres)),
          series === 'plain' ? '' : integer(middle((run) => run.cpu?.proxies)),
          integer(middle((run) => run.cpu?.pgbench)),
        ];
      }),
    ),
  ];
}

/** Where the time of a commit goes, by what the proxies measured; without workloads that committed nothing. */
export function phaseRows(results: readonly Result[]): Row[] {
  const rows = results.flatMap((result) =>
    present(result)
      .filter(({ runs }) => runs.some((run) => 'total' in run.phases))
      .map(({ series, runs }) => ({ result, series, runs })),
  );
  const seen = PHASE_ORDER.filter((phase) => rows.some(({ runs }) => runs.some((run) => phase in run.phases)));
  if (rows.length === 0) return [];
  return [
    ['workload', 'clients', 'on', ...seen],
    ...rows.map(({ result, series, runs }) => [
      result.workload,
      String(result.clients),
      NAMES[series],
      ...seen.map((phase) => decimal(medianOf(runs, (run) => run.phases[phase]))),
    ]),
  ];
}

/** What must not be overlooked: clients that gave up. */
export function errorLines(results: readonly Result[]): string[] {
  return results.flatMap((result) =>
    present(result).flatMap(({ series, runs }) =>
      [...new Set(runs.flatMap((run) => run.errors))].map(
        (error) => `${result.workload}, ${result.clients} clients, ${NAMES[series]}: ${error}`,
      ),
    ),
  );
}

function conditionLines({ conditions: on, settings, idle }: Report): string[] {
  return [
    `${on.date} UTC, commit ${on.commit}: ${settings.nodes} nodes on one machine with ${on.cores} × ${on.processor}, ${on.memoryGb} GB, ` +
      `${on.system}, Node.js ${on.node}, PostgreSQL ${on.postgres}, pgbench ${on.pgbench}.`,
    `fdatasync takes ${decimal(on.fdatasyncMs)} ms; load average before: ${decimal(on.load)}. ` +
      `Scale ${settings.scale}, ${settings.seconds} s a run, median of ${settings.repeats}.`,
    ...(idle === undefined
      ? []
      : [
          `The idle cluster takes ${integer(idle.postgres)} µs of processor time a second in its servers, ${integer(idle.proxies)} µs in its proxies.`,
        ]),
  ];
}

/** For the terminal. */
export function textReport(report: Report): string {
  const phases = phaseRows(report.results);
  const errors = errorLines(report.results);
  return [
    ...conditionLines(report),
    '',
    ...aligned(resultRows(report.results)),
    ...(phases.length === 0
      ? []
      : [
          '',
          'mean ms by step (prepare and decode side by side; replay, raft_fsync: each by itself):',
          ...aligned(phases),
        ]),
    ...(errors.length === 0 ? [] : ['', 'clients that gave up:', ...errors]),
  ].join('\n');
}

/** For the documentation. */
export function markdownReport(report: Report): string {
  const phases = phaseRows(report.results);
  const errors = errorLines(report.results);
  return [
    ...conditionLines(report),
    '',
    ...markdownTable(resultRows(report.results)),
    ...(phases.length === 0 ? [] : ['', 'Mean milliseconds by phase:', '', ...markdownTable(phases)]),
    ...(errors.length === 0 ? [] : ['', 'Clients that gave up:', '', ...errors.map((error) => `- ${error}`)]),
  ].join('\n');
}

const BEGIN = '<!-- bench:begin -->';
const END = '<!-- bench:end -->';

/** Puts a report between the marks in a text; undefined when they are not there. */
export function replaceBetweenMarks(text: string, report: string): string | undefined {
  const begin = text.indexOf(BEGIN);
  const end = text.indexOf(END, begin);
  if (begin < 0 || end < 0) return undefined;
  return `${text.slice(0, begin + BEGIN.length)}\n\n${report}\n\n${text.slice(end)}`;
}

function present(result: Result): { series: Series; runs: readonly Measurement[] }[] {
  return SERIES.flatMap((series) => {
    const runs = result.series[series];
    return runs === undefined ? [] : [{ series, runs }];
  });
}

function medianOf(runs: readonly Measurement[], value: (run: Measurement) => number | undefined): number {
  return median(runs.map(value).filter((found) => found !== undefined));
}

function sum(runs: readonly Measurement[], value: (run: Measurement) => number): number {
  return runs.reduce((total, run) => total + value(run), 0);
}

export function aligned(rows: readonly Row[]): string[] {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const isText = (column: number): boolean => rows.slice(1).some((row) => /^[a-z]/i.test(row[column]));
  const text = rows[0].map((_, column) => isText(column));
  return rows.map((row) =>
    row
      .map((cell, column) => (text[column] ? cell.padEnd(widths[column]) : cell.padStart(widths[column])))
      .join('  ')
      .trimEnd(),
  );
}

function markdownTable(rows: readonly Row[]): string[] {
  const line = (cells: Row): string => `| ${cells.join(' | ')} |`;
  return [line(rows[0]), line(rows[0].map(() => '---')), ...rows.slice(1).map(line)];
}

function integer(value: number): string {
  return Number.isNaN(value) ? '' : String(Math.round(value));
}

function decimal(value: number): string {
  return Number.isNaN(value) ? '' : value.toFixed(value < 10 ? 2 : 1);
}

function ratioText(value: number | undefined): string {
  return value === undefined ? '' : value.toFixed(2);
}
