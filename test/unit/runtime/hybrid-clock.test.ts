import { describe, expect, it } from 'vitest';
import { HybridClock } from '../../../src/runtime/hybrid-clock.ts';

const HOURS = 3_600_000;
/** A wall clock that can be set, and the time that has passed in truth. */
class Machine {
  wall = 1_700_000_000_000;
  monotonic = 5;
  readonly clock = new HybridClock(
    () => this.wall,
    () => this.monotonic,
  );

  pass(milliseconds: number): void {
    this.wall += milliseconds;
    this.monotonic += milliseconds;
  }
}

describe('the hybrid clock', () => {
  it('follows the wall clock, and never repeats a reading', () => {
    const machine = new Machine();
    const first = machine.clock.next();
    expect(first).toBe(machine.wall * 1024);
    expect(machine.clock.next()).toBe(first + 1);
    machine.pass(10);
    expect(machine.clock.next()).toBe(first + 10 * 1024);
  });

  it('goes on at its pace when the wall clock is set back, and follows it forward', () => {
    const machine = new Machine();
    const before = machine.clock.next();
    machine.wall -= 5 * HOURS;
    machine.pass(10);
    expect(machine.clock.next()).toBe(before + 10 * 1024);
    machine.wall += 20 * HOURS;
    expect(machine.clock.next()).toBe(machine.wall * 1024);
  });

  it('gives nobody an edge whose clock is right among those that are ahead', () => {
    const ahead = new Machine();
    const right = new Machine();
    ahead.wall += 5 * HOURS;
    right.clock.receive(ahead.clock.next());
    // Nothing is heard for a while: both go on alike.
    for (const machine of [ahead, right]) machine.pass(1000);
    expect(Math.abs(right.clock.next() - ahead.clock.next())).toBeLessThan(1024);
  });

  it('begins behind the others after a restart with a wrong clock, for no longer than until it hears of them', () => {
    const others = new Machine();
    const restarted = new Machine();
    restarted.wall -= 5 * HOURS;
    const stale = restarted.clock.next();
    expect(stale).toBeLessThan(others.clock.next());
    const heard = others.clock.next();
    restarted.clock.receive(heard);
    expect(restarted.clock.next()).toBeGreaterThan(heard);
  });
});
