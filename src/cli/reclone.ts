import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Command } from 'commander';
import { REQUEST_FILE } from '../cluster/reclone/recloner.ts';
import { loadConfig } from '../config/load.ts';

/** `pgmm reclone`: an operator's word that this node's data are to be replaced by a copy of another node's. */
export function recloneCommand(print: (line: string) => void = console.log): Command {
  return new Command('reclone')
    .description("let the running proxy replace this node's data by a copy of another node's (docs/reclone.md)")
    .requiredOption('--config <file>', 'the configuration file')
    .action(({ config: file }: { config: string }) => {
      const { dataDir, node, reclone } = loadConfig(file);
      if (reclone.method === 'physical' && reclone.dataDirectory === undefined)
        throw new Error(`${file} does not say how: set reclone.data_directory, stop and start`);
      writeFileSync(join(dataDir, REQUEST_FILE), '');
      print(
        `asked for: the proxy of node ${node} copies another node's data and puts them in place; see "pgmm status"`,
      );
    });
}
