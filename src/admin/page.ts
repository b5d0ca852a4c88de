/** The status page: one file, no resources from elsewhere. Everything it shows comes from /status and is set as text. */
export const STATUS_PAGE = `<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>pgmm</title>
<style>
:root { color-scheme: light dark; --line: #8884; --dim: #888; --good: #2a9d5c; --bad: #d1495b; --soso: #c98a1b; }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
h1 { font-size: 1.3rem; margin: 0 } h2 { font-size: 1rem; margin: 2rem 0 .5rem }
header { display: flex; gap: 1rem; align-items: baseline; flex-wrap: wrap }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); vertical-align: top }
th { font-weight: 500; color: var(--dim) } td.n { font-variant-numeric: tabular-nums }
.good { color: var(--good) } .bad { color: var(--bad) } .soso { color: var(--soso) } .dim { color: var(--dim) }
code { font-size: .85em; overflow-wrap: anywhere } .wide { overflow-x: auto }
</style>
</head>
<body>
<header><h1 id="title">pgmm</h1><span id="state" role="status"></span><span id="stale" class="bad"></span></header>
<p id="reasons" class="bad"></p>
<p id="facts" class="dim"></p>
<h2>Nodes</h2>
<div class="wide"><table><thead><tr><th>Node<th>State<th>Epoch<th>Reachable<th>Committed index<th>Lag<th>Clients connect to</tr></thead>
<tbody id="nodes"></tbody></table></div>
<h2>Transactions in doubt</h2>
<div class="wide"><table><thead><tr><th>Transaction<th>Origin<th>Database<th>State<th>Age<th>Waits for</tr></thead>
<tbody id="doubt"></tbody></table></div>
<script>
const $ = (id) => document.getElementById(id);
const number = (value) => value === null ? '?' : value.toLocaleString('en');
const age = (ms) => ms < 1000 ? ms + ' ms' : ms < 60000 ? (ms / 1000).toFixed(1) + ' s' : Math.floor(ms / 60000) + ' min';
function rows(body, list, empty) {
  body.replaceChildren(...(list.length ? list : [[[empty, 'dim']]]).map((cells) => {
    const tr = document.createElement('tr');
    for (const [text, name] of cells) {
      const td = document.createElement('td');
      td.textContent = text;
      if (name) td.className = name;
      if (cells.length === 1) td.colSpan = 9;
      tr.append(td);
    }
    return tr;
  }));
}
function show(s) {
  document.title = $('title').textContent = s.cluster + ' / node ' + s.node;
  $('state').textContent = s.writable ? 'accepts writes' : 'refuses writes';
  $('state').className = s.writable ? 'good' : 'bad';
  $('reasons').textContent = s.reasons.join(' ');
  $('facts').textContent = [
    'pgmm ' + s.version, s.role + ' in term ' + s.term, s.leader === null ? 'no leader' : 'leader: node ' + s.leader,
    'log ' + number(s.log.committed) + ' of ' + number(s.log.last), s.clients + ' clients',
    'PostgreSQL ' + (s.postgres.version || '') + ' at ' + s.postgres.address + ' is ' + s.postgres.state,
    ...(s.bypasses.last ? [s.bypasses.count + ' writes past the proxy'] : []),
    ...(s.bypasses.unseen.length ? ['perhaps writes past the proxy before ' + new Date(s.bypasses.unseen[0].at).toLocaleString()] : []),
    ...(s.reclone ? ['copy of data: ' + s.reclone.state + (s.reclone.problem ? ': ' + s.reclone.problem : '')] : []),
    ...(s.referee ? ['referee ' + s.referee.server + ' is ' + s.referee.state + (s.referee.problem ? ': ' + s.referee.problem : '')] : []),
    'since ' + new Date(s.startedAt).toLocaleString(),
  ].join(' · ');
  const shade = { member: 'good', joining: 'soso', excluded: 'bad', unknown: 'dim' };
  rows($('nodes'), s.nodes.map((n) => [
    [n.id + (n.id === s.leader ? ' (leader)' : '') + (n.id === s.node ? ' (this)' : '')], [n.state, shade[n.state]],
    [number(n.epoch), 'n'], [n.reachable ? 'yes' : 'no', n.reachable ? '' : 'bad'],
    [number(n.committed), 'n'], [number(n.lag), 'n'], [n.client || '', 'dim'],
  ]), 'none');
  rows($('doubt'), s.inDoubt.map((t) => [[t.gid], ['node ' + t.origin], [t.database], [t.state], [age(t.ageMs), 'n'], [t.waitsFor.join(', ')]]), 'none');
}
let last = Date.now();
async function poll() {
  try {
    const response = await fetch('status', { signal: AbortSignal.timeout(3000) });
    show(await response.json());
    last = Date.now();
    $('stale').textContent = '';
  } catch {
    $('stale').textContent = 'no answer for ' + age(Date.now() - last);
  }
  setTimeout(poll, 1000);
}
poll();
</script>
</body>
</html>
`;
