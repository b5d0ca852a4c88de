#!/usr/bin/env node
import { Command } from 'commander';
import { adoptCommand } from './cli/adopt.ts';
import { checkCommand } from './cli/check.ts';
import { devCommand } from './cli/dev.ts';
import { recloneCommand } from './cli/reclone.ts';
import { runCommand } from './cli/run.ts';
import { statusCommand } from './cli/status.ts';
import { verifyCommand } from './cli/verify.ts';

/** The program `pgmm`: one command per file of cli/. */
await new Command('pgmm')
  .description('makes ordinary PostgreSQL servers behave as one database that can be written on every node')
  .version('0.1.0')
  .addCommand(runCommand())
  .addCommand(checkCommand())
  .addCommand(statusCommand())
  .addCommand(adoptCommand())
  .addCommand(recloneCommand())
  .addCommand(verifyCommand())
  .addCommand(devCommand())
  .parseAsync();
