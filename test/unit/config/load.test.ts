import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { ConfigError, loadConfig, parseConfig } from '../../../src/config/load.ts';

const MINIMAL = `node: 2
cluster: { name: dev, secret: 0123456789abcdef }
nodes:
  - id: 1
    peer: { host: a, port: 6433 }
  - id: 2
    peer: { host: b, port: 6433 }
`;

/** The problems of a text, one line each, as the user reads them. */
function problemsOf(text: string): string[] {
  try {
    parseConfig(text, 'pgmm.yaml');
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n');
    throw error;
  }
  return [];
}

describe('a configuration that is right', () => {
  it('fills in defaults, with durations in milliseconds and sizes in bytes', () => {
    const config = parseConfig(MINIMAL, '/etc/pgmm/pgmm.yaml');
    expect(config.node).toBe(2);
    expect(config.heartbeat).toEqual({ interval: 100, timeout: 2000 });
    expect(config.spool).toEqual({ memory: 64 * 1024 * 1024, inline: 256 * 1024 });
    expect(config.session.startupTimeout).toBe(60_000);
    expect(config.peerListen).toEqual({ host: '0.0.0.0', port: 6433 });
    expect(config.listen.tls).toBeUndefined();
  });

  it.each([
    ['1min', 60_000],
    ['1.5s', 1500],
    ['250 ms', 250],
  ])('reads a duration %s', (text, milliseconds) => {
    expect(parseConfig(`${MINIMAL}member: { vote_timeout: ${text} }\n`, 'f').member.voteTimeout).toBe(milliseconds);
  });

  it('reads secrets from files beside the configuration', () => {
    const folder = mkdtempSync(join(tmpdir(), 'pgmm-config-'));
    try {
      writeFileSync(join(folder, 's'), '0123456789abcdefgh\n');
      writeFileSync(join(folder, 'p'), 'pass word\n');
      const text = MINIMAL.replace('secret: 0123456789abcdef', 'secret_file: s');
      writeFileSync(join(folder, 'pgmm.yaml'), `${text}postgres: { password_file: p }\ndata_dir: data\n`);
      const config = loadConfig(join(folder, 'pgmm.yaml'));
      expect(config.cluster).toEqual({ name: 'dev', secret: '0123456789abcdefgh' });
      expect(config.postgres.password).toBe('pass word');
      expect(config.postgres).not.toHaveProperty('passwordFile');
      expect(config.dataDir).toBe(join(folder, 'data'));
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});

describe('a configuration that is wrong', () => {
  it('says where, which setting and what was expected, all at once', () => {
    expect(
      problemsOf(`${MINIMAL}heartbeat:
  intervall: 100ms
  timeout: 2
admin: { port: 70000 }
session:
  max_connections: many
`),
    ).toEqual([
      'pgmm.yaml:9:3: heartbeat.intervall: is not a setting: did you mean interval?',
      'pgmm.yaml:10:12: heartbeat.timeout: expected a duration from 50ms to 10min with its unit (ms, s, min, h), got 2',
      'pgmm.yaml:11:16: admin.port: expected a whole number from 1 to 65535, got 70000',
      'pgmm.yaml:13:20: session.max_connections: expected a whole number from 1 to 100000, got "many"',
    ]);
  });

  it('finds settings that are missing', () => {
    expect(problemsOf('node: 1\ncluster: { name: dev }\nnodes:\n  - id: 1\n  - peer: { host: a, port: 1 }\n')).toEqual([
      'pgmm.yaml:4:5: nodes[0].peer: is required: expected a mapping',
      'pgmm.yaml:5:5: nodes[1].id: is required: expected a whole number from 1 to 63',
    ]);
    expect(problemsOf('')).toHaveLength(3);
  });

  it('finds settings that are given twice, deep inside', () => {
    expect(problemsOf(`${MINIMAL}log: { level: info }\nlog: { level: info }\n`)).toEqual([
      'pgmm.yaml:9:1: log: is given twice',
    ]);
    expect(problemsOf(MINIMAL.replace('id: 2', 'id: 2\n    id: 2'))).toEqual([
      'pgmm.yaml:7:5: nodes[1].id: is given twice',
    ]);
  });

  it('finds what is not YAML', () => {
    expect(problemsOf('node: [1\n')[0]).toMatch(/^pgmm\.yaml:2:1: is not YAML: /);
    expect(problemsOf('- 1\n')).toEqual(['pgmm.yaml:1:1: expected a mapping, got a list']);
    expect(problemsOf(`${MINIMAL}log: info\n`)).toEqual(['pgmm.yaml:8:6: log: expected a mapping, got "info"']);
  });

  it.each([
    ['node: 2', 'node: 3', '1:7: node: expected the id of an entry of nodes (1, 2), got 3'],
    ['id: 1', 'id: 2', '6:9: nodes[1].id: expected an id of its own, got that of nodes[0]'],
    ['host: a', 'host: b', '7:11: nodes[1].peer: expected an address of its own, got that of nodes[0]'],
    [
      'name: dev',
      'name: a:b',
      '2:18: cluster.name: expected up to 32 lower-case letters, digits, _ and -, beginning with a letter, got "a:b"',
    ],
    [
      'secret: 0123456789abcdef',
      '',
      '2:1: cluster.secret: is required, or secret_file: expected at least 16 characters',
    ],
    [
      '}\nnodes',
      ', secret_file: x }\nnodes',
      '2:63: cluster.secret_file: expected either secret or secret_file, got both',
    ],
    [
      'cluster',
      'sequences: { stride: 1 }\ncluster',
      '7:9: nodes[1].id: expected at most sequences.stride (1), got 2: there would be no sequence values for this node',
    ],
    [
      'cluster',
      'admin: { host: ::1, port: 6432 }\ncluster',
      '2:27: admin.port: expected a port other than that of listen, got 6432',
    ],
    [
      'cluster',
      'heartbeat: { timeout: 200ms }\ncluster',
      '2:23: heartbeat.timeout: expected at least three times heartbeat.interval (100ms), got 200ms',
    ],
    [
      'cluster',
      'election: { timeout: 150ms }\ncluster',
      '2:22: election.timeout: expected at least twice heartbeat.interval (100ms), got 150ms',
    ],
    ['cluster', 'databases: [a, a]\ncluster', '2:16: databases[1]: expected every database once, got "a" again'],
    ['cluster', 'databases: []\ncluster', '2:12: databases: expected a list of at least one database, got a list'],
    [
      'cluster',
      'spool: { memory: 1MB, inline: 2MB }\ncluster',
      '2:31: spool.inline: expected at most spool.memory (1048576 bytes), got 2097152 bytes',
    ],
    [
      'cluster',
      'reads: { level: lax }\ncluster',
      '2:17: reads.level: expected one of local, session, strict, got "lax"',
    ],
    ['cluster', 'commit: { order: lax }\ncluster', '2:18: commit.order: expected one of strict, relaxed, got "lax"'],
    ['cluster', 'dataDir: x\ncluster', '2:1: dataDir: is not a setting: did you mean data_dir?'],
  ])('%s -> %s', (from, to, problem) => {
    expect(problemsOf(MINIMAL.replace(from, to))[0]).toContain(`pgmm.yaml:${problem}`);
  });

  it('reports files that cannot be read at the setting that names them', () => {
    expect(problemsOf(MINIMAL.replace('secret: 0123456789abcdef', 'secret_file: /nowhere/s'))[0]).toMatch(
      /^pgmm\.yaml:2:36: cluster\.secret_file: expected a file that can be read: no such file/,
    );
    expect(() => loadConfig('/nowhere/pgmm.yaml')).toThrow("/nowhere/pgmm.yaml:1:1: can't be read: no such file");
  });
});

describe('a referee', () => {
  const refereeOf = (more: string) =>
    parseConfig(`${MINIMAL}${more}`, '/etc/pgmm/pgmm.yaml', () => 'pass word\n').referee;

  it('is a URL, or a group with one', () => {
    const plain = { url: 'redis://h', timeout: 1000, trustSettings: false };
    expect(refereeOf('referee: redis://h\n')).toEqual(plain);
    expect(refereeOf('referee: { url: redis://h }\n')).toEqual(plain);
    expect(
      refereeOf(
        'referee: { url: rediss://u@h:1/2, password_file: p, ca_file: ca, timeout: 200ms, trust_settings: true }\n',
      ),
    ).toEqual({
      ...{ url: 'rediss://u@h:1/2', password: 'pass word', caFile: '/etc/pgmm/ca', timeout: 200, trustSettings: true },
    });
    expect(parseConfig(MINIMAL, 'f')).not.toHaveProperty('referee');
  });

  const URL_FORM = 'expected redis://[user:password@]host[:port][/database], or rediss:// for TLS';

  it.each([
    ['referee: http://h', `pgmm.yaml:8:1: referee.url: ${URL_FORM}`],
    ['referee: redis://u:secret@h/x', `pgmm.yaml:8:1: referee.url: ${URL_FORM}`],
    [
      'referee: redis+sentinel://h',
      `pgmm.yaml:8:1: referee.url: ${URL_FORM}: a Redis Sentinel or Cluster would lose votes in a failover`,
    ],
    ['referee: { timeout: 1s }', `pgmm.yaml:8:1: referee.url: is required: ${URL_FORM}`],
    [
      'referee: { url: redis://h, passwordfile: x }',
      'pgmm.yaml:8:28: referee.passwordfile: is not a setting: did you mean password_file?',
    ],
    [
      'referee: { url: redis://:a@h, password_file: x }',
      'pgmm.yaml:8:46: referee.password_file: expected a password here or in url, got both',
    ],
    [
      'referee: { url: redis://h, ca_file: x }',
      'pgmm.yaml:8:37: referee.ca_file: expected a url that begins with rediss:// for TLS',
    ],
  ])('%s is wrong', (text, problem) => {
    expect(problemsOf(`${MINIMAL}${text}\n`)).toContain(problem);
  });

  it.each([
    ['  - { id: 3, peer: { host: c, port: 6433 } }', '3'],
    ['  - { id: 3, peer: { host: c, port: 6433 }, witness: true }', 'a witness among them'],
  ])('is for two nodes that hold data: not with %s', (node, found) => {
    expect(problemsOf(`${MINIMAL}${node}\nreferee: redis://h\n`)).toEqual([
      `pgmm.yaml:9:10: referee: expected exactly two nodes, both with data, got ${found}`,
    ]);
  });
});

describe('how data are replaced by a copy', () => {
  it('needs no settings for a logical one, and three for a physical one', () => {
    expect(problemsOf(`${MINIMAL}reclone: { mode: automatic }\n`)).toEqual([]);
    expect(problemsOf(`${MINIMAL}reclone: { method: logical, tools_directory: bin }\n`)).toEqual([]);
    expect(parseConfig(`${MINIMAL}reclone: { tools_directory: bin }\n`, '/etc/pgmm.yaml').reclone.toolsDirectory).toBe(
      '/etc/bin',
    );
    const missing = (text: string) =>
      problemsOf(`${MINIMAL}${text}\n`).map((line) => line.replace(/^.*: (reclone\.)/, '$1'));
    const needed = 'is required: a physical copy needs data_directory, stop, start';
    expect(missing('reclone: { mode: automatic, method: physical }')).toEqual([
      `reclone.data_directory: ${needed}`,
      `reclone.stop: ${needed}`,
      `reclone.start: ${needed}`,
    ]);
    expect(missing('reclone: { data_directory: d, start: s }')).toEqual([`reclone.stop: ${needed}`]);
  });

  it('needs a database to work from where it is a logical one', () => {
    const [problem, ...others] = problemsOf(
      `${MINIMAL}databases: [postgres, template1]\nreclone: { method: logical }\n`,
    );
    expect(others).toEqual([]);
    expect(problem).toContain('reclone.method: expected another method, or a database that is not among databases');
  });
});
