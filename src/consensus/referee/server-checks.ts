/**
 * Whether a Redis can keep a voter's memory: what it has acknowledged must be on its disk, and it must be one server, not several that take
 * each other's place.
 */

/** What was asked of the server; null where it did not let itself be asked. */
export interface ServerFacts {
  /** `INFO`, by field. */
  readonly info: ReadonlyMap<string, string>;
  /** `CONFIG GET`, by setting. */
  readonly settings: ReadonlyMap<string, string> | null;
  /** The names of the connected clients, `CLIENT LIST`. */
  readonly clients: readonly string[] | null;
}

export interface ServerProblem {
  readonly reason: string;
  readonly cure: string;
}

const OLDEST_MAJOR = 7;
export const SETTINGS = ['appendonly', 'appendfsync', 'no-appendfsync-on-rewrite', 'maxmemory', 'maxmemory-policy'];

const ONE_SERVER = 'Give referee.url a Redis of its own: one server, without replicas that take its place.';

/** The first thing that is wrong; undefined if this server will do. `trusted`: referee.trust_settings. */
export function problemOf(facts: ServerFacts, trusted: boolean): ServerProblem | undefined {
  const { info, settings, clients } = facts;
  return kindProblem(info, clients) ?? aofProblem(info) ?? settingsProblem(settings, clients, trusted);
}

function kindProblem(info: ServerFacts['info'], clients: ServerFacts['clients']): ServerProblem | undefined {
  const mode = info.get('redis_mode');
  if (mode === 'sentinel')
    return { reason: 'this is a Redis Sentinel: a failover loses votes that were given', cure: ONE_SERVER };
  if (mode === 'cluster')
    return { reason: 'this is a node of a Redis Cluster: a failover loses votes that were given', cure: ONE_SERVER };
  const version = info.get('redis_version') ?? 'unknown';
  if (!(Number.parseInt(version, 10) >= OLDEST_MAJOR))
    return { reason: `this is Redis ${version}`, cure: `Redis ${OLDEST_MAJOR} or newer is needed.` };
  if (info.get('role') !== 'master')
    return { reason: 'this is a replica: it may lack votes that were given', cure: ONE_SERVER };
  if (clients?.some((name) => name.startsWith('sentinel-')) === true)
    return { reason: 'a Redis Sentinel watches this server: a failover loses votes that were given', cure: ONE_SERVER };
  return undefined;
}

function aofProblem(info: ServerFacts['info']): ServerProblem | undefined {
  if (info.get('loading') === '1') return { reason: 'Redis is loading its data', cure: 'Wait.' };
  if (info.get('aof_enabled') !== '1')
    return { reason: 'appendonly is off: a restart would lose votes', cure: persist('CONFIG SET appendonly yes') };
  if (info.get('aof_last_write_status') !== 'ok')
    return { reason: 'Redis could not write its append-only file', cure: "See Redis's log; its disk may be full." };
  return undefined;
}

/**
 * While a file is written for the first time after `appendonly` was switched on, nothing is durable yet; that can't be told from a
 * later rewrite, so a server is not accepted during either. One that was accepted stays so.
 */
export function isRewriting({ info }: ServerFacts): boolean {
  return info.get('aof_rewrite_in_progress') === '1' || info.get('aof_rewrite_scheduled') === '1';
}

function settingsProblem(
  settings: ServerFacts['settings'],
  clients: ServerFacts['clients'],
  trusted: boolean,
): ServerProblem | undefined {
  if ((settings === null || clients === null) && !trusted) {
    const command = settings === null ? 'CONFIG GET' : 'CLIENT LIST';
    return {
      reason: `Redis does not let ${command} be used, so its settings can't be checked`,
      cure:
        'Let the user of referee.url use CONFIG GET and CLIENT LIST; or make sure of appendonly yes, appendfsync always, ' +
        'no-appendfsync-on-rewrite no and a server without failover, and set referee.trust_settings: true.',
    };
  }
  if (settings === null) return undefined;
  const is = (name: string): string => settings.get(name) ?? 'unknown';
  if (is('appendfsync') !== 'always')
    return {
      reason: `appendfsync is ${is('appendfsync')}: a crash would lose votes`,
      cure: persist('CONFIG SET appendfsync always'),
    };
  if (is('no-appendfsync-on-rewrite') !== 'no')
    return {
      reason: 'no-appendfsync-on-rewrite is yes: a crash during a rewrite would lose votes',
      cure: persist('CONFIG SET no-appendfsync-on-rewrite no'),
    };
  if (is('maxmemory') !== '0' && is('maxmemory-policy').startsWith('allkeys-'))
    return {
      reason: `maxmemory-policy is ${is('maxmemory-policy')}: Redis may throw the votes away`,
      cure: persist('CONFIG SET maxmemory-policy noeviction'),
    };
  return undefined;
}

const persist = (command: string): string => `redis-cli ${command}, and CONFIG REWRITE to keep it.`;
