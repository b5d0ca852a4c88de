/**
 * The value of every setting that may be left out, in the form in which it is written in the configuration file.
 * `config.example.yaml` shows the same values; a test compares the two.
 */
export const DEFAULTS = {
  /** Where Debian's packages put the state of a service. */
  data_dir: '/var/lib/pgmm',
  /** Clients: next to PostgreSQL's own 5432, and where a pooler would be expected. */
  listen: { host: '0.0.0.0', port: 6432 },
  /** Peers must reach each other, so not loopback. */
  peer_listen: { host: '0.0.0.0', port: 6433 },
  /** Status and metrics ask for no password, so loopback only. */
  admin: { host: '127.0.0.1', port: 6434 },
  /** A Unix-domain socket saves about 2 µs of system time per statement compared with TCP. */
  postgres: { host: '/var/run/postgresql', port: 5432, user: 'postgres', database: 'postgres', ssl: 'disable' },
  databases: ['postgres'],
  nodes: { witness: false },
  /** Nothing waits for it while both nodes are there; alone, a leader steps down after an election timeout in any case. */
  referee: { timeout: '1s', trust_settings: false },
  /** Twenty heartbeats have to be lost in a row before a node is given up, so a pause for garbage is no failure. */
  heartbeat: { interval: '100ms', timeout: '2s' },
  /** Five heartbeats; a new leader is usually found within a second. */
  election: { timeout: '500ms' },
  /** Long enough for the replay of a large transaction, short enough that one hung node is out in seconds. */
  member: { vote_timeout: '10s' },
  /** Strict: no reader on any node sees a commit before an earlier one. Four share most of what fsyncs can be shared. */
  commit: { decision_timeout: '30s', order: 'strict', committers: 4 },
  /**
   * Local: the reason to have a copy on every node. The wait: as long as a member may take to vote, after which it is none. Outside the cluster:
   * most applications would rather read what was true seconds ago than nothing.
   */
  reads: { level: 'local', wait_timeout: '10s', outside_cluster: 'serve' },
  /** As on one server. Who never calls such a function pays nothing. */
  advisory_locks: 'cluster',
  /** On puts a trigger on every table; writes past the proxy are counted and logged without it. */
  guard: 'off',
  /**
   * Sessions: the replay of concurrent transactions shares fsyncs, and beyond eight little is gained. Statements: one
   * per table and kind of change, on every session. Waiting: most replays take less than 2 ms unless something blocks them.
   */
  apply: { sessions: 8, statement_cache: 200, conflict_check_after: '2ms' },
  /** Turns rarely take more than 100 ms; a client that waits longer has an idle one before it. */
  conflicts: { retry_patience: '2s' },
  spool: { memory: '64MB', inline: '256kB' },
  /** Room to grow to sixteen nodes without touching a sequence again; a smallint sequence keeps 2,047 values a node. */
  sequences: { stride: 16 },
  /**
   * Connections: PostgreSQL's own default of 100, less three reserved ones, eight apply sessions and the proxy's others.
   * Startup: PostgreSQL's own authentication_timeout.
   */
  session: {
    ...{ max_connections: 80, retry_buffer: '64kB', statement_retries: 0 },
    ...{ statement_cache: 5000, startup_timeout: '60s' },
  },
  /** As large as a segment of PostgreSQL's WAL; 100,000 commits are a few megabytes. */
  raft: { segment_size: '16MB', retain_entries: 100_000 },
  /** As much as one busy day leaves on many systems; a disk must not fill because a node is away. */
  retention: { wal: '10GB', time: '24h' },
  /** Replacing a node's data is the operator's decision. A physical copy wherever one can be had: it is quicker, and the same to the byte. As fast as a fast network would, which a donor's disk can do beside its work. */
  reclone: { mode: 'off', method: 'auto', wait: '1min', max_rate: '100MB', keep_old: true },
  /** A vanished machine is noticed in about 16 s, instead of the two hours of most systems. */
  keepalive: { idle: '10s', interval: '2s', count: 3, user_timeout: '16s' },
  log: { level: 'info' },
} as const;
