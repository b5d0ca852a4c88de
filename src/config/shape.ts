import { z } from 'zod';
import { configSchema } from './schema.ts';

/** The settings that a group has, by the group's path in the file; empty for a path that leads to no group. */
export function knownKeys(path: readonly PropertyKey[]): string[] {
  let at: unknown = configSchema;
  for (const part of path) {
    const inner = unwrap(at);
    if (inner instanceof z.ZodArray) at = inner.element;
    else if (inner instanceof z.ZodObject) at = (inner.shape as Record<string, unknown>)[String(part)];
    else return [];
  }
  const inner = unwrap(at);
  return inner instanceof z.ZodObject ? Object.keys(inner.shape) : [];
}

/** Every setting's name, lists as `nodes[].id`. A group is listed by its settings only. */
export function allSettings(at: unknown = configSchema, name = ''): string[] {
  const inner = unwrap(at);
  if (inner instanceof z.ZodArray) {
    const below = allSettings(inner.element, `${name}[]`);
    return below.length === 1 && below[0] === `${name}[]` ? [name] : below;
  }
  if (!(inner instanceof z.ZodObject)) return [name];
  return Object.entries(inner.shape as Record<string, unknown>).flatMap(([key, value]) =>
    allSettings(value, name === '' ? key : `${name}.${key}`),
  );
}

function unwrap(schema: unknown): unknown {
  if (schema instanceof z.ZodDefault || schema instanceof z.ZodPrefault || schema instanceof z.ZodOptional) {
    return unwrap(schema.unwrap());
  }
  // What stands in the file is a pipe's beginning, except where that only brings several forms into one.
  if (schema instanceof z.ZodPipe) return unwrap(schema.in instanceof z.ZodTransform ? schema.out : schema.in);
  return schema;
}
