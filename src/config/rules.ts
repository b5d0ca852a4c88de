import type { FileConfig } from './schema.ts';

/** Something wrong with a setting, at its path in the file: `['nodes', 1, 'id']`. */
export interface Complaint {
  readonly path: readonly PropertyKey[];
  readonly message: string;
}

/** What no setting can tell alone. Runs only on settings that are each right by themselves. */
export function crossCheck(config: FileConfig): Complaint[] {
  return [
    ...checkNodes(config),
    ...checkReferee(config),
    ...checkReclone(config),
    ...checkSecrets(config),
    ...checkListeners(config),
    ...checkTimes(config),
    ...checkDatabases(config),
    ...checkSpool(config),
  ];
}

function checkNodes({ node, nodes, sequences }: FileConfig): Complaint[] {
  const complaints: Complaint[] = [];
  if (!nodes.some(({ id }) => id === node)) {
    const ids = nodes.map(({ id }) => id).join(', ');
    complaints.push({ path: ['node'], message: `expected the id of an entry of nodes (${ids}), got ${node}` });
  }
  const ids = new Map<number, number>();
  const peers = new Map<string, number>();
  nodes.forEach((entry, index) => {
    const path = ['nodes', index];
    const peer = `${entry.peer.host}:${entry.peer.port}`;
    const [sameId, samePeer] = [ids.get(entry.id), peers.get(peer)];
    if (sameId !== undefined)
      complaints.push({ path: [...path, 'id'], message: `expected an id of its own, got that of nodes[${sameId}]` });
    if (samePeer !== undefined)
      complaints.push({
        path: [...path, 'peer'],
        message: `expected an address of its own, got that of nodes[${samePeer}]`,
      });
    if (entry.id > sequences.stride) {
      const message = `expected at most sequences.stride (${sequences.stride}), got ${entry.id}: there would be no sequence values for this node`;
      complaints.push({ path: [...path, 'id'], message });
    }
    if (entry.witness && nodes.every(({ witness }) => witness))
      complaints.push({ path: [...path, 'witness'], message: 'expected at least one node that holds data' });
    ids.set(entry.id, sameId ?? index);
    peers.set(peer, samePeer ?? index);
  });
  return complaints;
}

/** A third vote is for two nodes: of more, a majority is there without one. */
function checkReferee({ referee, nodes }: FileConfig): Complaint[] {
  if (referee === undefined) return [];
  const complaints: Complaint[] = [];
  const witnesses = nodes.filter(({ witness }) => witness).length;
  if (witnesses > 0 || nodes.length !== 2) {
    const found = witnesses > 0 ? 'a witness among them' : String(nodes.length);
    complaints.push({ path: ['referee'], message: `expected exactly two nodes, both with data, got ${found}` });
  }
  if (referee.password_file !== undefined && new URL(referee.url).password !== '')
    complaints.push({ path: ['referee', 'password_file'], message: 'expected a password here or in url, got both' });
  if (referee.ca_file !== undefined && !referee.url.startsWith('rediss:'))
    complaints.push({ path: ['referee', 'ca_file'], message: 'expected a url that begins with rediss:// for TLS' });
  return complaints;
}

/** A physical copy can only be put in place by whoever can stop PostgreSQL and start it again. A logical one needs none of it. */
function checkReclone({ reclone, databases, postgres }: FileConfig): Complaint[] {
  const needed = ['data_directory', 'stop', 'start'] as const;
  const given = needed.filter((name) => reclone[name] !== undefined);
  const isPhysical = reclone.method === 'physical' && reclone.mode === 'automatic';
  if (given.length > 0 ? given.length < needed.length : isPhysical)
    return needed
      .filter((name) => reclone[name] === undefined)
      .map((name) => ({ path: ['reclone', name], message: `is required: a physical copy needs ${needed.join(', ')}` }));
  if (
    reclone.method !== 'logical' ||
    ['postgres', 'template1', postgres.database].some((name) => !databases.includes(name))
  )
    return [];
  const message = `expected another method, or a database that is not among databases: a logical copy is made from there`;
  return [{ path: ['reclone', 'method'], message }];
}

function checkSecrets({ cluster, postgres }: FileConfig): Complaint[] {
  const complaints: Complaint[] = [];
  if (cluster.secret === undefined && cluster.secret_file === undefined) {
    complaints.push({
      path: ['cluster', 'secret'],
      message: 'is required, or secret_file: expected at least 16 characters',
    });
  }
  if (cluster.secret !== undefined && cluster.secret_file !== undefined) {
    complaints.push({ path: ['cluster', 'secret_file'], message: 'expected either secret or secret_file, got both' });
  }
  if (postgres.password !== undefined && postgres.password_file !== undefined) {
    complaints.push({
      path: ['postgres', 'password_file'],
      message: 'expected either password or password_file, got both',
    });
  }
  return complaints;
}

const WILDCARDS = new Set(['0.0.0.0', '::', '*']);

function checkListeners(config: FileConfig): Complaint[] {
  const names = ['listen', 'peer_listen', 'admin'] as const;
  return names.flatMap((name, index) =>
    names.slice(0, index).flatMap((earlier) => {
      const [a, b] = [config[name], config[earlier]];
      if (a.port !== b.port) return [];
      if (a.host !== b.host && !WILDCARDS.has(a.host) && !WILDCARDS.has(b.host)) return [];
      return [{ path: [name, 'port'], message: `expected a port other than that of ${earlier}, got ${a.port}` }];
    }),
  );
}

function checkTimes({ heartbeat, election }: FileConfig): Complaint[] {
  const complaints: Complaint[] = [];
  if (heartbeat.timeout < 3 * heartbeat.interval) {
    const message = `expected at least three times heartbeat.interval (${heartbeat.interval}ms), got ${heartbeat.timeout}ms`;
    complaints.push({ path: ['heartbeat', 'timeout'], message });
  }
  if (election.timeout < 2 * heartbeat.interval) {
    const message = `expected at least twice heartbeat.interval (${heartbeat.interval}ms), got ${election.timeout}ms`;
    complaints.push({ path: ['election', 'timeout'], message });
  }
  return complaints;
}

function checkDatabases({ databases }: FileConfig): Complaint[] {
  return databases.flatMap((name, index) =>
    databases.indexOf(name) === index
      ? []
      : [{ path: ['databases', index], message: `expected every database once, got "${name}" again` }],
  );
}

function checkSpool({ spool }: FileConfig): Complaint[] {
  if (spool.inline <= spool.memory) return [];
  return [
    {
      path: ['spool', 'inline'],
      message: `expected at most spool.memory (${spool.memory} bytes), got ${spool.inline} bytes`,
    },
  ];
}
