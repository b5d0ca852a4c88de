import type { Config } from '../../config/schema.ts';
import { nameOf, RefereeConnection, RefereeRefused } from '../../consensus/referee/connection.ts';
import { failed, ok, warning } from './result.ts';
import type { CheckResult } from './result.ts';

/** The Redis with the third vote, if there is one: whether it is there, and keeps what it is told. */
export async function checkReferee({ referee }: Pick<Config, 'referee'>): Promise<CheckResult[]> {
  if (referee === undefined) return [];
  const name = nameOf(referee.url);
  try {
    (await RefereeConnection.open(referee)).close('checked');
    return [ok('referee', `${name} keeps what it is told`)];
  } catch (error) {
    const { message } = error as Error;
    if (error instanceof RefereeRefused) return [failed('referee', `${name}: ${message}`, error.cure)];
    // The two nodes run without it, as long as both are there.
    return [warning('referee', `${name}: ${message}`, 'Start Redis there, open its port, or correct referee.url.')];
  }
}
