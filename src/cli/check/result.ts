/** What one check found. */
export interface CheckResult {
  readonly name: string;
  /** A warning doesn't keep the proxy from running. */
  readonly status: 'ok' | 'warning' | 'failed';
  readonly found: string;
  /** What to do: a statement or a line to copy where there is one. */
  readonly cure?: string;
}

export const ok = (name: string, found: string): CheckResult => ({ name, status: 'ok', found });
export const warning = (name: string, found: string, cure: string): CheckResult => ({
  name,
  status: 'warning',
  found,
  cure,
});
export const failed = (name: string, found: string, cure: string): CheckResult => ({
  name,
  status: 'failed',
  found,
  cure,
});
