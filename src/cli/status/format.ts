import type { ClusterStatus, NodeStatus } from '../../admin/status.ts';

/** What a person wants to know of one node, as lines. */
export function formatStatus(status: ClusterStatus): string[] {
  const { cluster, node, role, term, leader, log, postgres, clients, bypasses, inDoubt, nodes } = status;
  const leads = leader === null ? 'no leader' : `node ${leader} leads`;
  const writes = status.writable ? 'takes writes' : `takes no writes: ${status.reasons.join('; ')}`;
  return [
    `node ${node} of cluster "${cluster}": ${writes}`,
    `  decision log   ${role}, term ${term}, ${leads}; ${log.committed} entries decided`,
    `  PostgreSQL     ${postgres.state} (${postgres.address}), ${clients} clients`,
    ...describeVotes(status).map((line) => `  votes          ${line}`),
    ...(status.referee === null ? [] : [`  referee        ${describeReferee(status.referee)}`]),
    ...(bypasses.last === null ? [] : [`  bypassed       ${describeBypasses(bypasses.count, bypasses.last)}`]),
    ...bypasses.unseen.map((one) => `  bypassed       ${describeUnseen(one)}`),
    ...(status.catchUp === null ? [] : [`  catching up    ${describeCatchUp(status.catchUp)}`]),
    ...(status.reclone === null ? [] : [`  copy of data   ${describeReclone(status.reclone)}`]),
    ...aligned([
      ['', 'node', 'state', 'epoch', 'reachable', 'committed', 'behind'],
      ...nodes.map((one) => ['', ...describeNode(one)]),
    ]),
    ...describeAllInDoubt(inDoubt),
  ];
}

/** More would not be read; /status has them all. */
const MOST_IN_DOUBT = 20;

function describeAllInDoubt(inDoubt: ClusterStatus['inDoubt']): string[] {
  if (inDoubt.length === 0) return ['  no transaction in doubt'];
  const oldest = [...inDoubt].sort((a, b) => b.ageMs - a.ageMs).slice(0, MOST_IN_DOUBT);
  const rest = inDoubt.length - oldest.length;
  return [
    `  ${inDoubt.length} in doubt${rest > 0 ? `, the oldest ${oldest.length} of them` : ''}:`,
    ...oldest.map(describeInDoubt),
  ];
}

function describeReclone({
  state,
  method,
  donor,
  bytes,
  total,
  problem,
}: NonNullable<ClusterStatus['reclone']>): string {
  const amount = `${megabytes(bytes)} of about ${megabytes(total)} MB`;
  switch (state) {
    case 'held':
      return `not made: ${problem}`;
    case 'copying':
      return `${method}, ${amount} from node ${donor}`;
    case 'finishing':
      return `${method}, all ${megabytes(bytes)} MB have come from node ${donor}, and are being made ready`;
    case 'complete':
      return `complete, ${megabytes(bytes)} MB from node ${donor}; about to be put in place`;
    case 'failed':
      return `failed: ${problem}; it is tried again`;
  }
}

const megabytes = (bytes: number): string => (bytes / 1e6).toFixed(0);

function describeVotes({ voiceless, voicelessPeers }: ClusterStatus): string[] {
  return [
    ...(voiceless === null ? [] : [`this node's does not count: ${voiceless}`]),
    ...voicelessPeers.map(
      (node) => `node ${node}'s does not count: it came with a new decision log, and is to be let in`,
    ),
  ];
}

function describeReferee({ server, state, problem }: NonNullable<ClusterStatus['referee']>): string {
  return `${state === 'active' ? 'votes' : state} (${server})${problem === null ? '' : `: ${problem}`}`;
}

function describeBypasses(count: number, last: NonNullable<ClusterStatus['bypasses']['last']>): string {
  const { at, database, xid, tables } = last;
  return `${count} times, last at ${at}: transaction ${xid} in database ${database} on ${tables.join(', ')}`;
}

function describeUnseen({ database, from, at }: ClusterStatus['bypasses']['unseen'][number]): string {
  const where = from === null ? '' : ` from ${from} on`;
  return `perhaps: the WAL of database ${database} was gone${where} at ${at}, before it was looked at`;
}

function describeCatchUp({
  remaining,
  done,
  entriesPerSecond,
  secondsLeft,
  bytes,
}: NonNullable<ClusterStatus['catchUp']>): string {
  const eta = secondsLeft === null ? 'no estimate yet' : `about ${Math.ceil(secondsLeft)} s left`;
  const read = `${(bytes / 1024 / 1024).toFixed(1)} MB read`;
  return `${remaining} entries to go, ${done} done, ${Math.round(entriesPerSecond)} a second, ${read}, ${eta}`;
}

function describeNode({ id, state, epoch, reachable, committed, lag }: NodeStatus): string[] {
  return [String(id), state, String(epoch), reachable ? 'yes' : 'no', String(committed ?? '?'), String(lag ?? '?')];
}

function describeInDoubt({ gid, origin, database, state, ageMs, waitsFor }: ClusterStatus['inDoubt'][number]): string {
  const age = ageMs < 10_000 ? `${ageMs} ms` : `${Math.round(ageMs / 1000)} s`;
  return `    ${gid}  ${state} for ${age}, from node ${origin}, database ${database}; waits for ${waitsFor.join(', ')}`;
}

function aligned(rows: readonly (readonly string[])[]): string[] {
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  return rows.map((row) =>
    row
      .map((cell, column) => cell.padEnd(widths[column]))
      .join('  ')
      .trimEnd(),
  );
}
