import { takesSnapshot } from '../sql/kinds.ts';
import type { StatementKind } from '../sql/kinds.ts';
import { Frontend } from '../wire/codes.ts';
import { readBind, readParse } from '../wire/frontend-fields.ts';
import type { Context } from './context.ts';
import { judge, judgeParse, showsData } from './judge.ts';

/** What the client's next message is, or the batch that it begins. `whole`: up to its end, or to where the client waits. */
export function lookAhead(context: Context): { whole: boolean; extended: boolean; showsData: boolean } {
  const found = { whole: false, extended: true, showsData: false };
  const inBlock = context.link.status === 'T';
  const kinds = new Map<string, StatementKind>();
  found.whole = context.stream.lookAhead((type, bytes, start, end) => {
    switch (type) {
      case Frontend.query:
        found.extended = false;
        found.showsData ||= showsData(judge(context, bytes, start + 5, end - 1));
        return true;
      case Frontend.functionCall:
        found.showsData = true;
        return true;
      case Frontend.parse: {
        const fields = readParse(bytes, start, end);
        if (fields === undefined) return false;
        const { kind } = judgeParse(context, bytes, fields.textStart, fields.textEnd);
        kinds.set(fields.name, kind);
        // Under REPEATABLE READ even that may take the snapshot of the transaction.
        if (inBlock && takesSnapshot(kind)) found.showsData = true;
        return false;
      }
      case Frontend.bind: {
        const name = readBind(bytes, start, end)?.statement ?? '';
        if (takesSnapshot(kinds.get(name) ?? context.statements.find(name).kind)) found.showsData = true;
        return false;
      }
      case Frontend.describe:
      case Frontend.execute:
      case Frontend.close:
        return false;
      default:
        return true;
    }
  });
  return found;
}
