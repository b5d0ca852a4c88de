/**
 * An error as PostgreSQL reports one: what a client receives in an ErrorResponse, and what this program receives from a
 * server. Fields follow "Error and Notice Message Fields" of the protocol chapter.
 */
export class PgError extends Error {
  readonly severity: string;
  readonly sqlstate: string;
  readonly detail: string | undefined;
  readonly hint: string | undefined;
  /** One-based character offset into the query string, as the server counted it. */
  readonly position: number | undefined;
  /** Every other field, by its one-letter code (s, t, c, d, n, F, L, R, W, p, q). */
  readonly fields: Readonly<Record<string, string>>;

  constructor(
    sqlstate: string,
    message: string,
    more: {
      severity?: string;
      detail?: string | undefined;
      hint?: string | undefined;
      position?: number | undefined;
      fields?: Record<string, string>;
    } = {},
  ) {
    super(message);
    this.name = 'PgError';
    this.sqlstate = sqlstate;
    this.severity = more.severity ?? 'ERROR';
    this.detail = more.detail;
    this.hint = more.hint;
    this.position = more.position;
    this.fields = more.fields ?? {};
  }
}
