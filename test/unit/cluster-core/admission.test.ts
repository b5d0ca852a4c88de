import { beforeEach, describe, expect, it } from 'vitest';
import { Admission } from '../../../src/cluster/core/admission.ts';

const VOTE_TIMEOUT = 10_000;
const RESEND = 500;

describe('when a node may ask to be let in', () => {
  let admission: Admission;

  beforeEach(() => {
    admission = new Admission({ voteTimeout: VOTE_TIMEOUT, resendAfter: RESEND });
  });

  it('is at intervals, and at once of another leader', () => {
    expect(admission.isTime(0, 0)).toBe(true);
    expect(admission.isTime(499, 0)).toBe(false);
    expect(admission.isTime(500, 0)).toBe(true);
    admission.leaderChanged();
    expect(admission.isTime(501, 0)).toBe(true);
  });

  it('is not while it is far behind, nor while nothing of what is left comes', () => {
    admission.committed(1000);
    expect(admission.isTime(1000, 33)).toBe(false);
    expect(admission.isTime(1000, 18)).toBe(true);
    expect(admission.isTime(3001, 18)).toBe(false);
    expect(admission.isTime(3001, 0)).toBe(true);
  });

  it('is not before anything was committed, if something is left', () => {
    expect(admission.isTime(0, 1)).toBe(false);
  });

  it('comes later and later when its votes fail to come', () => {
    const waits: number[] = [];
    let now = 0;
    for (let i = 0; i < 12; i++) {
      admission.admitted(now);
      now += VOTE_TIMEOUT;
      admission.excluded(now, true);
      waits.push(admission.pause(now) / 1000);
      if (admission.pause(now) > 0) expect(admission.isTime(now + admission.pause(now) - 1, 0)).toBe(false);
      now += admission.pause(now);
      expect(admission.isTime(now, 0)).toBe(true);
    }
    expect(waits).toEqual([0, 10, 20, 40, 80, 160, 320, 600, 600, 600, 600, 600]);
    admission.admitted(now);
    now += 20 * VOTE_TIMEOUT;
    admission.excluded(now, true);
    expect(admission.pause(now)).toBe(0);
  });

  it('does not come later for silence: that is noticed soon', () => {
    for (let i = 0; i < 5; i++) admission.excluded(i, false);
    expect(admission.isTime(10, 0)).toBe(true);
  });
});
