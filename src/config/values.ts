import { z } from 'zod';

/** The kinds of value a setting can have. Each says in one phrase what it expects, which is what the user gets to read. */

const DURATION_UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1000, min: 60_000, h: 3_600_000 };
/** As in postgresql.conf: 1 kB is 1024 bytes. */
const SIZE_UNITS: Readonly<Record<string, number>> = { B: 1, kB: 1024, MB: 1024 ** 2, GB: 1024 ** 3 };

/** `expected …`, and what was found instead where that is short enough to help. */
function expected(what: string): (issue: { input?: unknown }) => string {
  return ({ input }) => {
    if (input === undefined) return `is required: expected ${what}`;
    return `expected ${what}, got ${describe(input)}`;
  };
}

function describe(input: unknown): string {
  if (input === null) return 'nothing';
  if (Array.isArray(input)) return 'a list';
  if (typeof input === 'object') return 'a mapping';
  const text = JSON.stringify(input);
  return text.length <= 60 ? text : `${text.slice(0, 57)}…"`;
}

/** Reads `500ms`, `1.5s`, `1min`, or undefined where that is no quantity in one of the units. */
function parseQuantity(input: unknown, units: Readonly<Record<string, number>>): number | undefined {
  if (input === 0) return 0;
  if (typeof input !== 'string') return undefined;
  const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]+)$/.exec(input);
  if (match === null) return undefined;
  const unit = Object.hasOwn(units, match[2]) ? units[match[2]] : undefined;
  if (unit === undefined) return undefined;
  const value = Number(match[1]) * unit;
  return Number.isInteger(value) ? value : undefined;
}

/** Milliseconds, or undefined for anything that is not a duration. */
export const parseDuration = (input: unknown): number | undefined => parseQuantity(input, DURATION_UNITS);
/** Bytes, or undefined for anything that is not a size. */
export const parseSize = (input: unknown): number | undefined => parseQuantity(input, SIZE_UNITS);

function quantity(parse: (input: unknown) => number | undefined, what: string, min: number, max: number) {
  return z
    .union([z.string(), z.number()], { error: expected(what) })
    .refine((input) => within(parse(input), min, max), { error: expected(what) })
    .transform((input) => parse(input) as number);
}

function within(value: number | undefined, min: number, max: number): boolean {
  return value !== undefined && value >= min && value <= max;
}

/** A duration, in milliseconds once read. */
export function duration(min = '1ms', max = '24h') {
  const what = `a duration from ${min} to ${max} with its unit (ms, s, min, h)`;
  return quantity(parseDuration, what, parseDuration(min) as number, parseDuration(max) as number);
}

/** A size, in bytes once read. */
export function size(min: string, max: string) {
  const what = `a size from ${min} to ${max} with its unit (B, kB, MB, GB)`;
  return quantity(parseSize, what, parseSize(min) as number, parseSize(max) as number);
}

export function integer(min: number, max: number) {
  const error = expected(`a whole number from ${min} to ${max}`);
  return z.int({ error }).min(min, { error }).max(max, { error });
}

export const port = () => integer(1, 65_535);

export function text(what: string, pattern = /./s) {
  const error = expected(what);
  return z.string({ error }).regex(pattern, { error });
}

/** A password may be in it, so it is never shown. */
export function redisUrl() {
  const what = 'redis://[user:password@]host[:port][/database], or rediss:// for TLS';
  const error = ({ input }: { input?: unknown }): string => {
    if (input === undefined) return `is required: expected ${what}`;
    return typeof input === 'string' && /sentinel|cluster/i.test(input.split(':')[0])
      ? `expected ${what}: a Redis Sentinel or Cluster would lose votes in a failover`
      : `expected ${what}`;
  };
  const isUrl = (input: string): boolean => /^rediss?:\/\/[^/?#\s]+(\/\d*)?$/.test(input) && URL.canParse(input);
  return z.string({ error }).refine(isUrl, { error });
}

export function choice<const Values extends readonly string[]>(values: Values) {
  return z.enum(values, { error: expected(`one of ${values.join(', ')}`) });
}

export function boolean() {
  return z.boolean({ error: expected('true or false') });
}

/** A mapping with exactly these settings. */
export function group<Shape extends z.core.$ZodLooseShape>(shape: Shape) {
  return z.strictObject(shape, {
    error: (issue) => (issue.code === 'invalid_type' ? expected('a mapping')(issue) : undefined),
  });
}

export function list<Element extends z.ZodType>(element: Element, what: string) {
  const error = expected(what);
  return z.array(element, { error }).min(1, { error });
}
