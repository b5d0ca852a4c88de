import { z } from 'zod';
import { nodeId } from '../runtime/ids.ts';
import { DEFAULTS } from './defaults.ts';
import { boolean, choice, duration, group, integer, list, port, redisUrl, size, text } from './values.ts';

/**
 * The configuration file: which settings exist and what each may be. What every setting is for is told once, in
 * `config.example.yaml`. Names are in snake_case here as in the file; `Config` has them in camelCase.
 */

export const MAX_NODE_ID = 63;

const host = () => text('a host name or address');
const file = () => text('the path of a file');
const id = () => integer(1, MAX_NODE_ID).transform(nodeId);
const address = () => group({ host: host(), port: port() });
const listenAt = (at: { host: string; port: number }) => ({
  host: host().default(at.host),
  port: port().default(at.port),
});

const cluster = group({
  name: text('up to 32 lower-case letters, digits, _ and -, beginning with a letter', /^[a-z][a-z0-9_-]{0,31}$/),
  secret: text('at least 16 characters', /^.{16,}$/s).optional(),
  secret_file: file().optional(),
});

const tls = group({ cert_file: file(), key_file: file() });

const postgres = group({
  host: text('a host name, an address, or the absolute path of a socket directory').default(DEFAULTS.postgres.host),
  port: port().default(DEFAULTS.postgres.port),
  user: text('the name of a role').default(DEFAULTS.postgres.user),
  password: text('a password').optional(),
  password_file: file().optional(),
  database: text('the name of a database').default(DEFAULTS.postgres.database),
  ssl: choice(['disable', 'require', 'verify-full']).default(DEFAULTS.postgres.ssl),
  ssl_ca_file: file().optional(),
});

const node = group({
  id: id(),
  peer: address(),
  witness: boolean().default(DEFAULTS.nodes.witness),
  postgres: address().optional(),
  client: address().optional(),
});

/** `referee: redis://…` is short for `referee: { url: redis://… }`. */
const referee = z.preprocess(
  (input) => (typeof input === 'string' ? { url: input } : input),
  group({
    url: redisUrl(),
    password_file: file().optional(),
    ca_file: file().optional(),
    timeout: duration('50ms', '1min').prefault(DEFAULTS.referee.timeout),
    trust_settings: boolean().default(DEFAULTS.referee.trust_settings),
  }),
);

const keepalive = group({
  idle: duration('1s', '2h').prefault(DEFAULTS.keepalive.idle),
  interval: duration('1s', '1h').prefault(DEFAULTS.keepalive.interval),
  count: integer(1, 100).default(DEFAULTS.keepalive.count),
  user_timeout: duration('1s', '2h').prefault(DEFAULTS.keepalive.user_timeout),
});

const session = group({
  max_connections: integer(1, 100_000).default(DEFAULTS.session.max_connections),
  retry_buffer: size('0B', '16MB').prefault(DEFAULTS.session.retry_buffer),
  statement_retries: integer(0, 1000).default(DEFAULTS.session.statement_retries),
  statement_cache: integer(0, 1_000_000).default(DEFAULTS.session.statement_cache),
  startup_timeout: duration('1s', '1h').prefault(DEFAULTS.session.startup_timeout),
});

