/** What happened, as lines to read and as one number to compare runs by. Only the last lines are kept. */
const KEEP = 160;

export class Trace {
  readonly #verbose: boolean;
  readonly #lines: string[] = [];
  #next = 0;
  #hash = 0x811c9dc5;
  #second = 0x1b873593;

  constructor(verbose: boolean) {
    this.#verbose = verbose;
  }

  add(time: number, who: string, what: string): void {
    const line = `${time.toFixed(2).padStart(9)} ${who.padEnd(4)} ${what}`;
    for (let i = 0; i < line.length; i++) {
      this.#hash = Math.imul(this.#hash ^ line.charCodeAt(i), 0x01000193);
    }
    this.#second = Math.imul(this.#second ^ this.#hash, 0x85ebca6b) ^ (this.#second >>> 13);
    this.#lines[this.#next++ % KEEP] = line;
    if (this.#verbose) console.log(line);
  }

  get hash(): string {
    return (this.#hash >>> 0).toString(16).padStart(8, '0') + (this.#second >>> 0).toString(16).padStart(8, '0');
  }

  /** The newest lines, oldest first. */
  last(count = 100): string[] {
    const from = Math.max(0, this.#next - Math.min(count, KEEP));
    return Array.from({ length: this.#next - from }, (_, i) => this.#lines[(from + i) % KEEP]);
  }
}

/** A rule was broken, or nothing got on any more. */
export class Violation extends Error {
  readonly rule: string;

  constructor(rule: string, message: string) {
    super(`${rule}: ${message}`);
    this.name = 'Violation';
    this.rule = rule;
  }
}
