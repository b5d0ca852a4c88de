/** A string constant ("String Constants" of the SQL syntax chapter); standard_conforming_strings must be on. */
export const literal = (text: string): string => `'${text.replaceAll("'", "''")}'`;

/** A quoted identifier. */
export const quote = (name: string): string => `"${name.replaceAll('"', '""')}"`;
