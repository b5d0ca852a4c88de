import { describe, expect, it } from 'vitest';
import { isUsable, judgeLiveSlot } from '../../../src/replication/slots.ts';
import { lsn, ZERO_LSN } from '../../../src/runtime/ids.ts';

const AT = lsn(0x16b3748n);

describe('the live slot', () => {
  it('is read on where it is as it should be', () => {
    const found = { isLost: false, confirmed: AT };
    expect(isUsable(found)).toBe(true);
    expect(judgeLiveSlot(found, true)).toBeUndefined();
    expect(judgeLiveSlot(found, false)).toBeUndefined();
  });

  it('is made at the first start, and nothing is missed by that', () => {
    expect(judgeLiveSlot(undefined, false)).toEqual({ unseen: undefined });
  });

  it('begins anew when it was dropped: what is missed is not known', () => {
    expect(judgeLiveSlot(undefined, true)).toEqual({ unseen: { from: undefined } });
  });

  it('begins anew when PostgreSQL has given it up: what is missed begins where it had come to', () => {
    expect(judgeLiveSlot({ isLost: true, confirmed: AT }, true)).toEqual({ unseen: { from: AT } });
    expect(judgeLiveSlot({ isLost: true, confirmed: ZERO_LSN }, false)).toEqual({ unseen: { from: undefined } });
  });

  it('begins anew when its making was interrupted', () => {
    const found = { isLost: false, confirmed: ZERO_LSN };
    expect(isUsable(found)).toBe(false);
    expect(judgeLiveSlot(found, false)).toEqual({ unseen: undefined });
  });
});
