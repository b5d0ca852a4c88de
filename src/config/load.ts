import { readFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { LineCounter, parseDocument } from 'yaml';
import type { z } from 'zod';
import { Locator, settingName } from './locate.ts';
import { crossCheck } from './rules.ts';
import type { Complaint } from './rules.ts';
import { configSchema } from './schema.ts';
import type { Config, FileConfig } from './schema.ts';
import { knownKeys } from './shape.ts';
import { suggest } from './suggest.ts';

/** One thing wrong with the configuration file, where an editor can jump to. */
export interface ConfigProblem {
  readonly file: string;
  readonly line: number;
  readonly column: number;
  /** `nodes[1].peer.port`; empty for the file as a whole. */
  readonly setting: string;
  readonly message: string;
}

/** Everything that is wrong with a configuration file; the message has one line per problem. */
export class ConfigError extends Error {
  readonly problems: readonly ConfigProblem[];

  constructor(problems: readonly ConfigProblem[]) {
    super(problems.map(formatProblem).join('\n'));
    this.name = 'ConfigError';
    this.problems = problems;
  }
}

/** `file:line:col: setting: what was expected` */
export function formatProblem({ file, line, column, setting, message }: ConfigProblem): string {
  return `${file}:${line}:${column}: ${setting === '' ? '' : `${setting}: `}${message}`;
}

/** Reads and checks a configuration file. Throws ConfigError with everything that is wrong in it. */
export function loadConfig(file: string): Config {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new ConfigError([{ file, line: 1, column: 1, setting: '', message: `can't be read: ${reason(error)}` }]);
  }
  return parseConfig(text, file);
}

/**
 * The same for a text. `file` is named in problems, and paths in the text are relative to its folder. `readSecret` reads
 * the files the text names; a test may replace it.
 */
export function parseConfig(
  text: string,
  file: string,
  readSecret: (path: string) => string = (path) => readFileSync(path, 'utf8'),
): Config {
  const lines = new LineCounter();
  const document = parseDocument(text, { lineCounter: lines, uniqueKeys: true, prettyErrors: false });
  const locator = new Locator(document, lines);
  const problems: ConfigProblem[] = [];
  const report = (offset: number, setting: string, message: string): void => {
    const { line, column } = locator.position(offset);
    problems.push({ file, line, column, setting, message });
  };
  const complain = ({ path, message }: Complaint): void => report(locator.offsetOf(path), settingName(path), message);

  let broken = false;
  for (const error of document.errors) {
    if (error.code === 'DUPLICATE_KEY')
      report(error.pos[0], settingName(locator.pathAt(error.pos[0])), 'is given twice');
    else {
      broken = true;
      report(error.pos[0], '', `is not YAML: ${error.message}`);
    }
  }
  if (!broken) {
    const parsed = configSchema.safeParse(document.toJS() ?? {}, { reportInput: true });
    if (!parsed.success) {
      for (const issue of parsed.error.issues) reportIssue(issue, locator, report, complain);
    } else {
      crossCheck(parsed.data).forEach(complain);
      const config = finish(parsed.data, dirname(resolve(file)), readSecret, complain);
      if (problems.length === 0) return config;
    }
  }
  throw new ConfigError(problems.sort((a, b) => a.line - b.line || a.column - b.column));
}

function reportIssue(
  issue: z.core.$ZodIssue,
  locator: Locator,
  report: (offset: number, setting: string, message: string) => void,
  complain: (complaint: Complaint) => void,
): void {
  if (issue.code !== 'unrecognized_keys') {
    complain({ path: issue.path, message: issue.message });
    return;
  }
  const known = knownKeys(issue.path);
  for (const key of issue.keys) {
    const path = [...issue.path, key];
    const meant = suggest(key, known);
    const rest = meant === undefined ? `expected one of ${known.join(', ')}` : `did you mean ${meant}?`;
    report(locator.offsetOfKey(path), settingName(path), `is not a setting: ${rest}`);
  }
}

/** Reads secrets, makes paths absolute and turns the file's names into the program's. */
function finish(
  config: FileConfig,
  folder: string,
  readSecret: (path: string) => string,
  complain: (complaint: Complaint) => void,
): Config {
  const at = (path: string): string => resolve(folder, path);
  const read = (path: readonly PropertyKey[], name: string): string => {
    try {
      return readSecret(at(name)).replace(/\r?\n$/, '');
    } catch (error) {
      complain({ path, message: `expected a file that can be read: ${reason(error)}` });
      return '';
    }
  };
  const { secret, secret_file: secretFile } = config.cluster;
  const { password_file: passwordFile, ...postgres } = config.postgres;
  const clusterSecret = secretFile === undefined ? secret : read(['cluster', 'secret_file'], secretFile);
  if (secretFile !== undefined && clusterSecret !== undefined && clusterSecret !== '' && clusterSecret.length < 16) {
    complain({ path: ['cluster', 'secret_file'], message: 'expected a file with at least 16 characters' });
  }
  const { referee: refereeInFile, ...others } = config;
  const referee = refereeInFile === undefined ? undefined : finishReferee(refereeInFile, at, read);
  const { tls } = config.listen;
  if (tls !== undefined) {
    read(['listen', 'tls', 'cert_file'], tls.cert_file);
    read(['listen', 'tls', 'key_file'], tls.key_file);
  }
  return camelize({
    ...others,
    ...(referee !== undefined && { referee }),
    data_dir: at(config.data_dir),
    cluster: { name: config.cluster.name, secret: clusterSecret ?? '' },
    listen: { ...config.listen, ...(tls && { tls: { cert_file: at(tls.cert_file), key_file: at(tls.key_file) } }) },
    reclone: {
      ...config.reclone,
      ...(config.reclone.tools_directory !== undefined && { tools_directory: at(config.reclone.tools_directory) }),
    },
    postgres: {
      ...postgres,
      ...(passwordFile !== undefined && { password: read(['postgres', 'password_file'], passwordFile) }),
      ...(postgres.ssl_ca_file !== undefined && { ssl_ca_file: at(postgres.ssl_ca_file) }),
    },
  }) as Config;
}

function finishReferee(
  { password_file: passwordFile, ca_file: caFile, ...rest }: NonNullable<FileConfig['referee']>,
  at: (path: string) => string,
  read: (path: readonly PropertyKey[], name: string) => string,
) {
  if (caFile !== undefined) read(['referee', 'ca_file'], caFile);
  return {
    ...rest,
    ...(caFile !== undefined && { ca_file: at(caFile) }),
    ...(passwordFile !== undefined && { password: read(['referee', 'password_file'], passwordFile) }),
  };
}

function camelize(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(camelize);
  if (typeof value !== 'object' || value === null) return value;
  return Object.fromEntries(
    Object.entries(value).map(([key, inner]) => [
      key.replaceAll(/_(.)/g, (_, letter: string) => letter.toUpperCase()),
      camelize(inner),
    ]),
  );
}

/** `no such file or directory, open '…'` without Node's error code in front. */
function reason(error: unknown): string {
  return error instanceof Error ? error.message.replace(/^[A-Z]+: /, '') : String(error);
}
