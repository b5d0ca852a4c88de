import { describe, expect, it } from 'vitest';
import { planStartup, withoutChannelBinding } from '../../../src/session/startup.ts';
import type { StartupPlan } from '../../../src/session/startup.ts';

const plan = (parameters: Record<string, string>): StartupPlan =>
  planStartup(new Map(Object.entries(parameters)), new Set(['app']));

describe('the plan for a StartupMessage', () => {
  it('runs sessions read-only by default, and keeps the client its own value', () => {
    const options = (found: StartupPlan): unknown =>
      found.type === 'session' && [found.parameters.get('options'), found.readOnly];
    expect(options(plan({ user: 'u', database: 'app' }))).toEqual([
      '-c default_transaction_read_only=on -c multimaster.proxy=on',
      false,
    ]);
    expect(
      options(plan({ user: 'u', database: 'app', options: '-c a=b -c default_transaction_read_only=off' })),
    ).toEqual(['-c a=b -c default_transaction_read_only=on -c multimaster.proxy=on', false]);
    const named = plan({
      user: 'u',
      database: 'app',
      default_transaction_read_only: 'ON',
      options: '-c default_transaction_read_only=off',
    });
    expect(options(named)).toEqual(['-c default_transaction_read_only=on -c multimaster.proxy=on', true]);
    expect(named.type === 'session' && named.parameters.has('default_transaction_read_only')).toBe(false);
  });

  it('takes the user for the database, and refuses what is not coordinated', () => {
    expect(plan({ user: 'app' })).toMatchObject({ type: 'session', database: 'app' });
    expect(plan({ user: 'u' })).toMatchObject({ type: 'refused', error: { sqlstate: '0A000', severity: 'FATAL' } });
    expect(plan({ database: 'app' })).toMatchObject({ type: 'refused', error: { sqlstate: '28000' } });
  });

  it('leaves walsender connections alone', () => {
    for (const replication of ['database', 'true', '1'])
      expect(plan({ user: 'u', replication })).toEqual({ type: 'replication' });
    expect(plan({ user: 'u', database: 'app', replication: 'false' })).toMatchObject({ type: 'session' });
  });
});

describe('SASL mechanisms', () => {
  const offer = (...names: string[]): Buffer => {
    const body = Buffer.concat([
      Buffer.from([0, 0, 0, 10]),
      ...names.map((name) => Buffer.from(`${name}\0`)),
      Buffer.from([0]),
    ]);
    const head = Buffer.from([0x52, 0, 0, 0, body.length + 4]);
    return Buffer.concat([head, body]);
  };

  it('are offered without channel binding', () => {
    expect(withoutChannelBinding(offer('SCRAM-SHA-256-PLUS', 'SCRAM-SHA-256')).equals(offer('SCRAM-SHA-256'))).toBe(
      true,
    );
    const plain = offer('SCRAM-SHA-256');
    expect(withoutChannelBinding(plain)).toBe(plain);
    const ok = Buffer.from([0x52, 0, 0, 0, 8, 0, 0, 0, 0]);
    expect(withoutChannelBinding(ok)).toBe(ok);
  });
});
