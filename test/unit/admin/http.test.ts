import { nodeId, type Gid } from '../../../src/runtime/ids.ts';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { AdminServer } from '../../../src/admin/http.ts';
import { Metrics } from '../../../src/admin/metrics.ts';
import type { ClusterStatus } from '../../../src/admin/status.ts';

const STATUS: ClusterStatus = {
  version: '0.1.0',
  cluster: 'dev',
  node: 1,
  role: 'leader',
  term: 4,
  leader: 1,
  writable: true,
  reasons: [],
  log: { last: 10, committed: 9 },
  nodes: [{ id: 1, state: 'member', epoch: 1, reachable: true, committed: 9, lag: 0, client: '10.0.0.1:6432' }],
  advisoryLocks: [],
  inDoubt: [
    {
      gid: 'pgmm:dev:1:1:1:1' as Gid,
      origin: nodeId(1),
      database: 'postgres',
      state: 'voting',
      ageMs: 12,
      waitsFor: ['vote of node 2'],
    },
  ],
  postgres: { state: 'up', version: '15.18', address: '/var/run/postgresql:5432' },
  catchUp: null,
  reclone: null,
  bypasses: { count: 0, last: null, unseen: [] },
  clients: 3,
  referee: null,
  voiceless: null,
  voicelessPeers: [],
  startedAt: '2025-01-01T00:00:00.000Z',
};

describe('the admin server', () => {
  const metrics = new Metrics();
  let status: ClusterStatus;
  const readiness = () => ({ node: status.node, writable: status.writable, reasons: status.reasons });
  let server: AdminServer;
  let base: string;

  beforeEach(async () => {
    status = STATUS;
    server = new AdminServer({ host: '127.0.0.1', port: 0, metrics, source: { status: () => status, readiness } });
    await server.start();
    base = `http://127.0.0.1:${server.address().port}`;
  });
  afterEach(() => server.stop());

  it('is ready while writes are accepted, and says why not', async () => {
    expect((await fetch(`${base}/readyz`)).status).toBe(200);
    status = { ...STATUS, writable: false, reasons: ['No majority: nodes 2 and 3 are not reachable.'] };
    const response = await fetch(`${base}/readyz?verbose`);
    expect(response.status).toBe(503);
    expect(await response.json()).toEqual({ ready: false, node: 1, reasons: status.reasons });
    expect((await fetch(`${base}/healthz`)).status).toBe(200);
  });

  it('gives the status as JSON and as a page that needs nothing from elsewhere', async () => {
    expect(await (await fetch(`${base}/status`)).json()).toEqual(STATUS);
    const page = await fetch(base);
    expect(page.headers.get('content-type')).toBe('text/html; charset=utf-8');
    expect(await page.text()).not.toMatch(/https?:|src=/);
  });

  it('gives metrics', async () => {
    metrics.transactions.committed.inc();
    const response = await fetch(`${base}/metrics`);
    expect(await response.text()).toContain('pgmm_transactions_total{outcome="committed"} 1');
  });

  it('refuses the rest', async () => {
    expect((await fetch(`${base}/nowhere`)).status).toBe(404);
    expect((await fetch(`${base}/status`, { method: 'POST' })).status).toBe(405);
    expect((await fetch(`${base}/status`, { method: 'HEAD' })).status).toBe(200);
  });

  it('survives a source that fails', async () => {
    const broken = new AdminServer({
      ...{ host: '127.0.0.1', port: 0, metrics },
      source: {
        status: () => {
          throw new Error('not yet');
        },
        readiness,
      },
    });
    await broken.start();
    const at = `http://127.0.0.1:${broken.address().port}`;
    expect((await fetch(`${at}/status`)).status).toBe(500);
    // Asked often, and needs no list of all that is under way.
    expect((await fetch(`${at}/readyz`)).status).toBe(200);
    await broken.stop();
  });
});
