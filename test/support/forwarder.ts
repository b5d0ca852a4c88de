/** `forwarder.ts HOST PORT TARGET…`: passes TCP connections on, to a unix socket's path or to HOST PORT. For other network namespaces. */
import { connect, createServer } from 'node:net';

const [host, port, target, ...rest] = process.argv.slice(2);
const targetPort = rest.at(0);

createServer({ noDelay: true }, (client) => {
  const server = targetPort === undefined ? connect(target) : connect({ host: target, port: Number(targetPort) });
  client.pipe(server).pipe(client);
  for (const [one, other] of [
    [client, server],
    [server, client],
  ]) {
    one.on('error', () => undefined);
    one.on('close', () => other.destroy());
  }
}).listen(Number(port), host, () => console.log('listening'));
