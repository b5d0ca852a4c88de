import { Counter, Gauge, Histogram, Registry } from 'prom-client';

/**
 * The steps of a coordinated transaction. `prepare` and `decode` run side by side from PREPARE TRANSACTION on; then come `vote`, until
 * every member has prepared, `precommit`, until a majority has the decision, and `commit`, until the client can be answered; `total`
 * is all of it. `replay` is another node's transaction on this node.
 */
export const PHASES = ['prepare', 'decode', 'vote', 'precommit', 'commit', 'total', 'replay'] as const;
export type Phase = (typeof PHASES)[number];

/** `read_only`: a block that was looked at and had written nothing. */
export const OUTCOMES = ['committed', 'aborted', 'unknown', 'read_only'] as const;
export type Outcome = (typeof OUTCOMES)[number];

/**
 * Who lost: a client's open transaction, a prepared one of this node, another node's on this one; a replay that ran into a local
 * deadlock, and is repeated; or a key or reference that another node's transaction took.
 */
export const CONFLICTS = [
  'client_aborted',
  'prepared_aborted',
  'replay_refused',
  'replay_deadlock',
  'constraint',
] as const;
export type Conflict = (typeof CONFLICTS)[number];

export const DIRECTIONS = ['client_to_server', 'server_to_client', 'to_peer', 'from_peer'] as const;
export type Direction = (typeof DIRECTIONS)[number];

/** From a tenth of a millisecond to ten seconds; a commit on one machine takes a few milliseconds. */
const LATENCY = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10];
const FSYNC = [0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5];

/** Aborts are counted per SQLSTATE, which clients can choose freely (RAISE): beyond so many they are `other`. */
const MAX_SQLSTATES = 100;

type CounterChild = Counter.Internal;
type HistogramChild = Histogram.Internal<string>;
type GaugeChild = Gauge.Internal<string>;

/**
 * Every metric of the program, under stable names. The fields are handles to single time series, so that counting on the
 * hot path is one addition and no look-up of labels.
 */
export class Metrics {
  readonly registry = new Registry();

  /** Coordinated transactions by how they ended, and those that needed no coordination. */
  readonly transactions: Readonly<Record<Outcome, CounterChild>>;
  /** Seconds spent in each step. */
  readonly phases: Readonly<Record<Phase, HistogramChild>>;
  readonly conflicts: Readonly<Record<Conflict, CounterChild>>;
  readonly bytes: Readonly<Record<Direction, CounterChild>>;

  readonly logIndex: Gauge;
  readonly logTerm: Gauge;
  /** 1 on the node that leads the decision log, else 0. */
  readonly logLeader: Gauge;
  readonly raftFsync: Histogram;
  readonly applyQueue: Gauge;
  readonly applyBusy: Gauge;
  readonly replayRows: Counter;
  readonly clients: Gauge;
  readonly spoolMemory: Gauge;
  readonly spoolDisk: Gauge;
  readonly writable: Gauge;
  readonly inDoubt: Gauge;
  readonly bypassed: Counter<'database'>;
  /** 1 while the referee votes; `server` is set where there is one. */
  readonly refereeUp: Gauge<'server'>;
  readonly refereeSeconds: Histogram;
  readonly waitingForTurn: Gauge;
  readonly recloneBytes: Gauge;
  readonly catchUpRemaining: Gauge;
  readonly catchUpSeconds: Gauge;

  readonly #committedIndex: Gauge<'node'>;
  readonly #lag: Gauge<'node'>;
  readonly #lagBytes: Gauge<'node'>;
  readonly #retainedWal: Gauge<'slot'>;
  readonly #aborts: Counter<'sqlstate'>;
  readonly #intercepted: Counter<'kind'>;
  readonly #eventLoopLag: Histogram;
  readonly #sqlstates = new Map<string, CounterChild>();
  readonly #kinds = new Map<string, CounterChild>();
  readonly #nodes = new Map<number, { committed: GaugeChild; lag: GaugeChild; lagBytes: GaugeChild }>();

