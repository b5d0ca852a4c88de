import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { SECTIONS } from './all.ts';
import type { Errors, Scenario } from './scenario.ts';

export const DOCUMENT = fileURLToPath(new URL('../../../docs/isolation.md', import.meta.url));

const BEGIN = '<!-- scenarios:begin -->';
const END = '<!-- scenarios:end -->';

/** Markdown with the tables of all scenarios in place of what stood between the two marks. */
export async function withTables(document: string): Promise<string> {
  const [begin, end] = [document.indexOf(BEGIN), document.indexOf(END)];
  if (begin === -1 || end < begin) throw new Error(`the document has no ${BEGIN} … ${END}`);
  const tables = SECTIONS.map(({ title, scenarios }) => `## ${title}\n\n${table(scenarios)}`);
  const text = [document.slice(0, begin) + BEGIN, ...tables, document.slice(end)].join('\n\n');
  return await format(text, { ...(await resolveConfig(DOCUMENT)), parser: 'markdown' });
}

function table(scenarios: readonly Scenario[]): string {
  const rows = scenarios.map(({ conflict, server, cluster }) => [
    conflict,
    cell(server.text, server.errors),
    cell(cluster.text, cluster.errors),
  ]);
  return [['conflict', 'one server', 'two nodes'], ['---', '---', '---'], ...rows]
    .map((row) => `| ${row.join(' | ')} |`)
    .join('\n');
}

function cell(text: string, errors: Errors): string {
  const [committed, repeatable] = [errors['READ COMMITTED'], errors['REPEATABLE READ']].map((codes) =>
    codes.join(', '),
  );
  if (committed === '' && repeatable === '') return text;
  if (committed === repeatable) return `${text}: ${committed}`;
  return committed === '' ? `${text}: RR ${repeatable}` : `${text}: RC ${committed}; RR ${repeatable}`;
}
