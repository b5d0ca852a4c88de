import { createServer } from 'node:http';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { Metrics } from './metrics.ts';
import { STATUS_PAGE } from './page.ts';
import type { StatusSource } from './status.ts';

export interface AdminOptions {
  readonly host: string;
  /** 0 takes any free port; `address()` tells which. */
  readonly port: number;
  readonly metrics: Metrics;
  readonly source: StatusSource;
}

/**
 * Status and metrics over HTTP, for people, monitoring and load balancers. Read-only, and without authentication: it
 * belongs on an address that only those can reach.
 *
 *   /         a page that shows /status
 *   /status   everything this node knows, as JSON
 *   /metrics  for Prometheus
 *   /healthz  200 while the process serves: restart it otherwise
 *   /readyz   200 if writes are accepted here, else 503 with the reasons: send clients elsewhere
 */
export class AdminServer {
  readonly #server: Server;
  readonly #options: AdminOptions;

  constructor(options: AdminOptions) {
    this.#options = options;
    this.#server = createServer((request, response) => void this.#answer(request, response));
    // Nobody has a large or a slow request to send here.
    this.#server.requestTimeout = 10_000;
    this.#server.maxHeadersCount = 100;
    this.#server.maxConnections = 100;
  }

  async start(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#server.once('error', reject);
      this.#server.listen(this.#options.port, this.#options.host, () => {
        this.#server.off('error', reject);
        resolve();
      });
    });
  }

  address(): { host: string; port: number } {
    const { address, port } = this.#server.address() as AddressInfo;
    return { host: address, port };
  }

  async stop(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    try {
      if (request.method !== 'GET' && request.method !== 'HEAD') {
        send(response, 405, 'text/plain', 'only GET and HEAD\n', { allow: 'GET, HEAD' });
        return;
      }
      await this.#route((request.url ?? '/').split('?')[0], response);
    } catch (error) {
      if (!response.headersSent)
        send(response, 500, 'text/plain', `${error instanceof Error ? error.message : 'failed'}\n`);
      else response.destroy();
    }
  }

  async #route(path: string, response: ServerResponse): Promise<void> {
    const { metrics, source } = this.#options;
    switch (path) {
      case '/':
        send(response, 200, 'text/html; charset=utf-8', STATUS_PAGE, { 'content-security-policy': PAGE_POLICY });
        return;
      case '/status':
        sendJson(response, 200, source.status());
        return;
      case '/metrics':
        send(response, 200, metrics.registry.contentType, await metrics.registry.metrics());
        return;
      case '/healthz':
        send(response, 200, 'text/plain', 'ok\n');
        return;
      case '/readyz': {
        const { writable, reasons, node } = source.readiness();
        sendJson(response, writable ? 200 : 503, { ready: writable, node, reasons });
        return;
      }
      default:
        send(response, 404, 'text/plain', 'not found: there are /, /status, /metrics, /healthz and /readyz\n');
    }
  }
}

/** The page is self-contained: it loads nothing and talks to nobody but its own server. */
const PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'";

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  send(response, status, 'application/json', `${JSON.stringify(value, null, 2)}\n`);
}

function send(
  response: ServerResponse,
  status: number,
  type: string,
  body: string,
  headers: Record<string, string> = {},
): void {
  response.writeHead(status, {
    'content-type': type,
    'content-length': Buffer.byteLength(body),
    'cache-control': 'no-store',
    'x-content-type-options': 'nosniff',
    ...headers,
  });
  response.end(body);
}