const reclone = group({
  mode: choice(['off', 'automatic']).default(DEFAULTS.reclone.mode),
  method: choice(['auto', 'physical', 'logical']).default(DEFAULTS.reclone.method),
  data_directory: text("the path of PostgreSQL's data directory").optional(),
  stop: text('a shell command').optional(),
  start: text('a shell command').optional(),
  tools_directory: text('the path of a directory with pg_dump and pg_restore').optional(),
  wait: duration('0s', '24h').prefault(DEFAULTS.reclone.wait),
  max_rate: size('32kB', '1GB').prefault(DEFAULTS.reclone.max_rate),
  keep_old: boolean().default(DEFAULTS.reclone.keep_old),
  tablespaces: list(
    group({ name: text('the name of a tablespace'), location: text('the absolute path of a directory', /^\//) }),
    'a list of tablespaces',
  ).default([]),
});

export const configSchema = group({
  node: id(),
  cluster,
  data_dir: text('the path of a directory').default(DEFAULTS.data_dir),
  listen: group({ ...listenAt(DEFAULTS.listen), tls: tls.optional() }).prefault({}),
  peer_listen: group(listenAt(DEFAULTS.peer_listen)).prefault({}),
  admin: group(listenAt(DEFAULTS.admin)).prefault({}),
  postgres: postgres.prefault({}),
  databases: list(text('the name of a database'), 'a list of at least one database').default([...DEFAULTS.databases]),
  nodes: list(node, 'a list of at least one node'),
  referee: referee.optional(),
  heartbeat: group({
    interval: duration('10ms', '1min').prefault(DEFAULTS.heartbeat.interval),
    timeout: duration('50ms', '10min').prefault(DEFAULTS.heartbeat.timeout),
  }).prefault({}),
  election: group({ timeout: duration('50ms', '1min').prefault(DEFAULTS.election.timeout) }).prefault({}),
  member: group({ vote_timeout: duration('100ms', '1h').prefault(DEFAULTS.member.vote_timeout) }).prefault({}),
  commit: group({
    decision_timeout: duration('100ms', '1h').prefault(DEFAULTS.commit.decision_timeout),
    order: choice(['strict', 'relaxed']).default(DEFAULTS.commit.order),
    committers: integer(2, 32).default(DEFAULTS.commit.committers),
  }).prefault({}),
  reads: group({
    level: choice(['local', 'session', 'strict']).default(DEFAULTS.reads.level),
    wait_timeout: duration('10ms', '1h').prefault(DEFAULTS.reads.wait_timeout),
    outside_cluster: choice(['serve', 'refuse']).default(DEFAULTS.reads.outside_cluster),
  }).prefault({}),
  advisory_locks: choice(['cluster', 'local']).default(DEFAULTS.advisory_locks),
  guard: choice(['off', 'on']).default(DEFAULTS.guard),
  apply: group({
    sessions: integer(1, 256).default(DEFAULTS.apply.sessions),
    statement_cache: integer(0, 100_000).default(DEFAULTS.apply.statement_cache),
    conflict_check_after: duration('1ms', '1min').prefault(DEFAULTS.apply.conflict_check_after),
  }).prefault({}),
  conflicts: group({
    retry_patience: duration('0s', '1min').prefault(DEFAULTS.conflicts.retry_patience),
  }).prefault({}),
  spool: group({
    memory: size('1MB', '1024GB').prefault(DEFAULTS.spool.memory),
    inline: size('1kB', '1GB').prefault(DEFAULTS.spool.inline),
  }).prefault({}),
  sequences: group({ stride: integer(1, MAX_NODE_ID).default(DEFAULTS.sequences.stride) }).prefault({}),
  session: session.prefault({}),
  raft: group({
    segment_size: size('64kB', '1GB').prefault(DEFAULTS.raft.segment_size),
    retain_entries: integer(100, 1_000_000_000).default(DEFAULTS.raft.retain_entries),
  }).prefault({}),
  retention: group({
    wal: size('32MB', '1024GB').prefault(DEFAULTS.retention.wal),
    time: duration('1min', '720h').prefault(DEFAULTS.retention.time),
  }).prefault({}),
  reclone: reclone.prefault({}),
  keepalive: keepalive.prefault({}),
  log: group({
    level: choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default(DEFAULTS.log.level),
  }).prefault({}),
});

/** The file's settings with defaults filled in, quantities as numbers, names as in the file. */
export type FileConfig = z.output<typeof configSchema>;

type CamelKey<Key> = Key extends `${infer Head}_${infer Tail}` ? `${Head}${Capitalize<CamelKey<Tail>>}` : Key;
type Camel<Value> = Value extends string | number | boolean | undefined
  ? Value
  : Value extends readonly (infer Element)[]
    ? readonly Camel<Element>[]
    : { readonly [Key in keyof Value as CamelKey<Key>]: Camel<Value[Key]> };

type CamelConfig = Camel<FileConfig>;

/**
 * What the program runs with. Durations are milliseconds, sizes bytes, paths absolute; files that hold a secret have been
 * read, so `secret` is always there and `secretFile` and `passwordFile` are gone.
 */
export type Config = Omit<CamelConfig, 'cluster' | 'postgres' | 'referee'> & {
  readonly cluster: { readonly name: string; readonly secret: string };
  readonly postgres: Omit<CamelConfig['postgres'], 'passwordFile'>;
  readonly referee?: RefereeConfig | undefined;
};
export type RefereeConfig = Omit<NonNullable<CamelConfig['referee']>, 'passwordFile'> & { readonly password?: string };
export type NodeConfig = Config['nodes'][number];

/** Whether this node only votes. */
export const isWitness = ({ node: self, nodes }: Pick<Config, 'node' | 'nodes'>): boolean =>
  nodes.some(({ id, witness }) => id === self && witness);

export type PostgresConfig = Config['postgres'];
