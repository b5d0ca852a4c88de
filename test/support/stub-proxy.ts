/**
 * Stands in for a proxy in the playground's own tests. It reads the same configuration file, passes clients through to
 * its PostgreSQL, and answers on the peer port by repeating what it gets.
 */
import { readFileSync } from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { parse } from 'yaml';

interface StubConfig {
  readonly node: number;
  readonly listen: { readonly host: string; readonly port: number };
  readonly peer_listen: { readonly host: string; readonly port: number };
  readonly admin: { readonly host: string; readonly port: number };
  readonly postgres: { readonly host: string; readonly port: number };
}

const file = process.argv[process.argv.indexOf('--config') + 1];
const { node, listen, peer_listen, admin, postgres } = parse(readFileSync(file, 'utf8')) as StubConfig;

createServer((client) => {
  const server = postgres.host.startsWith('/')
    ? connect(join(postgres.host, `.s.PGSQL.${postgres.port}`))
    : connect(postgres.port, postgres.host);
  client.pipe(server).pipe(client);
  client.on('error', () => server.destroy());
  server.on('error', () => client.destroy());
}).listen(listen.port, listen.host);

createServer((peer) => {
  peer.on('error', () => peer.destroy());
  peer.pipe(peer);
}).listen(peer_listen.port, peer_listen.host);

createHttpServer((request, response) => {
  response.writeHead(['/healthz', '/readyz'].includes(request.url ?? '') ? 200 : 404).end('ok\n');
}).listen(admin.port, admin.host);

process.on('SIGTERM', () => {
  console.log(`node ${node}: SIGTERM`);
  process.exit(0);
});
console.log(`node ${node}: ready`);
