import pino from 'pino';

export type Logger = pino.Logger;

/** One JSON line an event on standard error; `level` as pino's: trace, debug, info, warn, error, fatal, silent. */
export function createLogger(level: string, node?: number): Logger {
  return pino(
    { level, base: node === undefined ? {} : { node }, timestamp: pino.stdTimeFunctions.isoTime },
    pino.destination(2),
  );
}
