/**
 * Preloaded into a proxy (NODE_OPTIONS=--import): shifts its wall clock, Date alone, by the milliseconds in the file `clock` beside
 * its configuration file. Looked at again while it runs.
 */
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';

const config = process.argv.find((word) => word.endsWith('pgmm.yaml'));
if (config !== undefined) {
  const file = join(dirname(config), 'clock');
  const RealDate = Date;
  let shift = 0;
  const look = () => {
    try {
      shift = Number(readFileSync(file, 'utf8'));
    } catch {
      shift = 0;
    }
  };
  look();
  setInterval(look, 50).unref();
  globalThis.Date = class extends RealDate {
    constructor(...values) {
      if (values.length === 0) super(RealDate.now() + shift);
      else super(...values);
    }
    static now() {
      return RealDate.now() + shift;
    }
  };
}