  constructor() {
    const registers = [this.registry];
    const counter = <Label extends string = never>(
      name: string,
      help: string,
      labelNames: Label[] = [],
    ): Counter<Label> => new Counter({ name: `pgmm_${name}`, help, labelNames, registers });
    const gauge = <Label extends string = never>(name: string, help: string, labelNames: Label[] = []): Gauge<Label> =>
      new Gauge({ name: `pgmm_${name}`, help, labelNames, registers });
    const histogram = <Label extends string = never>(
      name: string,
      help: string,
      buckets: number[],
      labelNames: Label[] = [],
    ) => new Histogram({ name: `pgmm_${name}`, help, labelNames, buckets, registers });

    const transactions = counter('transactions_total', 'Transactions of local clients by outcome.', ['outcome']);
    const phases = histogram('phase_seconds', 'Time spent in each phase of a coordinated transaction.', LATENCY, [
      'phase',
    ]);
    const conflicts = counter('conflicts_total', 'Conflicts between transactions of different nodes.', ['kind']);
    const bytes = counter('bytes_total', 'Bytes passed on, by direction.', ['direction']);
    this.transactions = children(OUTCOMES, (outcome) => transactions.labels({ outcome }));
    this.phases = children(PHASES, (phase) => phases.labels({ phase }));
    this.conflicts = children(CONFLICTS, (kind) => conflicts.labels({ kind }));
    this.bytes = children(DIRECTIONS, (direction) => bytes.labels({ direction }));

    // A rate() needs the zero that the first event is counted from.
    for (const fresh of [this.transactions, this.conflicts, this.bytes].flatMap((group) => Object.values(group)))
      fresh.inc(0);
    for (const phase of PHASES) phases.zero({ phase });

    this.logIndex = gauge('log_index', 'Index of the last entry of the decision log on this node.');
    this.logTerm = gauge('log_term', 'Term of the decision log.');
    this.logLeader = gauge('log_leader', '1 if this node leads the decision log.');
    this.raftFsync = histogram('raft_fsync_seconds', 'Time to make entries of the decision log durable.', FSYNC);
    this.applyQueue = gauge('apply_queue_length', 'Transactions of other nodes that wait for an apply session.');
    this.applyBusy = gauge('apply_sessions_busy', 'Apply sessions at work.');
    this.replayRows = counter('replay_rows_total', 'Row changes of other nodes applied here.');
    this.clients = gauge('client_connections', 'Open client connections.');
    this.spoolMemory = gauge('spool_memory_bytes', 'Decoded transactions held in memory.');
    this.spoolDisk = gauge('spool_disk_bytes', 'Decoded transactions held in files.');
    this.writable = gauge('writable', '1 if this node accepts writes.');
    this.inDoubt = gauge('in_doubt_transactions', 'Prepared transactions without a decision.');

    this.refereeUp = gauge('referee_up', '1 if the referee of two nodes votes, as this node sees it.', ['server']);
    this.refereeSeconds = histogram('referee_seconds', 'Time that the referee took to answer.', LATENCY);
    this.waitingForTurn = gauge(
      'waiting_for_turn',
      'Clients that lost a conflict and wait for their turn to try again.',
    );
    this.recloneBytes = gauge('reclone_bytes', "Bytes that have come of a copy of another node's data.");
    this.catchUpRemaining = gauge('catch_up_entries', 'Entries of the log that a returning node has yet to commit.');
    this.catchUpSeconds = gauge(
      'catch_up_seconds',
      'Estimated time until a returning node has caught up; 0 if unknown.',
    );
    this.bypassed = counter('bypassing_transactions_total', 'Transactions that wrote to PostgreSQL past the proxy.', [
      'database',
    ]);

    this.#committedIndex = gauge('committed_index', 'Log index up to which a node has committed.', ['node']);
    this.#lag = gauge('lag_entries', 'Decided entries that a node has yet to commit.', ['node']);
    this.#lagBytes = gauge('lag_bytes', "This node's WAL since what a node has committed, to a few seconds.", ['node']);
    this.#retainedWal = gauge('slot_retained_wal_bytes', 'WAL that PostgreSQL keeps for a replication slot.', ['slot']);
    this.#aborts = counter('aborts_total', 'Transactions that did not commit, by SQLSTATE.', ['sqlstate']);
    this.#intercepted = counter('intercepted_statements_total', 'Statements that were not passed on as they came.', [
      'kind',
    ]);
    this.#eventLoopLag = histogram('event_loop_lag_seconds', 'How late a timer fires: time spent in one go.', LATENCY);
  }

  countAbort(sqlstate: string): void {
    child(this.#sqlstates, sqlstate, (name) => this.#aborts.labels({ sqlstate: name })).inc();
  }

  /** `kind` names what was done with a statement: `begin`, `commit`, `ddl`, `copy`, … */
  countIntercepted(kind: string): void {
    child(this.#kinds, kind, (name) => this.#intercepted.labels({ kind: name })).inc();
  }

  /** `lag` in entries of the log, `lagBytes` of WAL. */
  setNode(node: number, committed: number, lag: number, lagBytes: number): void {
    let gauges = this.#nodes.get(node);
    if (gauges === undefined) {
      gauges = {
        committed: this.#committedIndex.labels({ node }),
        lag: this.#lag.labels({ node }),
        lagBytes: this.#lagBytes.labels({ node }),
      };
      this.#nodes.set(node, gauges);
    }
    gauges.committed.set(committed);
    gauges.lag.set(lag);
    gauges.lagBytes.set(lagBytes);
  }

  /** Takes a node that has left off the page. */
  forgetNode(node: number): void {
    this.#nodes.delete(node);
    this.#committedIndex.remove({ node });
    this.#lag.remove({ node });
    this.#lagBytes.remove({ node });
  }

  /** Replaces what is known about slots. */
  setRetainedWal(bytesBySlot: ReadonlyMap<string, number>): void {
    this.#retainedWal.reset();
    for (const [slot, bytes] of bytesBySlot) this.#retainedWal.set({ slot }, bytes);
  }

  /** Measures the event loop until the returned function is called. */
  watchEventLoop(intervalMs = 100): () => void {
    let due = performance.now() + intervalMs;
    const timer = setInterval(() => {
      const now = performance.now();
      this.#eventLoopLag.observe(Math.max(0, now - due) / 1000);
      due = now + intervalMs;
    }, intervalMs);
    timer.unref();
    return () => clearInterval(timer);
  }
}

function children<Name extends string, Child>(
  names: readonly Name[],
  make: (name: Name) => Child,
): Record<Name, Child> {
  return Object.fromEntries(names.map((name) => [name, make(name)])) as Record<Name, Child>;
}

function child(known: Map<string, CounterChild>, name: string, make: (name: string) => CounterChild): CounterChild {
  const found = known.get(name);
  if (found !== undefined) return found;
  if (known.size >= MAX_SQLSTATES && name !== 'other') return child(known, 'other', make);
  const made = make(name);
  known.set(name, made);
  return made;
}
