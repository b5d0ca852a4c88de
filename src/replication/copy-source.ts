/** A copy of a server's data as a stream of bytes, given out as it is asked for. */
export interface CopySource {
  /** About `limit` bytes. Rejects with what went wrong, and then always. */
  take(limit: number): Promise<CopyPiece>;
  /** Nobody takes it any more. */
  stop(): void;
}

export interface CopyPiece {
  readonly bytes: Buffer;
  readonly end: boolean;
  /** Bytes of the whole, as the server estimates. */
  readonly total: number;
}

/** The server is too different from the one that the copy is for; a copy of another kind may be possible. */
export class UnlikeServer extends Error {
  override readonly name = 'UnlikeServer';
}
