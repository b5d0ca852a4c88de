/** The `dev` commands alone, for the playground's own tests, where the proxies are stand-ins. */
import { Command } from 'commander';
import { devCommand } from '../../src/cli/dev.ts';

await new Command('pgmm').addCommand(devCommand()).parseAsync();
