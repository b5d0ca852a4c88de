/** A failure whose message is all that the user of `pgmm dev` needs; anything else is a bug and shows its stack. */
export class DevError extends Error {
  constructor(message: string) {
    super(message);
    this.name = 'DevError';
  }
}

/** The text of whatever was thrown, for a message that goes on. */
export function reason(thrown: unknown): string {
  return thrown instanceof Error ? thrown.message : String(thrown);
}

/** The code of a failed system call, such as ENOENT; undefined for other errors. */
export function errorCode(thrown: unknown): string | undefined {
  return thrown instanceof Error && 'code' in thrown && typeof thrown.code === 'string' ? thrown.code : undefined;
}
