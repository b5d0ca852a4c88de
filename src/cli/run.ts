import { Command } from 'commander';
import { ConfigError, loadConfig } from '../config/load.ts';
import { isWitness, type Config } from '../config/schema.ts';
import { lockDirectory } from '../runtime/directory-lock.ts';
import { createLogger, type Logger } from '../runtime/log.ts';
import { installCopy } from './run/install-copy.ts';
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
      await run(config, createLogger(config.log.level, config.node));
    });
}

/** A proxy runs until it is stopped, or until what it has on disk is to be looked at anew, such as when its data are replaced by a copy; then another one begins. */
async function run(config: Config, log: Logger): Promise<void> {
  let proxy: Proxy | Witness | undefined;
  const life = { isOver: false };
  const failed = (error: Error): void => {
    // What is not known to be durable must not be acted upon: a new run begins from the disk.
    log.fatal({ err: error }, 'the proxy cannot go on');
    process.exit(70);
  };
  const stop = (signal: NodeJS.Signals): void => {
    if (life.isOver) return;
    life.isOver = true;
    log.info(`stopping on ${signal}`);
    (proxy?.stop() ?? Promise.resolve()).then(
      () => process.exit(0),
      (error: unknown) => {
        log.error({ err: error }, 'could not stop cleanly');
        process.exit(1);
      },
    );
  };
  try {
    process.once('exit', lockDirectory(config.dataDir));
    process.on('SIGTERM', stop).on('SIGINT', stop);
    for (;;) {
      await installCopy(config, log).catch((error: unknown) => {
        log.error({ err: error }, `the copy of the data could not be put in place yet: ${(error as Error).message}`);
      });
      let over: (reason: string) => void = () => undefined;
      const end = new Promise<string>((done) => (over = done));
      proxy = await (isWitness(config)
        ? Witness.create(config, log, failed, over)
        : Proxy.create(config, log, failed, over));
      await proxy.start();
      const reason = await end;
      if (life.isOver) return;
      log.warn(`stopping for a moment: ${reason}`);
      await proxy.stop();
      proxy = undefined;
    }
  } catch (error) {
    log.fatal({ err: error }, `the proxy cannot start: ${(error as Error).message}`);
    process.exit(1);
  }
}
