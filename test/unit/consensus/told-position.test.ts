import { describe, expect, it } from 'vitest';
import { ToldPosition } from '../../../src/consensus/core/told-position.ts';
import { logIndex } from '../../../src/runtime/ids.ts';

const entry = (term: number, index: number) => ({ term, index: logIndex(index) });
const PATIENCE = 100;

describe('how far the referee is taken', () => {
  it('goes no further than the other node while that one keeps up', () => {
    const told = new ToldPosition(PATIENCE);
    told.stored(entry(2, 5), 0);
    told.accepted(2, logIndex(5), 1);
    told.stored(entry(2, 8), 2);
    expect(told.peerKeepsUp(50)).toBe(true);
    expect(told.at(50)).toEqual(entry(2, 5));
    told.accepted(2, logIndex(8), 60);
    expect(told.at(60)).toEqual(entry(2, 8));
  });

  it('goes as far as this node when the other one is silent', () => {
    const told = new ToldPosition(PATIENCE);
    told.stored(entry(2, 5), 0);
    expect(told.at(0)).toEqual(entry(2, 5));
    told.accepted(2, logIndex(5), 1);
    told.stored(entry(2, 8), 2);
    expect(told.at(101)).toEqual(entry(2, 8));
  });

  it('does not wait for a node that answers and takes nothing', () => {
    const told = new ToldPosition(PATIENCE);
    told.stored(entry(2, 5), 0);
    told.accepted(2, logIndex(5), 1);
    told.stored(entry(2, 8), 200);
    for (let now = 210; now <= 300; now += 10) told.heard(now);
    expect(told.at(299)).toEqual(entry(2, 5));
    told.heard(300);
    expect(told.at(300)).toEqual(entry(2, 8));
  });

  it('is patient anew after an idle time', () => {
    const told = new ToldPosition(PATIENCE);
    told.stored(entry(2, 5), 0);
    told.accepted(2, logIndex(5), 1);
    told.heard(10_000);
    told.stored(entry(2, 6), 10_001);
    expect(told.at(10_050)).toEqual(entry(2, 5));
  });

  it('takes no entry of another term for one of the present term', () => {
    const told = new ToldPosition(PATIENCE);
    told.accepted(1, logIndex(4), 0);
    told.stored(entry(2, 5), 1);
    expect(told.at(2).index).toBe(0);
    // What the other node has of an older term says nothing either.
    told.accepted(2, logIndex(3), 3);
    expect(told.at(4).index).toBe(0);
    told.accepted(2, logIndex(5), 5);
    expect(told.at(6)).toEqual(entry(2, 5));
  });
});
