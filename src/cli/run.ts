import { Command } from 'commander';
import { ConfigError, loadConfig } from '../config/load.ts';
import { isWitness } from '../config/schema.ts';
import { lockDirectory } from '../runtime/directory-lock.ts';
import { createLogger } from '../runtime/log.ts';
import { Proxy } from './run/proxy.ts';
import { Witness } from './run/witness.ts';

/** `pgmm run`: one proxy beside one PostgreSQL, or a witness, until SIGTERM or SIGINT. */
export function runCommand(): Command {
  return new Command('run')
    .description('run one proxy beside its PostgreSQL server, or a witness')
    .requiredOption('--config <file>', 'the configuration file')
    .action(async (options: { config: string }) => {
      let config;
      try {
        config = loadConfig(options.config);
      } catch (error) {
        if (!(error instanceof ConfigError)) throw error;
        process.stderr.write(`${error.message}\n`);
        process.exitCode = 1;
        return;
      }
      const log = createLogger(config.log.level, config.node);
      let proxy: Proxy | Witness;
      try {
        process.once('exit', lockDirectory(config.dataDir));
        proxy = await (isWitness(config) ? Witness : Proxy).create(config, log, (error) => {
          // What is not known to be durable must not be acted upon: a new run begins from the disk.
          log.fatal({ err: error }, 'the proxy cannot go on');
          process.exit(70);
        });
        await proxy.start();
      } catch (error) {
        log.fatal({ err: error }, `the proxy cannot start: ${(error as Error).message}`);
        process.exit(1);
      }
      let stopping = false;
      const stop = (signal: NodeJS.Signals) => {
        if (stopping) return;
        stopping = true;
        log.info(`stopping on ${signal}`);
        proxy.stop().then(
          () => process.exit(0),
          (error: unknown) => {
            log.error({ err: error }, 'could not stop cleanly');
            process.exit(1);
          },
        );
      };
      process.on('SIGTERM', stop).on('SIGINT', stop);
    });
}
