import { describe, expect, it } from 'vitest';
import { waitFor } from '../../support/wait-for.ts';

describe('waitFor', () => {
  it('returns what the probe returned at last', async () => {
    let asked = 0;
    await expect(waitFor('three', () => (++asked === 3 ? 'yes' : undefined), { everyMs: 1 })).resolves.toBe('yes');
  });

  it('says what was waited for and what was seen last', async () => {
    const options = { timeoutMs: 20, everyMs: 5 };
    await expect(waitFor('never', () => 0, options)).rejects.toThrow('never: not within 0.02 s (0)');
    const failing = (): boolean => {
      throw new Error('the reason');
    };
    await expect(waitFor('never', failing, options)).rejects.toThrow(/never: not within.*the reason/s);
    await expect(waitFor('never', () => false, { ...options, describe: () => ({ state: 7 }) })).rejects.toThrow(
      'state: 7',
    );
  });
});
