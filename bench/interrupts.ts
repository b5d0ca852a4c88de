import { BenchError } from './pgbench.ts';

/** Ctrl-C ends the run at the next step, so that no server is left behind; a second one at once. */
export class Interrupts {
  #asked = false;
  readonly #onSignal = (): void => {
    if (this.#asked) process.exit(130);
    this.#asked = true;
  };

  constructor() {
    process.on('SIGINT', this.#onSignal).on('SIGTERM', this.#onSignal);
  }

  check(): void {
    if (this.#asked) throw new BenchError('interrupted');
  }

  end(): void {
    process.off('SIGINT', this.#onSignal).off('SIGTERM', this.#onSignal);
  }
}
