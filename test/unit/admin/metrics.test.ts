import { describe, expect, it } from 'vitest';
import { Metrics } from '../../../src/admin/metrics.ts';

async function lines(metrics: Metrics, name: string): Promise<string[]> {
  const text = await metrics.registry.getSingleMetricAsString(name);
  return text.split('\n').filter((line) => !line.startsWith('#') && line !== '');
}

describe('metrics', () => {
  it('have stable names', async () => {
    const names = (await new Metrics().registry.getMetricsAsJSON()).map(({ name }) => name);
    expect(names.sort()).toEqual([
      ...[
        'pgmm_aborts_total',
        'pgmm_apply_queue_length',
        'pgmm_apply_sessions_busy',
        'pgmm_bypassing_transactions_total',
        'pgmm_bytes_total',
        'pgmm_catch_up_entries',
        'pgmm_catch_up_seconds',
      ],
      ...['pgmm_client_connections', 'pgmm_committed_index', 'pgmm_conflicts_total', 'pgmm_event_loop_lag_seconds'],
      ...[
        'pgmm_in_doubt_transactions',
        'pgmm_intercepted_statements_total',
        'pgmm_lag_bytes',
        'pgmm_lag_entries',
        'pgmm_log_index',
      ],
      ...[
        'pgmm_log_leader',
        'pgmm_log_term',
        'pgmm_phase_seconds',
        'pgmm_raft_fsync_seconds',
        'pgmm_reclone_bytes',
        'pgmm_referee_seconds',
        'pgmm_referee_up',
        'pgmm_replay_rows_total',
      ],
      ...[
        'pgmm_slot_retained_wal_bytes',
        'pgmm_spool_disk_bytes',
        'pgmm_spool_memory_bytes',
        'pgmm_transactions_total',
        'pgmm_waiting_for_turn',
      ],
      'pgmm_writable',
    ]);
  });

  it('show series that are still zero', async () => {
    expect(await lines(new Metrics(), 'pgmm_transactions_total')).toContain(
      'pgmm_transactions_total{outcome="unknown"} 0',
    );
  });

  it('count aborts by SQLSTATE, within bounds', async () => {
    const metrics = new Metrics();
    for (let i = 0; i < 1000; i++) metrics.countAbort(String(i).padStart(5, '0'));
    metrics.countAbort('00000');
    const counted = await lines(metrics, 'pgmm_aborts_total');
    expect(counted).toHaveLength(101);
    expect(counted).toContain('pgmm_aborts_total{sqlstate="00000"} 2');
    expect(counted).toContain('pgmm_aborts_total{sqlstate="other"} 900');
  });

  it('follow nodes and slots as they come and go', async () => {
    const metrics = new Metrics();
    metrics.setNode(2, 10, 1, 100);
    metrics.setNode(3, 9, 2, 200);
    metrics.forgetNode(2);
    expect(await lines(metrics, 'pgmm_lag_entries')).toEqual(['pgmm_lag_entries{node="3"} 2']);
    expect(await lines(metrics, 'pgmm_lag_bytes')).toEqual(['pgmm_lag_bytes{node="3"} 200']);
    metrics.setRetainedWal(new Map([['a', 1]]));
    metrics.setRetainedWal(new Map([['b', 2]]));
    expect(await lines(metrics, 'pgmm_slot_retained_wal_bytes')).toEqual(['pgmm_slot_retained_wal_bytes{slot="b"} 2']);
  });

  it('measure the event loop', async () => {
    const metrics = new Metrics();
    const stop = metrics.watchEventLoop(5);
    await new Promise((resolve) => setTimeout(resolve, 50));
    stop();
    const observed = (await lines(metrics, 'pgmm_event_loop_lag_seconds')).find((line) => line.includes('_count'));
    expect(Number(observed?.split(' ')[1])).toBeGreaterThan(0);
  });
});
